"""InstructGLM: neighbourhoods told in words with a token for every node, before a language model tuned by LoRA."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.adapters import Handle, LoRA, attach
from graphfm.data.splits import Split
from graphfm.graphllm.backends.prompts import question
from graphfm.graphllm.predictors.answers import Scores, named, same_nodes
from graphfm.graphllm.predictors.predictor import Predictor
from graphfm.graphllm.predictors.relations import chosen, pagerank, rings
from graphfm.graphllm.predictors.sequences import between, embedded, joined, opening, slots, texts, words
from graphfm.graphllm.texts import adjacency, node_texts

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM, TextEncoder

__all__ = ["InstructGLM", "NodeTokens"]

_FAR = ("one hop,", "two hops,", "three hops,")
_TUNED = ("*q_proj", "*k_proj", "*v_proj", "*o_proj")
_RESTART, _STEPS = 0.15, 20


class NodeTokens(nn.Module):
    """A token for each node: ``own_v + W_2 elu(LN(W_1 x_v))`` (2308.07134, section 3.1), ``own`` zero at the start.

    Args:
        num_nodes: N.
        in_channels: width of the text vectors.
        hidden: width between.
        width: D.
    """

    def __init__(self, num_nodes: int, in_channels: int, hidden: int, width: int) -> None:
        super().__init__()
        self.own = nn.Embedding.from_pretrained(torch.zeros(num_nodes, width), freeze=False)
        self.first = nn.Linear(in_channels, hidden, bias=False)
        self.norm = nn.LayerNorm(hidden)
        self.second = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, node: Tensor) -> Tensor:
        """Text vectors ``[N, F]`` and nodes ``[M]`` to tokens ``[M, D]``."""
        return self.own(node) + self.second(F.elu(self.norm(self.first(x[node]))))


class InstructGLM(Predictor):
    """Instructions about a node's surroundings, one to three hops far (Ye et al., 2308.07134, section 3).

    A prompt names the node by its token and its text, then those of its neighbours' tokens that are one hop away, two,
    and three, up to a distance that is drawn each step; at prediction it is the farthest, with the nearest nodes by
    PageRank. The answer is the class name, learned by its next-token loss, so none is unknown. Beside it the model
    learns from the graph alone which node is one more neighbour: ``softmax_u(h . token_u)`` over the nodes asked for in
    the same step, less those that are neighbours as well.

    Trained: the node tokens (``nodes``: a row each, and the map of the text vector), and LoRA on the language model's
    attention (``lora``), which is taken out again after ``fit`` and ``predict``. Frozen: the text encoder and the
    language model itself. Where it differs: the paper also adapts the head; it asks for links in some twenty wordings,
    yes or no among them, and here there is one; it names intermediate nodes of longer paths. Small here: the paper
    tunes models of up to 7 billion weights for many passes. Published settings: the learning rate of GLBench's
    ``train_llama_cora.sh``.

    Args:
        hops: farthest distance that is told, 1 to 3.
        neighbours: most nodes a distance.
        tokens: most tokens of the node's own text.
        rank: of LoRA; alpha is 16.
        hidden: width inside the map of the text vectors.
        links: weight of the loss of links; 0 leaves it out.
        targets: globs over names of the modules that LoRA adapts.
        settings: of :class:`~graphfm.graphllm.predictors.predictor.Predictor`.
    """

    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (2e-3, 5e-3)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (8e-5,)}

    def __init__(
        self,
        encoder: TextEncoder,
        lm: CausalLM,
        *,
        hops: int = 2,
        neighbours: int = 10,
        tokens: int = 64,
        rank: int = 16,
        hidden: int = 512,
        links: float = 0.1,
        targets: tuple[str, ...] = _TUNED,
        **settings: Any,
    ) -> None:
        super().__init__(encoder, lm, **settings)
        if not 1 <= hops <= len(_FAR) or min(neighbours, tokens, rank, hidden) < 1 or links < 0:
            raise ValueError(
                "hops must lie in [1, 3], neighbours, tokens, rank and hidden be at least 1, links at least 0; "
                f"got {hops}, {neighbours}, {tokens}, {rank}, {hidden}, {links}."
            )
        self.hops, self.neighbours, self.tokens, self.rank = hops, neighbours, tokens, rank
        self.hidden, self.links, self.targets = hidden, links, targets

    def make(self, data: Data, x: Tensor, split: Split) -> dict[str, nn.Module]:
        """The node tokens, and LoRA put into the language model."""
        changes = self._attach().changes()
        lora = nn.ModuleDict({name.replace(".", "/"): change for name, change in changes.items()})
        return {"nodes": NodeTokens(int(data.num_nodes or 0), x.size(1), self.hidden, self.lm.dim), "lora": lora}

    def fit(self, data: Data, split: Split) -> InstructGLM:
        """Train on the answers of ``split.train`` and on links, keep the best on ``split.val``."""
        self._handle: Handle | None = None
        try:
            super().fit(data, split)
        finally:
            self._take_out()
        return self

    def predict(self, data: Data) -> Tensor:
        """Probabilities of the class names among themselves, ``[N, C]``; of the graph it was fitted on."""
        with self.adapted():
            return super().predict(data)

    @contextlib.contextmanager
    def adapted(self) -> Iterator[None]:
        """What was learned is in the language model inside the block."""
        try:
            self._attach().load_state_dict(self._learned)
            yield
        finally:
            self._take_out()

    def scores(self, data: Data, x: Tensor) -> Scores:
        """Likelihood of the class names after the surroundings and the question."""
        same_nodes(data, self.modules["nodes"].own.num_embeddings)
        adj, nobody = adjacency(data, self.device), int(data.num_nodes or 0)
        own, start = texts(self.lm, node_texts(data), self.tokens).to(self.device), opening(self.lm).to(self.device)
        asked = self._words(question(self.labels))
        between_words = [(self._words("is connected with"), self._words(f"within {far}")) for far in _FAR]
        vectors, training = self._vectors_of(x), self.modules["nodes"]

        def prompts(nodes: Tensor) -> tuple[Tensor, Tensor]:
            roots = nodes.to(self.device)
            depth = int(torch.randint(self.hops, ())) + 1 if training.training else self.hops
            members = rings(adj, roots, depth)
            order = torch.rand(members[0].shape) if training.training else pagerank(adj, roots, _RESTART, _STEPS)
            drawn = [slots(chosen(each, order.to(each.device), self.neighbours), nobody) for each in members]
            told = [between(before, ids, after) for ids, (before, after) in zip(drawn, between_words, strict=False)]
            numbers, mask = joined([start, -1 - roots[:, None], own[roots], *told, asked])
            return embedded(self.lm, numbers, vectors), mask

        return named(self.lm, prompts, self.labels)

    def beside(self, data: Data, x: Tensor) -> Callable[[], Tensor] | None:
        """Which node is one more neighbour, of ``batch`` nodes that have any."""
        adj, nobody = adjacency(data, self.device), int(data.num_nodes or 0)
        linked = torch.nonzero(adj.rowptr.diff()).flatten()
        if not self.links or not linked.numel():
            return None
        start, asks = opening(self.lm).to(self.device), self._words("within one hop. Which other node is it?")
        says, vectors = self._words("is connected with"), self._vectors_of(x)

        def loss() -> Tensor:
            roots = linked[torch.randperm(linked.numel())[: self.batch].to(linked.device)]
            members = rings(adj, roots, 1)[0]
            drawn = chosen(members, torch.rand(members.shape).to(members.device), self.neighbours + 1)
            wanted, others = drawn[:, 0], slots(drawn[:, 1:], nobody)
            numbers, mask = joined([start, -1 - roots[:, None], says, others, asks])
            last = self.lm.forward(embedded(self.lm, numbers, vectors), mask, keep=1)[1][:, -1].float()
            candidate, right = torch.unique(wanted, return_inverse=True)
            also = members[candidate].t() & (wanted[:, None] != candidate[None])
            logits = (last @ vectors(candidate).float().t()).masked_fill(also.to(last.device), -torch.inf)
            return self.links * F.cross_entropy(logits, right.to(last.device))

        return loss

    def _words(self, text: str) -> Tensor:
        return words(self.lm, text).to(self.device)

    def _vectors_of(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        given, nodes = x.to(self.place), self.modules["nodes"]
        return lambda node: nodes(given, node.to(given.device))

    def _attach(self) -> Handle:
        self._handle = attach(
            self.lm.model, LoRA(rank=self.rank, alpha=16), self.targets, name="instructglm", seed=self.seed
        )
        return self._handle

    def _take_out(self) -> None:
        if self._handle is not None:
            self._learned = {name: value.clone() for name, value in self._handle.state_dict().items()}
            self._handle.detach()
            self._handle = None
