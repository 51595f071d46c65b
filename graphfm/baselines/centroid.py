"""Nearest class centre on features, on averaged features, and with centres refined by unlabelled nodes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from graphfm.baselines.base import Floor, GraphFeatures, class_means
from graphfm.baselines.propagation import propagate
from graphfm.data.splits import Split

__all__ = ["Centroid", "MultiHopCentroid", "SmoothedCentroid", "SoftCentroid"]


class Centroid(Floor):
    """Nearest class mean on features averaged over ``hops`` steps (SGC, 1902.07153, without training).

    Rows are divided by their L1 norm, averaged with the GCN normalisation, centred, and brought to unit length.

    Args:
        hops: 0 for the raw features.
    """

    def __init__(self, hops: int = 0) -> None:
        if hops < 0:
            raise ValueError(f"hops must not be negative, got {hops}.")
        self.hops = hops
        self.name = f"centroid {hops}-hop" if hops else "centroid raw"

    def scores(self, graph: GraphFeatures, split: Split) -> Tensor:
        """``[N, C]`` negative half squared distances to the class means, less what all classes share."""
        h = graph.smoothed(self.hops)
        means = class_means(h, split, graph.y, graph.num_classes)
        return h @ means.t() - means.square().sum(1) / 2


class SmoothedCentroid(Floor):
    """:class:`Centroid`, then label propagation of its probabilities, the labelled nodes clamped at the start.

    Args:
        hops: averaging steps of the features.
        alpha: share that comes from the neighbours.
        steps: iterations of the propagation.
    """

    def __init__(self, hops: int = 4, alpha: float = 0.9, steps: int = 20) -> None:
        self.hops, self.alpha, self.steps = hops, alpha, steps
        self.name = f"centroid {hops}-hop + propagation"

    def scores(self, graph: GraphFeatures, split: Split) -> Tensor:
        """``[N, C]`` propagated probabilities."""
        start = Centroid(self.hops).fit(graph, split).predict()
        start[split.train] = F.one_hot(graph.y[split.train], graph.num_classes).float()
        return propagate(graph.adj, start, self.alpha, self.steps)


class MultiHopCentroid(Floor):
    """Cosine to the class means of ``[X, A X, A^2 X]`` with ``A = D^-1 A``, each part centred, its rows of unit length.

    Symmetric normalisation with self-loops in place of it costs several points over the nine targets of the benchmark.
    """

    name = "centroid [X, AX, A2X]"

    def scores(self, graph: GraphFeatures, split: Split) -> Tensor:
        """``[N, C]`` cosines."""
        h = torch.cat(graph.levels[:3], dim=1)
        means = class_means(h, split, graph.y, graph.num_classes)
        return F.normalize(h, dim=1) @ F.normalize(means, dim=1).t()


class SoftCentroid(Floor):
    """Class centres in a spectral embedding, refined twice by all nodes according to their soft labels.

    Scores on :attr:`~graphfm.baselines.GraphFeatures.spectral`: cosine to class means; then, ``rounds`` times, centres
    are the sums of all rows weighted by ``softmax(sharpness * scores)``, labelled rows counting ``label_weight`` fold.

    Args:
        rounds: refinements.
        sharpness: inverse temperature of the soft labels.
        label_weight: weight of a labelled node against an unlabelled one.
    """

    name = "soft centroid"

    def __init__(self, rounds: int = 2, sharpness: float = 10.0, label_weight: float = 50.0) -> None:
        self.rounds, self.sharpness, self.label_weight = rounds, sharpness, label_weight

    def scores(self, graph: GraphFeatures, split: Split) -> Tensor:
        """``[N, C]`` cosines to the refined centres."""
        h = graph.spectral
        classes = graph.num_classes
        scores = h @ F.normalize(class_means(h, split, graph.y, classes), dim=1).t()
        seen = torch.bincount(graph.y[split.train], minlength=classes) > 0
        labelled = self.label_weight * F.one_hot(graph.y[split.train], classes).float()
        for _ in range(self.rounds):
            soft = torch.softmax(self.sharpness * scores.masked_fill(~seen, -torch.inf), dim=1)
            soft[split.train] = labelled
            scores = h @ F.normalize(soft.t() @ h, dim=1).t()
        return scores
