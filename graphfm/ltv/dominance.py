"""How much of a box a set of losses dominates: one number for a whole front."""

from __future__ import annotations

import numpy as np

__all__ = ["hypervolume", "is_dominated"]


def is_dominated(losses: np.ndarray) -> np.ndarray:
    """Whether another point is at least as low in every loss, and lower in one; of equal points none is.

    Args:
        losses: ``[N, K]``.

    Returns:
        bool ``[N]``.
    """
    below = (losses[:, None] <= losses[None]).all(axis=2) & (losses[:, None] < losses[None]).any(axis=2)
    return np.asarray(below.any(axis=0))


def hypervolume(losses: np.ndarray, reference: np.ndarray) -> float:
    """The volume that some points dominate, up to a reference point, exactly (all losses are to be low).

    In two dimensions by a sweep; in more by what each point adds to those after it (WFG: While, Bradstreet and Barone,
    IEEE Transactions on Evolutionary Computation 16, 2012, without their tricks): good for some hundred points.

    Args:
        losses: ``[N, K]``; points that are not below the reference in every loss add nothing.
        reference: ``[K]``.

    Raises:
        ValueError: shapes that do not fit, or numbers that are not finite.
    """
    points, corner = np.asarray(losses, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if points.ndim != 2 or corner.shape != points.shape[1:] or not corner.size:
        raise ValueError(f"losses must be [N, K] and reference [K], got {list(points.shape)} and {list(corner.shape)}.")
    if not (np.isfinite(points).all() and np.isfinite(corner).all()):
        raise ValueError("losses and reference must be finite.")
    return _volume(corner - points[(points < corner).all(axis=1)])


def _volume(sides: np.ndarray) -> float:
    """Volume of the union of boxes from 0 to each of ``sides`` ``[N, K]``."""
    if len(sides) == 0:
        return 0.0
    sides = np.unique(sides, axis=0)
    sides = sides[~is_dominated(-sides)]
    if sides.shape[1] == 1:
        return float(sides.max())
    if sides.shape[1] == 2:  # sorted by the first side, the second falls: stairs
        return float(np.diff(sides[:, 0], prepend=0.0) @ sides[:, 1])
    # What is left of a box is smallest where the boxes after it are large.
    sides = sides[np.argsort(sides.prod(axis=1), kind="stable")]
    return sum(float(side.prod()) - _volume(np.minimum(side, sides[place + 1 :])) for place, side in enumerate(sides))
