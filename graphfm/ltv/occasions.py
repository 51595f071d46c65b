"""Purchase histories as counts: how often, how recently, since when, and how much each time."""

from __future__ import annotations

import dataclasses

import numpy as np

from graphfm.data.purchases import DAY, Purchases
from graphfm.ltv.membership import member_of_events
from graphfm.ltv.population import Population

__all__ = ["Occasions", "count_occasions"]


@dataclasses.dataclass(frozen=True, eq=False)
class Occasions:
    """Summary of each member's past; the days on which it paid count once, and the first such day is day 0.

    Attributes:
        frequency: ``[N]`` days with a purchase after the first one (x).
        recency: ``[N]`` days from the first to the last of them (t_x); 0 where there is none.
        age: ``[N]`` days from the first to the last one before the cutoff (T).
        spend: ``[N]`` mean paid on the days after the first (m); 0 where there is none.
    """

    frequency: np.ndarray
    recency: np.ndarray
    age: np.ndarray
    spend: np.ndarray

    def part(self, rows: slice) -> Occasions:
        """Those of some members."""
        return Occasions(self.frequency[rows], self.recency[rows], self.age[rows], self.spend[rows])


def count_occasions(past: Purchases, people: Population) -> Occasions:
    """Count the past of a population; returns and free events are no occasions.

    A member that has never paid counts from its first event.
    """
    member = member_of_events(past, people, 0, len(past))
    paid = (member >= 0) & (past.amount > 0)
    # The name of a day is its date, as in the published analyses, not 24 hours since the first purchase.
    day, member, amount = past.time[paid] // DAY, member[paid], past.amount[paid]
    keys, of_event = np.unique(np.stack([member, day]), axis=1, return_inverse=True)
    of_event = of_event.reshape(-1)
    total = np.bincount(of_event, weights=amount, minlength=keys.shape[1])
    who, when = keys
    size = len(people)
    first = people.first // DAY
    opening = np.append(True, who[1:] != who[:-1])[: len(who)]
    first[who[opening]] = when[opening]
    frequency = np.bincount(who[~opening], minlength=size)
    last = first.copy()
    last[who] = when  # days are sorted, and of equal indices the last one assigned stays
    spent = np.bincount(who[~opening], weights=total[~opening], minlength=size)
    # Until the last day that is known in whole or in part: the day before a cutoff at midnight.
    age = (people.cutoff - 1) // DAY - first
    spend = spent / np.maximum(frequency, 1)
    return Occasions(frequency.astype(float), (last - first).astype(float), age.astype(float), spend)
