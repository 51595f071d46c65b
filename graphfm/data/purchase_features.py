"""What is known at a cutoff about a user, an item or a pair, in numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

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
) -> Iterator[np.ndarray]:
    """Counts, sums and times of every group's events, on a logarithmic scale, one column after another.

    A hundred million pairs have one column in memory at a time, not all of them in double precision.

    Args:
        past: events, all before the cutoff.
        cutoff: in microseconds.
        group: ``[E]`` number of every event's group (user, item or pair); below 0: none.
        groups: their number, G.
        windows: days before the cutoff over which counts and sums are taken as well.

    Returns:
        float64 ``[G]``, 7 + 2 len(windows) of them, as :func:`history_names` says. Amounts are net of returns and go
        through sign(a) log(1 + |a|), counts and days through log(1 + n). A group without a purchase is as old as the
        cutoff (age 0) and was last seen before the log began.

    Raises:
        LeakError: an event lies at or after the cutoff.
    """
    past.check_before(cutoff)
    return _columns(past, cutoff, group, groups, windows)


def _columns(
    past: Purchases, cutoff: int, group: np.ndarray, groups: int, windows: Sequence[int]
) -> Iterator[np.ndarray]:
    whole = group, groups
    group, amount, time = _known(group, past)
    yield from map(_signed_log, _sums(group, amount, groups))
    first, last = first_and_last(past, *whole)
    never = first < 0
    first[never], last[never] = cutoff, past.time[0]
    for moment in (last, first):
        yield _signed_log(np.subtract(cutoff, moment, out=moment) / DAY)
    del first, last, moment, never
    for days in windows:
        recent = slice(int(np.searchsorted(time, cutoff - days * DAY)), None)  # events are in the order of time
        for what in (amount[recent] >= 0, amount[recent]):
            yield _signed_log(_sum(group[recent], what, groups))


def _sums(group: np.ndarray, amount: np.ndarray, groups: int) -> Iterator[np.ndarray]:
    """Purchases, what was paid in all, for each, at most, and what came back."""
    bought = _sum(group, amount >= 0, groups)
    yield bought.copy()
    spent = _sum(group, amount, groups)
    yield spent.copy()
    yield np.divide(spent, np.maximum(bought, 1, out=bought), out=spent)
    del bought, spent
    largest = np.zeros(groups)
    np.maximum.at(largest, group, amount)
    yield largest
    yield _sum(group, np.maximum(-amount, 0), groups)


def _sum(group: np.ndarray, what: np.ndarray, groups: int) -> np.ndarray:
    """float64 also where there is nothing to add up, for which numpy has whole numbers."""
    return np.bincount(group, weights=what, minlength=groups).astype(np.float64, copy=False)


def _known(group: np.ndarray, past: Purchases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group, amount and time of the events that have a group."""
    known = group >= 0
    if known.all():
        return group.astype(np.intp), past.amount, past.time
    return group[known].astype(np.intp), past.amount[known], past.time[known]


def standardise(features: np.ndarray | Iterable[np.ndarray]) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1 over the rows; a column that is constant becomes 0.

    Every snapshot is scaled by itself: sums over a growing history drift, and the scale of one month is off in another.

    Args:
        features: ``[N, F]``, or its columns one after another, F arrays ``[N]``.

    Returns:
        float32 ``[N, F]``, row after row.
    """
    columns = [_scaled(column) for column in (features.T if isinstance(features, np.ndarray) else features)]
    found = np.empty((len(columns[0]) if columns else 0, len(columns)), dtype=np.float32)
    for low in range(0, len(found), _ROWS):  # a block that stays in the cache: columns become rows on the way
        for place, column in enumerate(columns):
            found[low : low + _ROWS, place] = column[low : low + _ROWS]
    return found


def _scaled(column: np.ndarray) -> np.ndarray:
    """A column less its mean, over its deviation; in double precision up to the end."""
    mean = column.mean() if len(column) else 0.0
    centred = column - mean
    centred /= _deviation(centred, column)
    return centred.astype(np.float32)


def _deviation(centred: np.ndarray, column: np.ndarray) -> float:
    """Standard deviation; infinite where all are alike, so that whatever is divided by it becomes 0."""
    if not len(column):
        return 1.0
    deviation = math.sqrt(float(centred @ centred) / len(centred))
    return deviation if deviation > 1e-12 * max(float(column.max()), -float(column.min()), 1.0) else math.inf


def _signed_log(values: np.ndarray) -> np.ndarray:
    """sign(a) log(1 + |a|), in place."""
    sign = np.signbit(values)
    np.abs(values, out=values)
    np.log1p(values, out=values)
    np.negative(values, out=values, where=sign)
    return values
