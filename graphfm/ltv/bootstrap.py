"""Is one method better than another, or was it luck with the customers? A paired bootstrap over users."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

__all__ = [
    "Difference",
    "Metric",
    "Sample",
    "Statistic",
    "paired_bootstrap",
    "weighted_auc",
    "weighted_bias",
    "weighted_gini",
    "weighted_nmae",
]

_CELLS = 2_000_000  # weights in one go: bounds memory

Statistic = Callable[[np.ndarray], np.ndarray]  # from weights [B, N] to the metric [B]
Metric = Callable[[np.ndarray, np.ndarray], Statistic]  # from predictions and values [N]


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """What two methods said of the same members, e.g. at one origin.

    Attributes:
        user: ``[N]`` names; the pairs of one user are drawn together, and so are the samples of one user.
        value: ``[N]`` true value, at least 0.
        first: ``[N]`` what the one method predicted.
        second: ``[N]`` what the other predicted.
    """

    user: np.ndarray
    value: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.user, self.value, self.first, self.second)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"user, value, first and second must be alike in length and not empty, got {lengths}.")


@dataclasses.dataclass(frozen=True)
class Difference:
    """First less second.

    Attributes:
        mean: on the sample itself.
        low: lower end of the interval.
        high: upper end.
        above: share of draws in which the first was better (for errors: larger).
        draws: how many had a value at all; one without a payer has none.
    """

    mean: float
    low: float
    high: float
    above: float
    draws: int


def paired_bootstrap(
    samples: Sequence[Sample],
    *,
    metric: Metric | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Draw users with replacement, the same ones for both methods and in all samples, and compare anew.

    The difference is averaged over the samples (origins, seeds). It answers for other customers of the same shop, not
    for other months, nor for other seeds.

    Args:
        samples: at least one.
        metric: :func:`weighted_gini` where it is not given, another one of this module, or one's own.
        draws: how often.
        level: of the percentile interval.
        seed: of the draws.

    Raises:
        ValueError: no sample, or draws and level that make no sense.
    """
    if not samples:
        raise ValueError("samples is empty; give at least one.")
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"draws must be at least 1 and level between 0 and 1, got {draws} and {level}.")
    metric = metric or weighted_gini
    names, of_member = np.unique(np.concatenate([one.user for one in samples]), return_inverse=True)
    ends = np.cumsum([len(one.user) for one in samples])[:-1]
    pairs = [
        (metric(one.first, one.value), metric(one.second, one.value), user)
        for one, user in zip(samples, np.split(of_member, ends), strict=True)
    ]

    def difference(count: np.ndarray) -> np.ndarray:
        parts = [first(weight) - second(weight) for first, second, user in pairs for weight in (count[:, user],)]
        return np.asarray(np.mean(parts, axis=0))

    rng = np.random.default_rng(seed)
    rows = max(1, _CELLS // max(len(names), *(len(user) for *_, user in pairs)))
    found = np.concatenate(
        [difference(_drawn(rng, min(rows, draws - low), len(names))) for low in range(0, draws, rows)]
    )
    found = found[np.isfinite(found)]
    mean = float(difference(np.ones((1, len(names))))[0])
    if not len(found):
        return Difference(mean, np.nan, np.nan, np.nan, 0)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    above = float((found > 0).mean() + 0.5 * (found == 0).mean())
    return Difference(mean, float(low), float(high), above, len(found))


def _drawn(rng: np.random.Generator, draws: int, users: int) -> np.ndarray:
    """How often each user is drawn, ``[draws, users]``."""
    picks = rng.integers(0, users, (draws, users)) + users * np.arange(draws)[:, None]
    return np.bincount(picks.reshape(-1), minlength=draws * users).reshape(draws, users).astype(np.float64)


def _by_level(order: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Sums of ``[B, N]`` over the members with one prediction, the lowest first."""
    place = np.argsort(order, kind="stable")
    level = order[place]
    starts = np.flatnonzero(np.append(True, level[1:] != level[:-1]))
    return lambda values: np.add.reduceat(values[:, place], starts, axis=1)


def _gini(order: np.ndarray, value: np.ndarray) -> Statistic:
    """See :func:`graphfm.ltv.gini.gini`; a member of weight w stands there w times."""
    sums = _by_level(order)

    def statistic(weight: np.ndarray) -> np.ndarray:
        count, paid = sums(weight), sums(weight * value)
        total = count.sum(axis=1)
        # Twice the average rank of a level, less (total + 1).
        centred = 2 * np.cumsum(count, axis=1) - count - total[:, None]
        return np.asarray((paid * centred).sum(axis=1) / (total * paid.sum(axis=1)))

    return statistic


def weighted_gini(predicted: np.ndarray, value: np.ndarray) -> Statistic:
    """:func:`graphfm.ltv.normalised_gini` of members that count several times."""
    ours, best = _gini(predicted, value), _gini(value, value)
    return _quietly(lambda weight: ours(weight) / best(weight))


def weighted_auc(predicted: np.ndarray, value: np.ndarray) -> Statistic:
    """Area under the ROC curve of who pays, ties counted by half."""
    sums, payer = _by_level(predicted), value > 0

    def statistic(weight: np.ndarray) -> np.ndarray:
        paying = sums(weight * payer)
        others = sums(weight) - paying
        won = (paying * (np.cumsum(others, axis=1) - others / 2)).sum(axis=1)
        return np.asarray(won / (paying.sum(axis=1) * others.sum(axis=1)))

    return _quietly(statistic)


def weighted_nmae(predicted: np.ndarray, value: np.ndarray) -> Statistic:
    """Sum of absolute errors over the sum of y."""
    return _quietly(lambda weight: (weight @ np.abs(value - predicted)) / (weight @ value))


def weighted_bias(predicted: np.ndarray, value: np.ndarray) -> Statistic:
    """Sum of p over the sum of y."""
    return _quietly(lambda weight: (weight @ predicted) / (weight @ value))


def _quietly(statistic: Statistic) -> Statistic:
    """Where nobody pays there is no metric: NaN, without a warning for each draw."""

    def quiet(weight: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return statistic(weight)

    return quiet
