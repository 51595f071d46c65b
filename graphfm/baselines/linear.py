"""Closed-form linear GNNs, averaged: GraphAny without its learned attention."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from graphfm.baselines.base import Floor, GraphFeatures
from graphfm.data.splits import Split

__all__ = ["LinearGNNs"]


class LinearGNNs(Floor):
    """Mean of five least-squares classifiers, on X, A X, A^2 X, (I - A) X, (I - A)^2 X (GraphAny, 2405.20445, eq. 2).

    Each is the minimum-norm solution on the labelled rows. GraphAny weighs the five by an attention trained on the
    labels of another graph; here they count alike, so nothing is trained.

    Args:
        ridge: of each classifier, times the mean squared norm of its labelled rows; 0 as in the paper.

    Raises:
        ValueError: a negative ridge.
    """

    name = "linear GNNs (GraphAny-like)"

    def __init__(self, ridge: float = 0.0) -> None:
        if not ridge >= 0:
            raise ValueError(f"ridge must be at least 0, got {ridge}.")
        self.ridge = ridge

    def scores(self, graph: GraphFeatures, split: Split) -> Tensor:
        """``[N, C]`` mean regression values."""
        x, once, twice = graph.mean_hops
        target = F.one_hot(graph.y[split.train], graph.num_classes).double()
        total = torch.zeros(x.size(0), graph.num_classes)
        for channel in (x, once, twice, x - once, x - 2 * once + twice):
            # In double: with more rows than features, rounding of the Gram matrix would pass for rank.
            rows = channel[split.train].double()
            gram = rows @ rows.t()
            gram.diagonal().add_(self.ridge * gram.diagonal().mean())
            dual = torch.linalg.pinv(gram, rtol=1e-10, hermitian=True) @ target
            total += channel @ (rows.t() @ dual).float()
        return total / 5
