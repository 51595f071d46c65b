"""The strongest training-free rule: soft centroids and kernel ridge, added."""

from __future__ import annotations

from torch import Tensor

from graphfm.baselines.base import Floor, GraphFeatures
from graphfm.baselines.centroid import SoftCentroid
from graphfm.baselines.ridge import KernelRidge
from graphfm.data.splits import Split

__all__ = ["RidgeAndCentroid"]


class RidgeAndCentroid(Floor):
    """:class:`SoftCentroid` plus :class:`KernelRidge`, each z-scored over the classes of a node."""

    name = "soft centroid + ridge"
    temperature = 1.0

    def scores(self, graph: GraphFeatures, split: Split) -> Tensor:
        """``[N, C]`` sums of z-scores."""
        return _z(SoftCentroid().scores(graph, split)) + _z(KernelRidge().scores(graph, split))


def _z(scores: Tensor) -> Tensor:
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True).clamp(min=1e-12)
