"""GraphText, tuned: the same tree as tokens that are trained, before a frozen language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.data.splits import Split
from graphfm.graphllm.backends.prompts import question
from graphfm.graphllm.predictors.answers import Scores, same_nodes
from graphfm.graphllm.predictors.graphtext import known_labels
from graphfm.graphllm.predictors.llaga import hops
from graphfm.graphllm.predictors.predictor import Predictor
from graphfm.graphllm.predictors.relations import RELATIONS, relations
from graphfm.graphllm.predictors.sequences import NOTHING, between, embedded, joined, opening, words
from graphfm.graphllm.texts import adjacency

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM, TextEncoder

__all__ = ["GraphTextTuned"]

_FIELDS = ("x", "a1x", "a2x")
_TAGS = ("graph", "feature", "label", *_FIELDS, *RELATIONS)


class GraphTextTuned(Predictor):
    """GraphText tuned to its class tokens (Zhao et al., 2310.01089, section 3 and the published supervised setting).

    The tree of :class:`~graphfm.graphllm.predictors.graphtext.GraphText` with tokens of its own: one that opens and one
    that closes each branch, one for each class where a training node's label is told, and for text the attributes
    ``x``, ``S x`` and ``S^2 x`` of the node as one token each, ``LN(W_k LN(S^k x_v) + b_k)``. The answer is a class
    token as well, ``softmax_c(h . a_c)`` of the language model's last state ``h``; the loss is the cross-entropy of
    that one token, and nothing is parsed, so no answer is unknown.

    Trained: branches (``tags``), ``classes`` as they are read, ``answers`` as they are told, ``encoders`` (W_k and
    their norms). Frozen: the text encoder and the language model. Where it differs: the published code also moves
    the rows of all other words, since it trains both tables whole; its softmax runs over all words; its class tokens
    start as the mean of all words, here of those in the class's name. The labels in a tree are those of training
    nodes, never that of the node itself. Small here: at most ``neighbours`` nodes a relation. Published settings:
    learning rate and dropout of the authors' ``configs/exp/sft.yaml``.

    Args:
        neighbours: most nodes of a relation, the nearest by PageRank.
        dropout: of the vectors before W.
        settings: of :class:`~graphfm.graphllm.predictors.predictor.Predictor`.
    """

    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (5e-3, 2e-2)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (5e-5,), "dropout": (0.5,)}

    def __init__(
        self, encoder: TextEncoder, lm: CausalLM, *, neighbours: int = 10, dropout: float = 0.0, **settings: Any
    ) -> None:
        super().__init__(encoder, lm, **settings)
        if neighbours < 1 or not 0 <= dropout < 1:
            raise ValueError(f"neighbours must be at least 1, dropout in [0, 1), got {neighbours} and {dropout}.")
        self.neighbours, self.dropout = neighbours, dropout

    def make(self, data: Data, x: Tensor, split: Split) -> dict[str, nn.Module]:
        """Branches start as the mean word, classes and answers as the mean of the words in their names."""
        self.known = known_labels(data, split)
        read, told = (getattr(self.lm.model, f"get_{end}_embeddings")().weight.detach() for end in ("input", "output"))
        names = [torch.tensor(ids[:-1], device=read.device) for ids in self.lm.label_ids(self.labels)]
        rows = {
            "tags": read.float().mean(0).repeat(2 * len(_TAGS), 1),
            "classes": torch.stack([read[ids].float().mean(0) for ids in names]),
            "answers": torch.stack([told[ids].float().mean(0) for ids in names]),
        }
        tokens = {name: nn.Embedding.from_pretrained(table, freeze=False) for name, table in rows.items()}
        width = self.lm.dim
        encoders = [
            nn.Sequential(nn.LayerNorm(n), nn.Dropout(self.dropout), nn.Linear(n, width), nn.LayerNorm(width))
            for n in [x.size(1)] * len(_FIELDS)
        ]
        return {**tokens, "encoders": nn.ModuleList(encoders)}

    def numbers(self, data: Data) -> Any:
        """A function from nodes ``[B]`` to their trees and the question, numbers and mask ``[B, T]``."""
        adj = adjacency(data, self.device)
        known = torch.cat([self.known, self.known.new_full((1,), -1)]).to(self.device)
        start, asked = (part.to(self.device) for part in (opening(self.lm), words(self.lm, question(self.labels))))
        first = 2 * len(_TAGS)
        begin = first + len(self.labels)

        def leaf(name: str, inner: Tensor) -> Tensor:
            opens = -1 - 2 * torch.tensor([_TAGS.index(name)], device=inner.device)
            return between(opens, inner, opens - 1)

        def build(nodes: Tensor) -> tuple[Tensor, Tensor]:
            own = begin + len(_FIELDS) * nodes.to(self.device)[:, None]
            vectors = [leaf(name, -1 - own - k) for k, name in enumerate(_FIELDS)]
            labels = [known[ids] for ids in relations(adj, nodes.to(self.device), self.neighbours)]
            told = [torch.where(each < 0, NOTHING, -1 - first - each) for each in labels]
            branches = {"feature": vectors, "label": list(map(leaf, RELATIONS, told))}
            inside = [leaf(name, torch.cat(leaves, dim=1)) for name, leaves in branches.items()]
            return joined([start, leaf("graph", torch.cat(inside, dim=1)), asked])

        return build

    def scores(self, data: Data, x: Tensor) -> Scores:
        """Log-probabilities of the class tokens among themselves."""
        same_nodes(data, len(self.known))
        build = self.numbers(data)
        tags, classes, encoders = (self.modules[name] for name in ("tags", "classes", "encoders"))
        fields = hops(x, adjacency(data, self.device), len(_FIELDS) - 1).to(self.place)

        def vectors(key: Tensor) -> Tensor:
            table = torch.cat([tags.weight, classes.weight])
            found = table.new_zeros(len(key), table.size(1))
            own = key.to(table.device) - len(table)
            found = found.index_put((own < 0,), table[key[own < 0]])
            for k, encoder in enumerate(encoders):
                mine = (own >= 0) & (own % len(_FIELDS) == k)
                found = found.index_put((mine,), encoder(fields[own[mine] // len(_FIELDS), k]))
            return found

        def scored(nodes: Tensor) -> Tensor:
            numbers, mask = build(nodes)
            last = self.lm.forward(embedded(self.lm, numbers, vectors), mask, keep=1)[1][:, -1]
            return (last.float() @ self.modules["answers"].weight.t()).log_softmax(-1)

        return scored
