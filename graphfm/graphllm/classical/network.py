"""What the classical networks share: frozen text vectors as features, one backbone, cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.backbones.stack import Backbone
from graphfm.data.splits import Split
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.texts import adjacency, encode_together, node_texts, num_classes
from graphfm.graphllm.training import train_nodes
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import TextEncoder

__all__ = ["Network"]


class Network(Supervised):
    """A backbone on frozen text vectors, trained on the labelled nodes over the whole graph.

    Frozen: the encoder. Trained: the backbone, from random weights. Published settings: GLBench's grid for GCN, SAGE
    and GAT (``models/gnn/run.sh`` of its code; the other backbones take it over), learning rate .01 and 200 epochs
    (2407.07457, appendix); the default grid is its two middle widths. Where GLBench's code reports
    the epoch that is best on test nodes, the one that is best on validation nodes is kept here.
    The features are the encoder's vectors as they come: they are not scaled, so there is nothing to choose by accuracy.

    Args:
        encoder: gives the features.
        hidden: width of the hidden layers.
        layers: number of layers.
        dropout: rate between layers.
        lr: learning rate of Adam.
        weight_decay: of Adam.
        epochs: steps over the whole graph.
        seed: of weights and dropout.
        device: where it is trained.
    """

    needs = ("encoder",)
    family = "classical"
    backbone: ClassVar[type[Backbone]]
    options: ClassVar[dict[str, Any]] = {}
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"hidden": (64, 128)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden": (16, 64, 128, 256),
        "layers": (2, 3),
        "dropout": (0.3, 0.5, 0.6),
    }

    def __init__(
        self,
        encoder: TextEncoder,
        *,
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
        self.encoder = encoder
        self.hidden, self.layers, self.dropout = hidden, layers, dropout
        self.lr, self.weight_decay, self.epochs = lr, weight_decay, epochs

    def make(self, in_channels: int, out_channels: int) -> Backbone:
        """The network, with weights drawn from torch's current state."""
        return self.backbone(in_channels, self.hidden, self.layers, out_channels, dropout=self.dropout, **self.options)

    def features(self, data: Data) -> Tensor:
        """Text vectors ``[N, D]`` on the device."""
        return encode_together(self.encoder, node_texts(data))[0].to(self.device)

    def fit(self, data: Data, split: Split) -> Network:
        """Train on ``split.train``, keep the best state on ``split.val``."""
        split.check(int(data.num_nodes or 0))
        x, adj, y = self.features(data), adjacency(data, self.device), data.y.to(self.device)
        with isolated_rng(self.seed, self.device):
            self.network = self.make(x.size(1), num_classes(data)).to(self.device)
            train_nodes(
                self.network,
                lambda: self.network(x, adj),
                y,
                split,
                self.train_only({"network": self.network}),
                lr=self.lr,
                weight_decay=self.weight_decay,
                epochs=self.epochs,
            )
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Class probabilities ``[N, C]``."""
        scores = self.network(self.features(data), adjacency(data, self.device))
        return scores.softmax(1).cpu()
