"""What predictors share that put vectors into the prompt of a frozen language model: fit, predict, their settings."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.data.splits import Split
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.predictors.answers import Scores, answer_scores, frozen, train_answers
from graphfm.graphllm.texts import encode_together, node_texts, readable
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM, TextEncoder

__all__ = ["Predictor"]


class Predictor(Supervised):
    """Trains what turns a node into a prompt, by the answers of the training nodes, before a frozen language model.

    A subclass says what is trained (:meth:`make`) and how a node's classes are scored (:meth:`scores`).

    Args:
        encoder: gives the text vectors ``x``.
        lm: answers; a prompt that its context does not hold loses its middle (``lm.ledger`` counts them).
        lr: largest learning rate of AdamW.
        epochs: passes over the training nodes.
        batch: prompts a step.
        seed: of weights, of the order of nodes and of what is drawn for a prompt.
        device: where graph vectors are computed; the language model stays where it is.
    """

    modules: dict[str, Any]
    needs = ("encoder", "lm")
    family = "predictor"

    def __init__(
        self,
        encoder: TextEncoder,
        lm: CausalLM,
        *,
        lr: float = 5e-3,
        epochs: int = 20,
        batch: int = 32,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        if epochs < 1 or batch < 1:
            raise ValueError(f"epochs and batch must be at least 1, got {epochs} and {batch}.")
        self.encoder, self.lm = encoder, lm
        self.lr, self.epochs, self.batch = lr, epochs, batch

    @abc.abstractmethod
    def make(self, data: Data, x: Tensor, split: Split) -> dict[str, nn.Module]:
        """What is trained, by name, with weights drawn from torch's current state; ``x`` ``[N, F]`` on the device."""

    @abc.abstractmethod
    def scores(self, data: Data, x: Tensor) -> Scores:
        """How the classes of a node are scored, by ``self.modules``."""

    def before(self, data: Data, x: Tensor) -> None:
        """What is learned without labels before the answers are."""

    def beside(self, data: Data, x: Tensor) -> Callable[[], Tensor] | None:
        """One more loss a step, of a task without labels."""
        return None

    def fit(self, data: Data, split: Split) -> Predictor:
        """Train on the answers of ``split.train``, keep the best state on ``split.val``."""
        split.check(int(data.num_nodes or 0))
        self.labels = readable(data.label_text)
        x = self._vectors(data)
        with isolated_rng(self.seed, self.device), frozen(self.lm.model):
            self.modules = self.make(data, x, split)
            for module in self.modules.values():
                module.to(self.place)
            parameters = self.train_only(self.modules)
            self.before(data, x)
            train_answers(
                self.modules, self.scores(data, x), data.y, split, parameters,
                lr=self.lr, epochs=self.epochs, batch=self.batch, beside=self.beside(data, x),
            )  # fmt: skip
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Probabilities of the answers among themselves, ``[N, C]``."""
        nodes = torch.arange(int(data.num_nodes or 0))
        return answer_scores(self.scores(data, self._vectors(data)), nodes, 4 * self.batch).softmax(1)

    @property
    def place(self) -> torch.device:
        """Where the language model reads its prompts."""
        return self.lm.embed(torch.zeros(1, dtype=torch.long)).device

    def _vectors(self, data: Data) -> Tensor:
        return encode_together(self.encoder, node_texts(data))[0].to(self.device)
