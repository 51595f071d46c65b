"""Zero-shot language models: asked for the class of a node by its text, or by its text and those of its neighbours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.graphllm.backends.asking import ask_all
from graphfm.graphllm.backends.prompts import listed
from graphfm.graphllm.method import ZeroShot
from graphfm.graphllm.texts import adjacency, asked_of, node_texts, readable

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM, ChatClient

__all__ = ["ChatZeroShot", "LMZeroShot", "NeighbourChatZeroShot", "NeighbourLMZeroShot", "named_scores", "parse_label"]


CONTENT_FREE = ("N/A", "[MASK]", "")  # Zhao et al.'s three


def parse_label(answer: str, labels: Sequence[str]) -> int | None:
    """Which of ``labels`` an answer names, or None (UNKNOWN) if it names none of them, or several.

    Case, underscores and white space do not matter; a label counts where it stands as whole words, and not inside a
    longer label that stands there: "Networks and Systems" does not name "Networks".
    """
    text = _plain(answer)
    found = [
        (match.start(), match.end(), index)
        for index, label in enumerate(labels)
        if _plain(label)
        for match in re.finditer(rf"(?<!\w){re.escape(_plain(label))}(?!\w)", text)
    ]
    named = {
        index
        for start, end, index in found
        if not any(a <= start and end <= b and b - a > end - start for a, b, _ in found)
    }
    return named.pop() if len(named) == 1 else None


def _plain(text: str) -> str:
    return " ".join(str(text).replace("_", " ").casefold().split())


class LMZeroShot(ZeroShot):
    """The likelihood of each class name after a node's text; edges are not looked at.

    The prompt names the classes first, with their descriptions where there are some. A likelihood by itself prefers
    names that are short and common, up to the same answer for every node; so each is divided by what it is where
    "N/A", "[MASK]" or nothing stands in the place of the texts (the mean of the three): contextual calibration, Zhao
    et al., 2102.09690, section 5, without examples in the prompt. Their W is diagonal, ours too; they take a softmax
    of quotients, here they are made to sum to 1, which names the same class.

    Frozen: the language model. Nothing is trained, nothing is generated, so no answer is unknown. GLBench lets its
    models write an answer and looks for a name in it (:class:`ChatZeroShot`); here all names are scored. The prompt is
    plain text, without the model's chat template.

    Args:
        lm: scores the names; prompts that are too long lose their middle.
        calibrate: whether to divide; else the likelihoods are compared as they are.
        neighbours: most neighbours whose text is told.
        characters: of each text that is told.
        seed: which neighbours are told, where there are more.
        device: not used: the language model stays where it is.
    """

    needs: ClassVar[tuple[str, ...]] = ("lm",)
    uses = frozenset({"text"})
    family = "zero-shot"
    descriptions: ClassVar[bool] = True
    told: ClassVar[int] = 0
    end: ClassVar[str] = "Class:"

    def __init__(
        self,
        lm: CausalLM,
        *,
        calibrate: bool = True,
        neighbours: int | None = None,
        characters: int = 1000,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.lm, self.calibrate = lm, calibrate
        self._settings(neighbours, characters, seed, device)

    def _settings(self, neighbours: int | None, characters: int, seed: int, device: str | None) -> None:
        ZeroShot.__init__(self, seed=seed, device=device)
        self.neighbours = self.told if neighbours is None else neighbours
        if self.neighbours < 0 or characters < 1:
            raise ValueError(
                f"neighbours must not be negative and characters at least 1, got {self.neighbours} and {characters}."
            )
        self.characters = characters

    def fit(self, sources: Iterable[Data] = ()) -> LMZeroShot:
        """Nothing is learned."""
        return self

    def prompts(self, data: Data) -> list[str]:
        """What is asked of each node ``[N]``: the classes, the texts of neighbours, its own text."""
        texts, classes = [text[: self.characters] for text in node_texts(data)], self._classes(data)
        if not self.neighbours:
            return [self._prompt(classes, text) for text in texts]
        around = drawn_neighbours(data, self.neighbours, self.seed)
        return [
            self._prompt(classes, text, [texts[other] for other in others])
            for text, others in zip(texts, around, strict=True)
        ]

    @staticmethod
    def _classes(data: Data) -> str:
        return listed(data.label_text, data.get("label_description") or ())

    def _prompt(self, classes: str, text: str, others: Sequence[str] = ()) -> str:
        around = "".join(f"Neighbour: {other}\n" for other in others)
        return f"Classes: {classes}.\n{around}Text: {text}\n{self.end}"

    def predict(self, data: Data) -> Tensor:
        """Probabilities of the class names among themselves ``[N, C]``; NaN for nodes that are not asked about."""
        prompts, nodes, names = self.prompts(data), asked_of(data), readable(data.label_text)
        found = torch.full((len(prompts), len(names)), torch.nan)
        likely = self.lm.score([prompts[i] for i in nodes.tolist()], names).log_softmax(1)
        if self.calibrate:
            classes = self._classes(data)
            empty = [self._prompt(classes, text, [text] * self.neighbours) for text in CONTENT_FREE]
            likely = likely - self.lm.score(empty, names).log_softmax(1).logsumexp(0)
        found[nodes] = likely.softmax(1)
        return found


class NeighbourLMZeroShot(LMZeroShot):
    """:class:`LMZeroShot` that is told the texts of up to four neighbours as well; prompts without texts have four."""

    uses = frozenset({"text", "structure"})
    told: ClassVar[int] = 4


class ChatZeroShot(LMZeroShot):
    """The class that a chat model names for a node's text; edges are not looked at.

    Frozen: the model; nothing is trained. An answer that names no class, or several, is UNKNOWN: a row of NaN, which
    counts as wrong and in ``unknown_rate``.

    Args:
        chat: answers, at temperature 0.
        neighbours: most neighbours whose text is told.
        characters: of each text that is told.
        max_tokens: of an answer.
        seed: which neighbours are told, where there are more.
        device: not used.

    Attributes:
        usage: what all answers cost.
    """

    needs: ClassVar[tuple[str, ...]] = ("chat",)
    end: ClassVar[str] = "Answer with the name of one class only."

    def __init__(
        self,
        chat: ChatClient,
        *,
        neighbours: int | None = None,
        characters: int = 1000,
        max_tokens: int = 32,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self._settings(neighbours, characters, seed, device)
        self.chat, self.max_tokens = chat, max_tokens

    def predict(self, data: Data) -> Tensor:
        """1 at the class that was named, 0 elsewhere, a row of NaN for UNKNOWN and nodes not asked about: ``[N, C]``.

        Raises:
            ChatError: the model cannot be asked.
            BudgetError: the budget is spent.
        """
        prompts, nodes = self.prompts(data), asked_of(data).tolist()
        asked = [prompts[node] for node in nodes]
        answers, self.usage = ask_all(self.chat, asked, self.max_tokens)
        return named_scores(answers, nodes, len(prompts), data.label_text)


class NeighbourChatZeroShot(ChatZeroShot):
    """:class:`ChatZeroShot` that is told the texts of up to four neighbours as well."""

    uses = frozenset({"text", "structure"})
    told: ClassVar[int] = 4


def named_scores(answers: Sequence[str], nodes: Sequence[int], rows: int, labels: Sequence[str]) -> Tensor:
    """``[rows, C]``: 1 at the class that the answer about a node names, 0 elsewhere; NaN where there is none."""
    scores = torch.full((rows, len(labels)), torch.nan)
    for node, answer in zip(nodes, answers, strict=True):
        label = parse_label(answer, labels)
        if label is not None:
            scores[node] = 0.0
            scores[node, label] = 1.0
    return scores


def drawn_neighbours(data: Data, at_most: int, seed: int) -> list[list[int]]:
    """Up to ``at_most`` distinct neighbours of each node, drawn evenly from ``seed``."""
    adj = adjacency(data)
    source, target = adj.edge_index
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(target.numel(), generator=generator)
    order = order[torch.argsort(target[order], stable=True)]
    count = torch.bincount(target, minlength=adj.num_nodes)
    groups = source[order].split(count.tolist())
    return [group[:at_most].tolist() for group in groups]
