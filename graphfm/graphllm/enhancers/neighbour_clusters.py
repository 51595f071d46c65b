"""GIANT's task: nodes clustered by the words around them, level by level; in which clusters a node has neighbours."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from graphfm.nn import Adjacency

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Level", "cluster_tree", "neighbour_words", "shortlisted_hinge", "touched"]


@dataclasses.dataclass(frozen=True)
class Level:
    """A level of the tree.

    Attributes:
        cluster: ``[N]`` of each node.
        parent: ``[K]`` the cluster of the level above that each cluster is a part of; 0 on the first level.
    """

    cluster: Tensor
    parent: Tensor


def neighbour_words(texts: Sequence[str], adj: Adjacency) -> csr_matrix:
    """``z_i = v_i / |v_i|``, ``v_i = sum_j A_ij x_j`` with TF-IDF rows x (GIANT, 2111.00064, section 3: PIFA), sparse.

    Args:
        texts: one a node.
        adj: undirected, without self-loops.

    Returns:
        ``[N, words]``; a row of zeros for a node without neighbours that have words.

    Raises:
        ValueError: no text holds a word.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    try:
        x = TfidfVectorizer(sublinear_tf=True, stop_words="english", max_features=20_000).fit_transform(texts)
    except ValueError as error:
        raise ValueError(f"texts hold no word to cluster nodes by ({len(texts)} texts given).") from error
    source, target = adj.edge_index.cpu().numpy()
    a = csr_matrix((np.ones(source.size), (target, source)), shape=(len(texts), len(texts)))
    return normalize(a @ x)


def cluster_tree(z: csr_matrix, branches: Sequence[int], seed: int) -> list[Level]:
    """k-means of the rows of ``z`` ``[N, words]``, then of those in each cluster, and so on.

    Args:
        z: what is clustered.
        branches: into how many parts, level by level; a cluster with fewer nodes has as many parts as nodes.
        seed: of k-means.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    cluster, levels = np.zeros(z.shape[0], dtype=np.int64), []
    for branch in branches:
        parents: list[int] = []
        deeper = np.empty_like(cluster)
        for parent in range(int(cluster.max()) + 1):
            rows = np.flatnonzero(cluster == parent)
            # Sums are split by thread: one gives the same bits everywhere. Equal rows may give fewer parts.
            with threadpool_limits(1), warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                part = KMeans(min(branch, rows.size), n_init=1, random_state=seed).fit_predict(z[rows])
            found, part = np.unique(part, return_inverse=True)
            deeper[rows] = len(parents) + part
            parents += [parent] * found.size
        cluster = deeper
        levels.append(Level(torch.from_numpy(cluster.copy()), torch.tensor(parents)))
    return levels


def touched(adj: Adjacency, level: Level) -> Tensor:
    """``Y = 1[A C > 0]``, ``[N, K]`` bool: which clusters have neighbours of a node in them."""
    member = F.one_hot(level.cluster, level.parent.numel()).float().to(adj.device)
    return adj.with_weight(None).matmul(member) > 0


def shortlisted_hinge(scores: Tensor, target: Tensor, shortlist: Tensor) -> Tensor:
    """``mean_i mean_{c in M_i} max(0, 1 - y_ic s_ic)^2`` with y = 1 or -1 (XR-Transformer's squared hinge).

    Args:
        scores: ``[B, K]``.
        target: ``[B, K]`` bool.
        shortlist: ``[B, K]`` bool, M: the clusters that are asked for; a node for which none is counts 0.
    """
    sign = target.to(scores.dtype) * 2 - 1
    each = (1 - sign * scores).clamp(min=0).square() * shortlist
    return (each.sum(1) / shortlist.sum(1).clamp(min=1)).mean()
