"""The shortest vector in the convex hull of some gradients, exactly, from their inner products."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["bounded_min_norm", "min_norm"]

Array = NDArray[np.float64]
_ROUNDING = 16 * float(np.finfo(np.float64).eps)


def min_norm(gramian: Array) -> Array:
    """``argmin_w |sum_k w_k g_k|^2`` with w >= 0 and sum w = 1 (MGDA: Désidéri 2012; 1810.04650, eq. 3).

    Wolfe's method (Mathematical Programming 11, 1976): the points that carry the minimum are kept affinely independent,
    and their equations are solved directly, so it ends after finitely many steps at the solution, not near it.

    Args:
        gramian: ``[K, K]`` inner products ``g_i . g_j`` in float64.

    Returns:
        ``[K]`` weights on the simplex. The vector d they give obeys ``d . g_k >= |d|^2`` up to rounding: a step
        against it raises no loss, to first order.
    """
    length = np.sqrt(gramian.diagonal())
    weights = np.zeros(len(length))
    shortest = int(length.argmin())
    weights[shortest] = 1.0
    value = float(length[shortest]) ** 2
    rounding = _ROUNDING * len(length) * length
    while True:
        product = gramian @ weights
        # What is lacking at each point, in units of what rounding can do there.
        lacking = product - value + rounding * (weights @ length)
        entering = int(lacking.argmin())
        if lacking[entering] >= 0 or weights[entering] > 0:
            return weights
        moved = _minimise(gramian, weights, entering)
        lower = float(moved @ gramian @ moved)
        if not lower < value:
            return weights
        weights, value = moved, lower


def _minimise(gramian: Array, weights: Array, entering: int) -> Array:
    """Go to the shortest vector of the affine hull, dropping points on the way for as long as it lies outside."""
    carrying = weights.nonzero()[0]
    support = np.concatenate((carrying, [entering]))
    inside = np.concatenate((weights[carrying], [0.0]))
    while True:
        target = _shortest_of_affine_hull(gramian[support[:, None], support])
        if target.min() >= 0:
            break
        falling = np.flatnonzero(target < 0)
        ratio = inside[falling] / (inside[falling] - target[falling])
        inside = inside + ratio.min() * (target - inside)
        inside[falling[np.argmin(ratio)]] = 0.0
        support, inside = support[inside > 0], inside[inside > 0]
    moved = np.zeros(len(weights))
    moved[support] = target / target.sum()
    return moved


def _shortest_of_affine_hull(gramian: Array) -> Array:
    """``argmin_v v^T G v`` with sum v = 1: ``G v + m 1 = 0``, in units of the largest entry."""
    size = len(gramian)
    equations = np.empty((size + 1, size + 1))
    equations[size], equations[:, size] = 1.0, 1.0
    equations[:size, :size] = gramian / gramian.diagonal().max()
    equations[size, size] = 0.0
    right = np.zeros(size + 1)
    right[size] = 1.0
    try:
        found = np.linalg.solve(equations, right)
    except np.linalg.LinAlgError:  # points that rounding has made dependent
        found = np.full(size + 1, np.nan)
    if not np.isfinite(found).all():
        found = np.linalg.lstsq(equations, right)[0]
    return np.asarray(found[:size], np.float64)


def bounded_min_norm(gramian: Array, lower: Array) -> Array:
    """:func:`min_norm` with ``w_k >= c_k`` (PE-LTR: Lin et al., RecSys 2019), also exactly.

    With ``w = c + (1 - sum c) v`` the problem is that of the points ``(1 - sum c) g_k + sum_j c_j g_j`` and v on the
    simplex. (PE-LTR's own code relaxes the sum and projects, which is not exact.)

    Args:
        gramian: ``[K, K]`` inner products in float64.
        lower: ``[K]`` bounds c >= 0 with sum c <= 1.

    Returns:
        ``[K]`` weights on the simplex. Unlike those of :func:`min_norm` they may raise a loss.
    """
    free = 1.0 - lower.sum()
    if free <= 0:
        return lower / lower.sum()
    points = free * np.eye(len(lower)) + lower[None, :]
    shifted = points @ gramian @ points.T
    return lower + free * min_norm((shifted + shifted.T) / 2)
