"""What is known at a cutoff about a user, an item or a pair, in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphfm.data.purchase_pairs import first_and_last
from graphfm.data.purchases import DAY, Purchases

__all__ = ["history_features", "history_names", "standardise"]

_ROWS = 4096  # scaled in one go


def history_names(windows: Sequence[int]) -> list[str]:
    """Names of the columns of :func:`history_features`."""
    whole = ["purchases", "spent", "spent_each", "largest", "returned", "recency", "age"]
    return whole + [f"{what}_{days}d" for days in windows for what in ("purchases", "spent")]


def history_features(
    past: Purchases, cutoff: int, group: np.ndarray, groups: int, *, windows: Sequence[int]
) -> np.ndarray:
    """Counts, sums and times of every group's events, on a logarithmic scale.

    Args:
        past: events, all before the cutoff.
        cutoff: in microseconds.
        group: ``[E]`` number of every event's group (user, item or pair); below 0: none.
        groups: their number, G.
        windows: days before the cutoff over which counts and sums are taken as well.

    Returns:
        float64 ``[G, 7 + 2 len(windows)]``, columns as :func:`history_names` says. Amounts are net of returns and go
        through sign(a) log(1 + |a|), counts and days through log(1 + n). A group without a purchase is as old as the
        cutoff (age 0) and was last seen before the log began.

    Raises:
        LeakError: an event lies at or after the cutoff.
    """
    past.check_before(cutoff)
    first, last = first_and_last(past, group, groups)
    group, amount, time = _known(group, past)
    never = first < 0
    first[never], last[never] = cutoff, past.time[0]
    # Columns lie one after the other: what follows goes through each of them once, from end to end.
    found = np.empty((7 + 2 * len(windows), groups)).T
    bought, spent = found[:, 0], found[:, 1]
    bought[:] = np.bincount(group, weights=amount >= 0, minlength=groups)
    spent[:] = np.bincount(group, weights=amount, minlength=groups)
    np.divide(spent, np.maximum(bought, 1), out=found[:, 2])
    found[:, 3] = 0
    np.maximum.at(found[:, 3], group, amount)
    found[:, 4] = np.bincount(group, weights=np.maximum(-amount, 0), minlength=groups)
    np.divide(cutoff - last, DAY, out=found[:, 5])
    np.divide(cutoff - first, DAY, out=found[:, 6])
    for place, days in enumerate(windows, start=3):
        recent = slice(int(np.searchsorted(time, cutoff - days * DAY)), None)  # events are in the order of time
        sold = amount[recent] >= 0
        found[:, 2 * place + 1] = np.bincount(group[recent], weights=sold, minlength=groups)
        found[:, 2 * place + 2] = np.bincount(group[recent], weights=amount[recent], minlength=groups)
    for column in found.T:
        _signed_log(column)
    return found


def _known(group: np.ndarray, past: Purchases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group, amount and time of the events that have a group."""
    known = group >= 0
    if known.all():
        return group.astype(np.intp), past.amount, past.time
    return group[known].astype(np.intp), past.amount[known], past.time[known]


def standardise(features: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1 over the rows; a column that is constant becomes 0.

    Every snapshot is scaled by itself: sums over a growing history drift, and the scale of one month is off in another.
    """
    if not len(features):
        return features.astype(np.float32)
    mean = features.mean(axis=0)
    scale = np.array([_deviation(column, middle) for column, middle in zip(features.T, mean, strict=True)])
    found = np.empty(features.shape, dtype=np.float32)
    for low in range(0, len(found), _ROWS):  # a block that stays in the cache: columns become rows on the way
        found[low : low + _ROWS] = (features[low : low + _ROWS] - mean) / scale
    return found


def _deviation(column: np.ndarray, mean: float) -> float:
    """Standard deviation; infinite where all are alike, so that whatever is divided by it becomes 0."""
    centred = column - mean
    deviation = math.sqrt(float(centred @ centred) / len(centred))
    return deviation if deviation > 1e-12 * max(float(np.abs(column).max()), 1.0) else math.inf


def _signed_log(values: np.ndarray) -> None:
    """sign(a) log(1 + |a|), in place."""
    sign = np.signbit(values)
    np.abs(values, out=values)
    np.log1p(values, out=values)
    np.negative(values, out=values, where=sign)
