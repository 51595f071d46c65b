"""The language model fine-tuned: encoder, pooling, a linear head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.data.splits import Split
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.texts import node_texts, num_classes
from graphfm.graphllm.training import validation_score
from graphfm.graphllm.tuned import device_of, embed, fit_batches, tuned_copy
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.sentence import SentenceEncoder

__all__ = ["LMTuning"]


class LMTuning(Supervised):
    """An encoder and a linear head, trained together by cross-entropy on the texts of labelled nodes.

    Trained: a copy of the encoder (all its weights, its last layers, or LoRA on its queries and values) and the head.
    Nothing is frozen but what ``layers`` or ``rank`` leave out. The graph is not looked at. After each pass over the
    training nodes the validation nodes are scored; the best weights are kept. Small here: the encoder,
    and a grid of one point.

    Published settings: GLBench's grid and its 5 passes (``models/llm/llm_supervised`` of its code). It reads the [CLS]
    state and gives the head the encoder's learning rate; here the encoder's own pooling is read (for MiniLM the mean,
    of length 1, on which a head needs larger steps), and the dropout of the grid takes effect.

    Args:
        tunable: an encoder with ``model``, ``embed`` (with gradients) and ``encode``.
        layers: train the last layers alone, that many; all if not given.
        rank: train LoRA of that rank instead.
        lr: learning rate of the encoder, in AdamW.
        head_lr: learning rate of the head.
        dropout: rate in the encoder and before the head.
        label_smoothing: of the cross-entropy.
        batch: texts a step.
        epochs: passes over the training nodes, at most.
        patience: passes without a better validation score after which it ends.
        seed: of the head, LoRA, dropout and batches.
        device: not used: the encoder stays where it is.
    """

    needs = ("tunable",)
    family = "lm"
    uses = frozenset({"text"})
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (5e-5, 1e-4)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (5e-5, 1e-4),
        "dropout": (0.0, 0.1),
        "batch": (4, 8, 16),
        "label_smoothing": (0.0, 0.1),
    }

    def __init__(
        self,
        tunable: SentenceEncoder,
        *,
        layers: int | None = None,
        rank: int | None = None,
        lr: float = 5e-5,
        head_lr: float = 1e-2,
        dropout: float = 0.1,
        label_smoothing: float = 0.0,
        batch: int = 16,
        epochs: int = 5,
        patience: int = 2,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        self.tunable, self.layers, self.rank = tunable, layers, rank
        self.lr, self.head_lr, self.dropout, self.label_smoothing = lr, head_lr, dropout, label_smoothing
        self.batch, self.epochs, self.patience = batch, epochs, patience

    def fit(self, data: Data, split: Split) -> LMTuning:
        """Train on ``split.train``, keep the best weights on ``split.val``."""
        split.check(int(data.num_nodes or 0))
        texts, y = node_texts(data), data.y
        self.lm = tuned_copy(self.tunable, layers=self.layers, rank=self.rank, dropout=self.dropout, seed=self.seed)

        def loss(nodes: Tensor) -> Tensor:
            logits = self.head(embed(self.lm, [texts[i] for i in nodes.tolist()]))
            return F.cross_entropy(logits, y[nodes].to(logits.device), label_smoothing=self.label_smoothing)

        def validate() -> tuple[float, float]:
            return validation_score(self._logits([texts[i] for i in split.val.tolist()]), y[split.val])

        with isolated_rng(self.seed, device_of(self.lm)):
            head = nn.Sequential(nn.Dropout(self.dropout), nn.Linear(self.lm.dim, num_classes(data)))
            self.head = head.to(device_of(self.lm))
            self.train_only({"lm": self.lm.model, "head": self.head})
            groups = [
                {"params": [p for p in self.lm.model.parameters() if p.requires_grad], "lr": self.lr},
                {"params": list(self.head.parameters()), "lr": self.head_lr},
            ]
            fit_batches(
                [self.lm.model, self.head],
                groups,
                loss,
                split.train,
                batch=self.batch,
                epochs=self.epochs,
                validate=validate if split.val.numel() else None,
                patience=self.patience,
            )
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Class probabilities ``[N, C]``."""
        return self._logits(node_texts(data)).softmax(1)

    def _logits(self, texts: list[str]) -> Tensor:
        return self.head(self.lm.encode(texts).to(device_of(self.lm))).cpu()
