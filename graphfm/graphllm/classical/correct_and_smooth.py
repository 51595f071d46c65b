"""Correct & Smooth: an MLP's errors and predictions are spread over the edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.data.splits import Split
from graphfm.graphllm.classical.mlp import MLP
from graphfm.graphllm.texts import adjacency
from graphfm.nn import Adjacency

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import TextEncoder

__all__ = ["CorrectAndSmooth", "correct", "smooth"]


def correct(adj: Adjacency, soft: Tensor, target: Tensor, rows: Tensor, alpha: float, steps: int) -> Tensor:
    """Add the training nodes' errors, spread over the edges and brought to their own size (2010.13993, eq. 4-6).

    Args:
        adj: undirected graph.
        soft: ``[N, C]`` probabilities.
        target: ``[T, C]`` true ones of the training nodes.
        rows: ``[T]`` training nodes.
        alpha: share that comes from the neighbours.
        steps: iterations.

    Returns:
        ``[N, C]``: ``soft + sigma E_i / |E_i|_1`` with sigma the mean L1 norm of the training nodes' errors. Rows that
        the formula would scale up more than a thousandfold stay as they are (as in the authors' code).
    """
    error = torch.zeros_like(soft)
    error[rows] = target - soft[rows]
    sigma = error[rows].abs().sum() / rows.numel()
    error = _propagate(adj, error, alpha, steps, -1.0)
    scale = sigma / error.abs().sum(1, keepdim=True)
    return soft + torch.where(scale.isfinite() & (scale <= 1000), scale, torch.ones_like(scale)) * error


def smooth(adj: Adjacency, soft: Tensor, target: Tensor, rows: Tensor, alpha: float, steps: int) -> Tensor:
    """Set the training nodes to their labels and spread the predictions (eq. 7), ``[N, C]``."""
    start = soft.clone()
    start[rows] = target
    return _propagate(adj, start, alpha, steps, 0.0)


def _propagate(adj: Adjacency, start: Tensor, alpha: float, steps: int, lowest: float) -> Tensor:
    """``Y <- alpha D^-1/2 A D^-1/2 Y + (1 - alpha) Y_0``, kept within ``[lowest, 1]``, ``[N, C]``."""
    diffuse, y = adj.symmetric(start.dtype), start
    for _ in range(steps):
        y = torch.lerp(start, diffuse.matmul(y), alpha).clamp_(lowest, 1.0)
    return y


class CorrectAndSmooth(MLP):
    """An MLP on text vectors, then two label propagations without parameters (Huang et al., 2010.13993; autoscale).

    Frozen: the encoder. Trained: the MLP alone; it is fitted first, by its own validation accuracy. Validation
    labels are not spread (the authors' code may). Published settings: the authors' MLP (``gen_models.py``: three layers
    of 256, dropout .5, learning rate .01, 300 epochs; without its batch normalisation); both shares, which they search
    between 0 and 1, at five points. They also search over three normalisations of the adjacency; here it is the
    symmetric one.

    Args:
        encoder: gives the features.
        correct_alpha: share of the neighbours in the correction.
        smooth_alpha: share of the neighbours in the smoothing.
        steps: iterations of each.
        network: arguments of :class:`~graphfm.graphllm.classical.network.Network`.
    """

    uses = frozenset({"text", "structure"})
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"smooth_alpha": (0.8, 0.5)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden": (256,),
        "layers": (3,),
        "epochs": (300,),
        "weight_decay": (0.0,),
        "correct_alpha": (0.1, 0.3, 0.5, 0.7, 0.9),
        "smooth_alpha": (0.1, 0.3, 0.5, 0.7, 0.9),
    }

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        correct_alpha: float = 0.8,
        smooth_alpha: float = 0.8,
        steps: int = 50,
        **network: Any,
    ) -> None:
        super().__init__(encoder, **network)
        self.correct_alpha, self.smooth_alpha, self.steps = correct_alpha, smooth_alpha, steps

    def fit(self, data: Data, split: Split) -> CorrectAndSmooth:
        """Train the MLP, then keep the labels of ``split.train`` to spread."""
        super().fit(data, split)
        self._rows = split.train
        self._labels = data.y[split.train]
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Smoothed scores ``[N, C]``."""
        soft, adj = super().predict(data), adjacency(data)
        target = F.one_hot(self._labels, soft.size(1)).to(soft.dtype)
        soft = correct(adj, soft, target, self._rows, self.correct_alpha, self.steps)
        return smooth(adj, soft, target, self._rows, self.smooth_alpha, self.steps)
