"""TAPE: a language model's guesses and explanations as further features of a graph network."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.backbones import GCN
from graphfm.data.splits import Split
from graphfm.graphllm.backends.answers import AnswerStore, Stored
from graphfm.graphllm.backends.asking import ask_all
from graphfm.graphllm.backends.base import Usage
from graphfm.graphllm.backends.cache import cache_folder
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.texts import adjacency, encode_together, node_texts, num_classes
from graphfm.graphllm.training import train_nodes
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM, ChatClient, TextEncoder
    from graphfm.graphllm.backends.ledger import Ledger

__all__ = ["TAPE", "LocalTAPE", "ranked_features", "ranked_labels"]

_TOGETHER = 64  # answers that a local model writes before they are kept


def ranked_labels(answer: str, labels: list[str], at_most: int) -> list[int]:
    """The classes that an answer names, in the order in which it first does; of nested names the longest."""
    names = [" ".join(label.replace("_", " ").casefold().split()) for label in labels]
    longest = sorted(range(len(names)), key=lambda index: -len(names[index]))
    pattern = "|".join(rf"(?<!\w){re.escape(names[index])}(?!\w)" for index in longest)
    text = " ".join(answer.replace("_", " ").casefold().split())
    found = [names.index(match.group()) for match in re.finditer(pattern, text)]
    return list(dict.fromkeys(found))[:at_most]


def ranked_features(ranked: list[list[int]], classes: int, at_most: int) -> Tensor:
    """One-hot classes side by side, a block a rank, zeros where there is none: ``[N, at_most * C]``."""
    out = torch.zeros(len(ranked), at_most, classes)
    for row, labels in enumerate(ranked):
        out[row, range(len(labels)), labels] = 1.0
    return out.flatten(1)


class TAPE(Supervised):
    """Three graph networks on text, explanation and ranked guesses of a chat model, averaged (He et al., 2305.19523).

    Once a node, the model is asked for the likeliest classes in order and for an explanation. The features are
    ``h_orig`` (the vector of the text), ``h_expl`` (that of the answer) and ``h_pred`` (the ranked classes, one-hot);
    a network is trained on each, and their logits are averaged.

    Frozen: the chat model and the encoder; the paper fine-tunes a language model on each of the two texts, and embeds
    the ranked classes by a layer, which here is the first layer of the third network. Trained: the three GCNs, each
    kept by its own validation accuracy. Answers are kept on disk, by model and question. Small here: networks of
    two layers, the authors have four. Published settings: the defaults of the authors' ``core/config.py``.

    Args:
        chat: is asked.
        encoder: embeds texts and answers, in one call.
        ranks: most guesses that are read.
        characters: of a text that are told.
        max_tokens: of an answer.
        hidden: width of the networks.
        layers: of the networks.
        dropout: rate.
        lr: learning rate of Adam.
        weight_decay: of Adam.
        epochs: steps over the whole graph.
        seed: of weights and dropout.
        device: where the networks are trained.

    Attributes:
        usage: what the answers cost when they were first given.
    """

    needs: ClassVar[tuple[str, ...]] = ("chat", "encoder")
    family = "enhancer"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"hidden": (64, 128)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden": (128,),
        "layers": (4,),
        "dropout": (0.0,),
        "weight_decay": (0.0,),
    }

    def __init__(
        self,
        chat: ChatClient,
        encoder: TextEncoder,
        *,
        ranks: int = 5,
        characters: int = 2000,
        max_tokens: int = 200,
        hidden: int = 64,
        layers: int = 2,
        dropout: float = 0.5,
        lr: float = 0.01,
        weight_decay: float = 5e-4,
        epochs: int = 200,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        if ranks < 1 or characters < 1 or max_tokens < 1:
            raise ValueError(
                f"ranks, characters and max_tokens must be at least 1, got {ranks}, {characters} and {max_tokens}."
            )
        self.model: Any = chat
        self.encoder, self.ranks, self.characters, self.max_tokens = encoder, ranks, characters, max_tokens
        self.hidden, self.layers, self.dropout = hidden, layers, dropout
        self.lr, self.weight_decay, self.epochs = lr, weight_decay, epochs
        self.before: set[str] = set()
        self.counted: set[str] = set()

    def go_on_from(self, other: Supervised) -> None:
        """Answers that another setting was counted for are not counted again."""
        self.before = {*other.before, *other.counted} if isinstance(other, TAPE) else set()

    def questions(self, data: Data) -> list[str]:
        """What is asked of each node."""
        names = ", ".join(label.replace("_", " ") for label in data.label_text)
        ask = f"Question: the classes are {names}. Name the {self.ranks} likeliest, likeliest first. Then explain why."
        return [f"{text[: self.characters]} {ask} Answer:" for text in node_texts(data)]

    def answers(self, data: Data) -> list[str]:
        """What the model says of each node, from disk where it is; ``usage`` is what all of it once cost."""
        store = AnswerStore(Path(cache_folder()) / "tape")
        asked = self.questions(data)
        keys = {text: self._key(text) for text in asked}
        known = {text: found for text, key in keys.items() if (found := store.get(key)) is not None}

        def came(text: str, answer: Stored) -> None:
            store.put(keys[text], answer)
            known[text] = answer

        self._ask([text for text in keys if text not in known], came)
        self._count({keys[text]: answer for text, answer in known.items()})
        return [known[text].text for text in asked]

    def _key(self, text: str) -> str:
        asked = f"{self.model.name}\0{self.max_tokens}\0{text}"
        return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()

    def features(self, data: Data) -> list[Tensor]:
        """``h_orig`` ``[N, D]``, ``h_expl`` ``[N, D]`` and ``h_pred`` ``[N, ranks * C]``, on the device."""
        answers, labels = self.answers(data), list(data.label_text)
        text, explanation = encode_together(self.encoder, node_texts(data), answers)
        ranked = [ranked_labels(answer, labels, self.ranks) for answer in answers]
        found = [text, explanation, ranked_features(ranked, len(labels), self.ranks)]
        return [x.to(self.device) for x in found]

    def fit(self, data: Data, split: Split) -> TAPE:
        """Train a network on each of the features, by the labels of ``split.train``."""
        split.check(int(data.num_nodes or 0))
        adj, y = adjacency(data, self.device), data.y.to(self.device)
        self.networks = nn.ModuleDict()
        with isolated_rng(self.seed, self.device):
            for name, x in zip(("orig", "expl", "pred"), self.features(data), strict=True):
                network = GCN(x.size(1), self.hidden, self.layers, num_classes(data), dropout=self.dropout)
                network.to(self.device)
                self.networks[name] = network
                train_nodes(
                    network, lambda net=network, h=x: net(h, adj), y, split, network.parameters(),  # type: ignore[misc]
                    lr=self.lr, weight_decay=self.weight_decay, epochs=self.epochs,
                )  # fmt: skip
        self.train_only(dict(self.networks.items()))
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Probabilities of the averaged logits ``[N, C]``."""
        adj = adjacency(data, self.device)
        logits = [net(x, adj) for net, x in zip(self.networks.values(), self.features(data), strict=True)]
        return torch.stack(logits).mean(0).softmax(1).cpu()

    def _ask(self, questions: list[str], came: Callable[[str, Stored], None]) -> None:
        ask_all(
            self.model, questions, self.max_tokens, lambda text, answer: came(text, Stored(answer.text, answer.cost))
        )

    def _count(self, answers: dict[str, Stored]) -> None:
        """Each answer costs the first of the settings that are tried on the same graph."""
        self.counted = {*self.counted, *answers}
        self.usage = sum((answer.usage for key, answer in answers.items() if key not in self.before), Usage())


class LocalTAPE(TAPE):
    """:class:`TAPE` whose answers a causal language model generates; of a small one expect little.

    Args:
        lm: is asked.
    """

    needs: ClassVar[tuple[str, ...]] = ("lm", "encoder")

    def __init__(self, lm: CausalLM, encoder: TextEncoder, **settings: Any) -> None:
        super().__init__(lm, encoder, **settings)  # type: ignore[arg-type]
        self.paid = 0.0

    def _ask(self, questions: list[str], came: Callable[[str, Stored], None]) -> None:
        for at in range(0, len(questions), _TOGETHER):
            part, started = questions[at : at + _TOGETHER], time.perf_counter()
            answers = self.model.generate(part, self.max_tokens)
            each = (time.perf_counter() - started) / len(part)
            self.paid += each * len(part)
            for text, answer in zip(part, answers, strict=True):
                came(text, Stored(answer, seconds=each))

    def _count(self, answers: dict[str, Stored]) -> None:
        """To the model's ledger, as the states are: what all answers once took, and what was spent on them now."""
        ledger: Ledger | None = getattr(self.model, "ledger", None)
        paid, self.paid = self.paid, 0.0
        if ledger is not None:
            for key, answer in answers.items():
                ledger.states(key, answer.seconds, 0.0)
            ledger.paid += paid
