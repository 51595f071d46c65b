"""Ranks of methods over datasets, and which differences between mean ranks are larger than chance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["Ranking", "critical_difference", "rank_methods"]


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Methods compared over datasets (Demsar, JMLR 2006).

    Attributes:
        methods: best mean rank first.
        mean_ranks: of each.
        datasets: on how many datasets, all methods on all of them.
        p_value: Friedman's test that all methods are alike; NaN for fewer than three methods or two datasets.
        difference: Nemenyi's critical difference of mean ranks at 5 %; NaN where there is no test.
        groups: sets of methods, next to one another in rank, that the test cannot tell apart; only maximal ones.
    """

    methods: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    datasets: int
    p_value: float
    difference: float
    groups: tuple[tuple[str, ...], ...]


def critical_difference(methods: int, datasets: int, level: float = 0.05) -> float:
    """Nemenyi's ``q sqrt(k (k + 1) / (6 N))`` with q the studentised range over sqrt 2; NaN below two of either."""
    if methods < 2 or datasets < 2:
        return math.nan
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - level, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * datasets))


def rank_methods(scores: Mapping[str, Mapping[str, float]]) -> Ranking:
    """Rank methods on each dataset (1 is best, ties share the mean) and test the mean ranks.

    Args:
        scores: by method, then by dataset; larger is better. Only datasets that every method has are counted.

    Raises:
        ValueError: no methods, or no dataset that all of them have.
    """
    if not scores:
        raise ValueError("scores is empty; give at least one method.")
    common = set.intersection(*(set(found) for found in scores.values()))
    if not common:
        raise ValueError("scores: no dataset was measured with every method; run them on the same datasets.")
    from scipy.stats import friedmanchisquare, rankdata

    names, places = list(scores), sorted(common)
    table = np.array([[scores[name][place] for place in places] for name in names])
    mean = rankdata(-table, axis=0).mean(axis=1)
    order = np.argsort(mean, kind="stable")
    testable = len(names) >= 3 and len(places) >= 2
    alike = bool((table == table[0]).all())
    p_value = (1.0 if alike else float(friedmanchisquare(*table).pvalue)) if testable else math.nan
    difference = critical_difference(len(names), len(places)) if testable else math.nan
    ranked = [names[i] for i in order]
    groups = _groups(ranked, mean[order], difference)
    return Ranking(tuple(ranked), tuple(mean[order].tolist()), len(places), p_value, difference, groups)


def _groups(names: Sequence[str], ranks: np.ndarray, difference: float) -> tuple[tuple[str, ...], ...]:
    """Maximal runs whose first and last rank differ by no more than the critical difference."""
    if math.isnan(difference):
        return ()
    ends = np.searchsorted(ranks, ranks + difference, side="right")
    found, last = [], 0
    for start, end in enumerate(ends):
        if end > last and end - start > 1:
            found.append(tuple(names[start:end]))
        last = max(last, int(end))
    return tuple(found)
