"""What the inner products of gradients say: conflicts between losses, harm done by a step, distance to the front."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphfm.pareto.minnorm import min_norm

__all__ = ["Combined", "combined_facts", "stationarity"]

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Combined:
    """What one combination of K gradients did. Where the gradients were not at hand, all but ``weights`` is ``None``.

    Attributes:
        weights: ``[K]`` of the losses.
        conflict_share: share of the pairs of losses whose gradients point apart (negative inner product).
        min_cosine: least cosine between two gradients, those of length 0 left out; 1 where there is no pair.
        norm: length of the combined gradient.
        harmed: number of losses that a small step against the combined gradient raises.
        stationarity: see :func:`stationarity`.
    """

    weights: Tensor
    conflict_share: float | None = None
    min_cosine: float | None = None
    norm: float | None = None
    harmed: int | None = None
    stationarity: float | None = None


def stationarity(gramian: Array) -> float:
    """``|sum_k v_k u_k|^2`` of unit gradients u with the min-norm v: 0 on the Pareto front, 1 where all point alike.

    That is ``|sum_k w_k g_k|^2 / mean_k |g_k|^2`` for gradients of one length. Taken of gradients as they are it would
    be near 0 wherever one is much shorter than the others; whether 0 lies in their hull does not depend on lengths. A
    gradient of length 0 makes it 0: that loss can fall no further.

    Args:
        gramian: ``[K, K]`` inner products in float64.
    """
    length = np.sqrt(gramian.diagonal())
    if length.min() == 0:
        return 0.0
    unit = gramian / np.outer(length, length)
    weights = min_norm(unit)
    return max(float(weights @ unit @ weights), 0.0)


def combined_facts(
    gramian: Array, weights: Tensor, step: tuple[Array, float] | None = None, tolerance: float = 1e-12
) -> Combined:
    """The facts of a combination.

    Args:
        gramian: ``[K, K]`` inner products of the gradients, float64.
        weights: ``[K]``.
        step: inner products ``[K]`` of the combined gradient with the others, and its length, where they do not follow
            from the weights.
        tolerance: a loss counts as harmed from this share of ``|g_k| sum_j |w_j g_j|`` on, below which is rounding.
    """
    length = np.sqrt(gramian.diagonal())
    alive = np.flatnonzero(length)
    cosine = gramian[alive[:, None], alive] / np.outer(length[alive], length[alive])
    apart = cosine[np.triu_indices(len(alive), 1)]
    pairs = len(length) * (len(length) - 1) // 2
    w = weights.detach().to("cpu", torch.float64).numpy()
    if step is None:
        product, size = gramian @ w, np.abs(w) @ length
        norm = float(np.sqrt(max(w @ product, 0.0)))
    else:
        product, norm = step
        size = norm
    return Combined(
        weights=weights.detach(),
        conflict_share=float((apart < 0).sum()) / max(pairs, 1),
        min_cosine=float(apart.min()) if len(apart) else 1.0,
        norm=norm,
        harmed=int((product < -tolerance * length * size).sum()),
        stationarity=stationarity(gramian),
    )
