"""Bring the features of every domain to one width and one scale."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.data.checks import check_graph
from graphfm.nn import Adjacency

__all__ = ["Projection", "Unifier", "structural_features"]

_log = logging.getLogger(__name__)
_DEGREE_BINS = 16
_HOPS = 4
_DENSE_SIDE = 256  # up to this side a dense SVD is faster than a Krylov method and never fails


def structural_features(data: Data) -> Tensor:
    """Features from the graph alone, for graphs that come without: ``[N, 64]``.

    Nodes are put into 16 bins by ``log2(1 + degree)``; the one-hot bins are then averaged over neighbours 0 to 3
    times, so a row tells the degrees around a node. Nodes that arrive later get theirs the same way.
    """
    nodes = int(data.num_nodes or 0)
    edges = torch.cat([data.edge_index, data.edge_index.flip(0)], dim=1)
    adj = Adjacency.from_edges(torch.unique(edges, dim=1), nodes)
    bins = torch.log2(1.0 + adj.rowptr.diff().float()).floor().long().clamp_(max=_DEGREE_BINS - 1)
    level = torch.nn.functional.one_hot(bins, _DEGREE_BINS).float()
    levels = [level]
    for _ in range(_HOPS - 1):
        level = adj.mean().matmul(level)
        levels.append(level)
    return torch.cat(levels, dim=1)


@dataclasses.dataclass(frozen=True, eq=False)  # tensors have no single answer to ==
class Projection:
    """How one domain enters: ``x -> scale * x @ basis``, padded with zeros to ``dim``.

    Attributes:
        basis: ``[F, k]`` right singular vectors, k <= dim; ``None`` where F <= dim and the features are kept.
        scale: factor that gives the fitted rows a root-mean-square norm of 1.
        width: F, the feature width it was fitted on.
        dim: width that it gives.
    """

    basis: Tensor | None
    scale: float
    width: int
    dim: int

    def __call__(self, x: Tensor) -> Tensor:
        """``[N, F] -> [N, dim]`` in float32.

        Raises:
            ValueError: another feature width than the one fitted on.
        """
        if x.size(1) != self.width:
            raise ValueError(
                f"data.x has {x.size(1)} features, this model was fitted on {self.width}; "
                "bring the same features in the same order, or adapt the model to the new graph."
            )
        x = x.to_dense() if x.layout != torch.strided else x
        if self.basis is not None:
            x = x.to(self.basis.dtype) @ self.basis.to(x.device)
        x = x.float() * self.scale
        return torch.nn.functional.pad(x, (0, self.dim - x.size(1)))


class Unifier:
    """Any feature width to ``dim``: a truncated SVD a domain, at one scale.

    Wider features are projected on their leading right singular vectors (so a node that comes later is projected the
    same way); narrower ones are padded with zeros. Signs are fixed: the entry of largest magnitude of each singular
    vector is positive. Each domain is scaled so that its rows have a root-mean-square norm of 1; without that the
    published pipeline (GCOPE, 2402.09834) lets domains in at norms that differ 40-fold. Graphs without features get
    :func:`structural_features`.

    A graph that was not among the sources gets a projection of its own, fitted on its features (no labels), by
    :meth:`projection`.

    Args:
        dim: common width d.
        rescale: bring each domain to unit root-mean-square row norm.
    """

    def __init__(self, dim: int = 100, *, rescale: bool = True) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}.")
        self.dim = dim
        self.rescale = rescale
        self.names: list[str] = []
        self.projections: list[Projection] = []

    def fit(self, graphs: Sequence[Data]) -> Unifier:
        """Fit one projection a graph; the graphs are left as they are."""
        self.names = [str(g.get("name", f"graph{i}")) for i, g in enumerate(graphs)]
        self.projections = [self._fit_one(g, f"graphs[{i}]") for i, g in enumerate(graphs)]
        return self

    def transform(self, data: Data) -> Tensor:
        """Unified features ``[N, dim]`` of a source (known by its name) or of a graph never seen."""
        return self.projection(data)(raw_features(data))

    def projection(self, data: Data) -> Projection:
        """The projection of ``data``: that of the source of the same name and width, else a new one."""
        check_graph(data, "data", features=False)
        name, width = data.get("name"), raw_features(data).size(1)
        for known, projection in zip(self.names, self.projections, strict=True):
            if name is not None and known == str(name) and projection.width == width:
                return projection
        return self._fit_one(data, "data")

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint keeps: JSON settings and named tensors."""
        settings = {
            "dim": self.dim,
            "rescale": self.rescale,
            "domains": [
                {"name": n, "scale": p.scale, "width": p.width, "projected": p.basis is not None}
                for n, p in zip(self.names, self.projections, strict=True)
            ],
        }
        tensors = {f"basis.{i}": p.basis for i, p in enumerate(self.projections) if p.basis is not None}
        return settings, tensors

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Unifier:
        """The inverse of :meth:`state`.

        Raises:
            ValueError: a basis that is missing or has another shape than the settings say.
        """
        unifier = cls(int(settings["dim"]), rescale=bool(settings["rescale"]))
        for i, domain in enumerate(settings["domains"]):
            basis = tensors.get(f"basis.{i}") if domain["projected"] else None
            width = int(domain["width"])
            if domain["projected"] and (basis is None or basis.size(0) != width or basis.size(1) > unifier.dim):
                raise ValueError(f"unifier: the basis of domain {domain['name']!r} is missing or has a wrong shape.")
            unifier.names.append(str(domain["name"]))
            unifier.projections.append(Projection(basis, float(domain["scale"]), width, unifier.dim))
        return unifier

    def _fit_one(self, data: Data, name: str) -> Projection:
        check_graph(data, name, features=False)
        x = raw_features(data)
        basis = leading_directions(x, self.dim) if x.size(1) > self.dim else None
        rows = Projection(basis, 1.0, x.size(1), self.dim)(x)
        norm = float(rows.double().square().sum(1).mean().sqrt())
        return Projection(basis, 1.0 / norm if self.rescale and norm > 0 else 1.0, x.size(1), self.dim)


def raw_features(data: Data) -> Tensor:
    """``data.x`` as floats, or structural features where there is none."""
    if data.x is None or data.x.size(1) == 0:
        _log.info("graph %s has no features: using structural ones", data.get("name", ""))
        return structural_features(data)
    return data.x if data.x.is_floating_point() else data.x.float()


def leading_directions(x: Tensor, k: int) -> Tensor:
    """The k leading right singular vectors of ``x`` ``[N, F]`` as ``[F, k']``, signs fixed, k' <= min(N, k).

    A Krylov method on the sparse matrix (ARPACK through SciPy) for all but small inputs. Directions whose singular
    value is numerically zero are left out: they are arbitrary.
    """
    dense = x.detach().cpu().to_dense() if x.layout != torch.strided else x.detach().cpu()
    array = dense.numpy() if dense.dtype in (torch.float32, torch.float64) else dense.float().numpy()
    size = min(array.shape)
    if size <= max(_DENSE_SIDE, k + 1):
        values, vectors = np.linalg.svd(array, full_matrices=False)[1:]
    else:
        values, vectors = _krylov_svd(array, k)
    values, vectors = values[:k], vectors[:k]
    cutoff = values.max(initial=0.0) * max(array.shape) * np.finfo(array.dtype).eps
    vectors = vectors[values > cutoff]
    top = np.abs(vectors).argmax(1)
    sign = np.sign(vectors[np.arange(len(vectors)), top])
    return torch.from_numpy(np.ascontiguousarray((vectors * sign[:, None]).T))


def _krylov_svd(array: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    sparse = np.count_nonzero(array) < 0.25 * array.size
    start = np.random.default_rng(0).standard_normal(min(array.shape)).astype(array.dtype)
    matrix = sp.csr_array(array) if sparse else array
    try:
        _, values, vectors = sp.linalg.svds(matrix, k, v0=start, return_singular_vectors="vh")
    except sp.linalg.ArpackError:  # breaks down where far fewer than k directions exist
        from sklearn.utils.extmath import randomized_svd

        _, values, vectors = randomized_svd(matrix, k, n_iter=8, random_state=0)
        return values, vectors
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[order]
