"""GraphText, in context: a node's surroundings written as a tree in words, and a chat model that names its class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.data.splits import Split
from graphfm.graphllm.backends.asking import ask_all
from graphfm.graphllm.backends.prompts import question
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.predictors.answers import same_nodes
from graphfm.graphllm.predictors.relations import RELATIONS, relations
from graphfm.graphllm.texts import adjacency, asked_of, node_texts, readable
from graphfm.graphllm.zeroshot.language_model import named_scores

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import ChatClient

__all__ = ["GraphText", "known_labels", "tree"]

_CHUNK = 128  # roots whose surroundings are looked up together


class GraphText(Supervised):
    """A graph-syntax tree in words, for a chat model that learns from what it reads (Zhao et al., 2310.01089, sec. 3).

    The tree of a node has attributes (text, label) above relations (the node itself, one hop, two hops, near by
    personalised PageRank) above the values, and is written depth first as markup. Labels are those of training nodes,
    never that of the node itself. Before the question stand ``demonstrations``: training nodes with tree and answer.

    Frozen: everything; ``fit`` remembers the labels of ``split.train``. An answer that names no class, or several, is
    UNKNOWN. Where it differs: the paper also writes cluster numbers of features, and takes demonstrations of high
    degree; here texts are told, and demonstrations are drawn. Small here: the tree holds at most ``neighbours`` nodes a
    relation.

    Args:
        chat: answers, at temperature 0.
        neighbours: most nodes of a relation, the nearest by PageRank.
        demonstrations: answered training nodes that are shown before the question.
        characters: of the node's own text that are told.
        neighbour_characters: of the other texts.
        max_tokens: of an answer.
        seed: which demonstrations are shown.
        device: where surroundings are looked up.

    Attributes:
        usage: what all answers cost.
    """

    needs: ClassVar[tuple[str, ...]] = ("chat",)
    family = "predictor"

    def __init__(
        self,
        chat: ChatClient,
        *,
        neighbours: int = 5,
        demonstrations: int = 2,
        characters: int = 1000,
        neighbour_characters: int = 200,
        max_tokens: int = 32,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        if neighbours < 1 or demonstrations < 0 or min(characters, neighbour_characters, max_tokens) < 1:
            raise ValueError(
                "neighbours, characters, neighbour_characters and max_tokens must be at least 1, demonstrations at "
                f"least 0; got {neighbours}, {characters}, {neighbour_characters}, {max_tokens}, {demonstrations}."
            )
        self.chat, self.neighbours, self.demonstrations = chat, neighbours, demonstrations
        self.characters, self.neighbour_characters, self.max_tokens = characters, neighbour_characters, max_tokens

    def fit(self, data: Data, split: Split) -> GraphText:
        """Remember the labels of ``split.train``, and draw the demonstrations among them."""
        split.check(int(data.num_nodes or 0))
        self.known = known_labels(data, split)
        random = torch.Generator().manual_seed(self.seed)
        self.shown = split.train[torch.randperm(split.train.numel(), generator=random)[: self.demonstrations]]
        return self

    def prompts(self, data: Data, nodes: Tensor | None = None) -> list[str]:
        """What is asked of ``nodes`` (all if not given)."""
        same_nodes(data, len(self.known))
        labels = readable(data.label_text)
        asked = nodes if nodes is not None else torch.arange(int(data.num_nodes or 0))
        trees = self._trees(data, torch.cat([self.shown, asked]))
        shown = [
            f"{text}\n{question(labels)} {labels[label]}\n\n"
            for text, label in zip(trees, self.known[self.shown].tolist(), strict=False)
        ]
        end = f"\n{question(labels)} Answer with the name of one class only."
        return ["".join(shown) + text + end for text in trees[len(shown) :]]

    def predict(self, data: Data) -> Tensor:
        """1 at the class that was named, 0 elsewhere, a row of NaN for UNKNOWN and nodes not asked about: ``[N, C]``.

        Raises:
            ChatError: the model cannot be asked.
            BudgetError: the budget is spent.
        """
        nodes = asked_of(data)
        answers, self.usage = ask_all(self.chat, self.prompts(data, nodes), self.max_tokens)
        return named_scores(answers, nodes.tolist(), int(data.num_nodes or 0), data.label_text)

    def _trees(self, data: Data, nodes: Tensor) -> list[str]:
        texts, labels, known = node_texts(data), [*readable(data.label_text), ""], [*self.known.tolist(), -1]
        own = [text[: self.characters] for text in texts]
        short = [*(text[: self.neighbour_characters] for text in texts), ""]
        adj = adjacency(data, self.device)
        found = []
        for part in nodes.split(_CHUNK):
            around = [ids.tolist() for ids in relations(adj, part.to(self.device), self.neighbours)]
            for node, *others in zip(part.tolist(), *around, strict=True):
                values = [[short[other] for other in each] for each in others]
                named = [[labels[known[other]] for other in each] for each in others]
                found.append(tree(own[node], values, named))
        return found


def known_labels(data: Data, split: Split) -> Tensor:
    """Labels ``[N]`` of the training nodes, -1 for all others."""
    return torch.full_like(data.y, -1).index_copy(0, split.train, data.y[split.train])


def tree(own: str, texts: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]) -> str:
    """The graph-syntax tree of a node, depth first.

    Args:
        own: the node's text.
        texts: for each of :data:`RELATIONS` the texts of the nodes in it, ``""`` for none.
        labels: for each the labels that are known.
    """
    inside = _leaf("self", [own]) + "".join(_leaf(name, each) for name, each in zip(RELATIONS, texts, strict=True))
    told = "".join(_leaf(name, each) for name, each in zip(RELATIONS, labels, strict=True))
    return _branch("graph", _branch("text", inside) + _branch("label", told))


def _leaf(name: str, values: Sequence[str]) -> str:
    there = [value for value in values if value]
    return f"<{name}> {' ; '.join(there)} </{name}> " if there else ""


def _branch(name: str, inside: str) -> str:
    return f"<{name}> {inside}</{name}> " if inside else ""
