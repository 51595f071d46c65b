"""What all training-free rules share: the graph's features, made once, and the estimator's two calls."""

from __future__ import annotations

import abc
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.utils import remove_self_loops

from graphfm.data.checks import check_graph, check_labels
from graphfm.data.features import raw_features
from graphfm.data.splits import Split
from graphfm.joined import undirected
from graphfm.nn import Adjacency

__all__ = ["Floor", "GraphFeatures", "class_means"]


class GraphFeatures:
    """Features and their neighbourhood averages, computed once a graph and shared by rules and splits.

    The graph is taken as undirected, without self-loops. Give it in place of the graph to :meth:`Floor.fit` when many
    splits are fitted.

    Args:
        data: the graph, with labels.
    """

    def __init__(self, data: Data) -> None:
        check_graph(data, "data", features=False)
        self.y = check_labels(data.y)
        self.num_classes = int(self.y.max()) + 1
        self.x = raw_features(data).float()
        edge_index, weight = undirected(data)
        self.adj = Adjacency.from_edges(*_no_loops(edge_index, int(data.num_nodes), weight))
        self._smoothed: dict[int, Tensor] = {}

    @cached_property
    def unit(self) -> Tensor:
        """``[N, F]`` rows of x divided by their L1 norm."""
        return F.normalize(self.x, p=1.0, dim=1)

    @cached_property
    def mean_hops(self) -> list[Tensor]:
        """``[X, A X, A^2 X]`` with ``A = D^-1 A``."""
        once = self.adj.mean().matmul(self.x)
        return [self.x, once, self.adj.mean().matmul(once)]

    @cached_property
    def levels(self) -> list[Tensor]:
        """L1-normalised features averaged 0, 1, 2 and 4 times with ``D^-1 A``, each centred, rows of unit length."""
        levels, h = [self.unit], self.unit
        for hop in range(1, 5):
            h = self.adj.mean().matmul(h)
            if hop in (1, 2, 4):
                levels.append(h)
        return [F.normalize(level - level.mean(0), dim=1) for level in levels]

    def smoothed(self, hops: int) -> Tensor:
        """L1-normalised features averaged ``hops`` times with the GCN normalisation, centred, rows of unit length."""
        if hops not in self._smoothed:
            h = self.unit
            for _ in range(hops):
                h = self.adj.gcn().matmul(h)
            self._smoothed[hops] = F.normalize(h - h.mean(0), dim=1)
        return self._smoothed[hops]

    @cached_property
    def spectral(self) -> Tensor:
        """``[N, 128]`` truncated SVD of :attr:`levels` side by side, rows of unit length."""
        from sklearn.utils.extmath import randomized_svd

        whole = torch.cat(self.levels, dim=1)
        u, s, _ = randomized_svd(whole.numpy(), min(128, *whole.shape), n_iter=4, random_state=0)
        return F.normalize(torch.from_numpy(u * s), dim=1)


def _no_loops(edge_index: Tensor, num_nodes: int, weight: Tensor | None) -> tuple[Tensor, int, Tensor | None]:
    edge_index, weight = remove_self_loops(edge_index, weight)
    return edge_index, num_nodes, weight


def class_means(h: Tensor, split: Split, y: Tensor, num_classes: int) -> Tensor:
    """``[C, D]`` mean row of each class over the training nodes; zero for a class without any."""
    member = F.one_hot(y[split.train], num_classes).to(h.dtype)
    return member.t() @ h[split.train] / member.sum(0).clamp(min=1).unsqueeze(1)


class Floor(abc.ABC):
    """A training-free rule as an estimator.

    Attributes:
        name: short name in tables.
    """

    name: str

    def fit(self, data: Data | GraphFeatures, split: Split) -> Floor:
        """Compute class scores of all nodes from the labels of ``split.train``.

        Raises:
            ValueError: a bad graph or split.
        """
        graph = data if isinstance(data, GraphFeatures) else GraphFeatures(data)
        split.check(graph.x.size(0))
        scores = self.scores(graph, split)
        seen = torch.bincount(graph.y[split.train], minlength=graph.num_classes) > 0
        self._scores = scores.masked_fill(~seen, -torch.inf)
        return self

    def predict(self) -> Tensor:
        """Class probabilities ``[N, C]``; they rank and choose as the scores do, and are not calibrated.

        Raises:
            RuntimeError: not fitted yet.
        """
        if not hasattr(self, "_scores"):
            raise RuntimeError(f"{type(self).__name__} is not fitted; call fit(data, split) first.")
        return torch.softmax(self._scores / self.temperature, dim=1)

    temperature: float = 0.1

    @abc.abstractmethod
    def scores(self, graph: GraphFeatures, split: Split) -> Tensor:
        """``[N, C]`` scores, larger for the likelier class."""
