"""Label propagation: labels diffuse over edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from graphfm.baselines.base import Floor, GraphFeatures
from graphfm.data.splits import Split
from graphfm.nn import Adjacency

__all__ = ["LabelPropagation", "propagate"]


def propagate(adj: Adjacency, start: Tensor, alpha: float, steps: int) -> Tensor:
    """``Y <- alpha D^-1/2 A D^-1/2 Y + (1 - alpha) Y_0`` (Zhou et al., NIPS 2003), ``[N, C]``."""
    degree = adj.values(start.dtype).new_zeros(adj.num_nodes).index_add_(0, adj.row, adj.values(start.dtype))
    scale = torch.where(degree > 0, degree, torch.ones_like(degree)).rsqrt()
    diffuse = adj.with_weight(adj.values(start.dtype) * scale[adj.row] * scale[adj.col])
    y = start
    for _ in range(steps):
        y = torch.lerp(start, diffuse.matmul(y), alpha)
    return y


class LabelPropagation(Floor):
    """Labels of the training nodes, spread over the edges; features are not used.

    Args:
        alpha: share that comes from the neighbours.
        steps: iterations.
    """

    name = "label propagation"

    def __init__(self, alpha: float = 0.9, steps: int = 50) -> None:
        self.alpha, self.steps = alpha, steps

    def scores(self, graph: GraphFeatures, split: Split) -> Tensor:
        """``[N, C]`` spread label mass, each row summing to at most 1; ties and unreached nodes get no preference."""
        start = torch.zeros(graph.x.size(0), graph.num_classes)
        start[split.train] = F.one_hot(graph.y[split.train], graph.num_classes).float()
        start = start / start.sum(0).clamp(min=1)  # classes with more labels do not start ahead
        spread = propagate(graph.adj, start, self.alpha, self.steps)
        return spread / spread.sum(1, keepdim=True).clamp(min=1e-12)
