"""GPPT: a node's class as a link to the token of that class."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.prompts.base import Prompt, checked_count
from graphfm.prompts.graphprompt import ego_mean
from graphfm.prompts.similarity import class_means

__all__ = ["GPPT", "TokenHead"]

# By differences: far from the origin a product of matrices rounds away what tells near centres apart.
_EXACT = "donot_use_mm_for_euclid_dist"


class GPPT(Prompt):
    """Class tokens for every cluster of structure tokens (Sun et al., KDD 2022).

    A node's structure token is the mean of itself and its neighbours. Clusters of these come from k-means over the
    labelled rows, as in the authors' code (the paper partitions the graph by METIS); within a cluster the score of
    class c is ``e_c . z_i``, as in link prediction, and a penalty ``||E E^T - I||^2`` keeps the tokens of the classes
    apart. All that is learned are the tokens, in :meth:`head`; with another head this is a probe of neighbourhood
    means. It is meant for networks pretrained by link prediction, and in a batch of graphs for their nodes.

    Args:
        clusters: number of clusters.
        orthogonal: weight of the penalty.

    Raises:
        ValueError: ``clusters`` below 1, a negative weight.
    """

    more_hops = 1
    meant_for: ClassVar[tuple[str, ...]] = ("LinkPrediction",)

    def __init__(self, clusters: int = 3, *, orthogonal: float = 0.001) -> None:
        super().__init__()
        self.clusters, self.orthogonal = checked_count("clusters", clusters), orthogonal
        if orthogonal < 0:
            raise ValueError(f"orthogonal must not be negative, got {orthogonal}.")

    def readout(self, h: Tensor, data: Data) -> Tensor:
        """Structure tokens ``[N, D]``."""
        return ego_mean(h, data.adj, 1)

    def head(self, num_classes: int) -> TokenHead:
        """The class tokens."""
        if self.sizes is None:
            raise ValueError("bind the prompt first: its tokens are as wide as the network.")
        return TokenHead(self.sizes["out_channels"], num_classes, self.clusters, self.orthogonal)


class TokenHead(nn.Module):
    """Scores by the class tokens of the nearest cluster, see :class:`GPPT`.

    The tokens begin as the class means of the labelled rows. The nearest cluster is that with the least distance; the
    authors' code takes the largest inner product with its centre, by which a long centre wins everything.

    Args:
        in_channels: width D.
        num_classes: C.
        clusters: number of clusters K.
        orthogonal: weight of the penalty.
    """

    centres: Tensor
    seen: Tensor
    started: Tensor

    def __init__(self, in_channels: int, num_classes: int, clusters: int, orthogonal: float) -> None:
        super().__init__()
        self.in_channels, self.num_classes = in_channels, num_classes
        self.clusters, self.orthogonal = clusters, orthogonal
        self.tokens = nn.Parameter(torch.randn(clusters, num_classes, in_channels) / in_channels**0.5)
        self.register_buffer("centres", torch.zeros(clusters, in_channels))
        self.register_buffer("seen", torch.ones(num_classes, dtype=torch.bool))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))  # kept in files: tokens begin once

    def forward(self, z: Tensor) -> Tensor:
        """Scores ``[N, C]`` for ``[N, D]``; minus infinity for classes never seen."""
        nearest = F.one_hot(torch.cdist(z, self.centres, compute_mode=_EXACT).argmin(1), self.clusters).to(z.dtype)
        scores = torch.einsum("nd,kcd,nk->nc", z, self.tokens, nearest)
        return scores.masked_fill(~self.seen, -torch.inf)

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of labelled rows ``[T, D]`` and the penalty; a scalar."""
        eye = torch.eye(self.num_classes, dtype=z.dtype, device=z.device)
        apart = (self.tokens @ self.tokens.transpose(1, 2) - eye).square().sum()
        return F.cross_entropy(self(z), y) + self.orthogonal * apart

    @torch.no_grad()
    def fit(self, z: Tensor, y: Tensor) -> TokenHead:
        """Find the clusters of the labelled rows; the first time, begin the tokens at the class means."""
        means, seen = class_means(z, y, self.num_classes)
        self.centres.copy_(k_means(z, self.clusters))
        self.seen.copy_(seen)
        if not bool(self.started):
            self.tokens.copy_(means.expand_as(self.tokens))
            self.started.fill_(True)
        return self


def k_means(z: Tensor, k: int) -> Tensor:
    """Centres ``[k, D]`` of rows ``[T, D]`` (scikit-learn's, ten starts from seed 0); of fewer rows than k, repeats."""
    from sklearn.cluster import KMeans

    different = torch.unique(z, dim=0)
    if len(different) <= k:
        return different[torch.arange(k, device=z.device) % len(different)]
    found = KMeans(k, n_init=10, random_state=0).fit(z.detach().double().cpu().numpy())
    return torch.from_numpy(found.cluster_centers_).to(z)
