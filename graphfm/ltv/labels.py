"""What the members of a population pay over each horizon."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from graphfm.data.purchases import DAY, Purchases, show_time
from graphfm.ltv.membership import member_of_events
from graphfm.ltv.population import Population

__all__ = ["Labels", "check_horizons", "future_value"]


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Value over each horizon.

    Attributes:
        value: float64 ``[N, K]``, at least 0.
        horizons: days, rising.
        clipped: ``[K]`` share of members whose returns outweigh what they paid, and whose label became 0 for it.
        count_first: whether the first purchase counts.
    """

    value: np.ndarray
    horizons: tuple[float, ...]
    clipped: np.ndarray
    count_first: bool = False


def check_horizons(horizons: Sequence[float]) -> tuple[float, ...]:
    """Horizons in days, if there are any and they rise.

    Raises:
        ValueError: otherwise.
    """
    days = tuple(horizons)
    if not days or days[0] <= 0 or any(b <= a for a, b in itertools.pairwise(days)) or not np.isfinite(days[-1]):
        raise ValueError(f"horizons must be days above 0, each longer than the one before; got {days}.")
    return days


def future_value(
    log: Purchases,
    population: Population,
    horizons: Sequence[float],
    *,
    since: Literal["cutoff", "first"] = "cutoff",
    count_first: bool = False,
) -> Labels:
    """Sum what each member pays within each horizon.

    Args:
        log: events, also those after the cutoff.
        population: who.
        horizons: days, rising.
        since: a horizon starts at the cutoff, so that all of the label lies in the future; or at the member's first
            purchase (as in 2506.11037: "within t days of registering"), so that part of it is known at the cutoff.
        count_first: whether the first purchase counts: all events of the member at that moment, thus one basket of a
            user. From the cutoff on it lies before every horizon and is added to each.

    Returns:
        sums netted with returns and then clipped at 0.

    Raises:
        ValueError: horizons that do not rise, or that the log ends before: their labels are not mature.
    """
    days = check_horizons(horizons)
    end = population.cutoff + int(days[-1] * DAY)
    if end > log.time[-1]:
        raise ValueError(
            f"the horizon of {days[-1]:g} days from {show_time(population.cutoff)} ends at {show_time(end)}, after the "
            f"log ({show_time(int(log.time[-1]))}): its labels are not mature. Choose an earlier cutoff."
        )
    if since not in ("cutoff", "first"):
        raise ValueError(f"since must be 'cutoff' or 'first', got {since!r}.")
    start = np.full(len(population), population.cutoff) if since == "cutoff" else population.first
    low, high = np.searchsorted(log.time, [int(min(start.min(), population.first.min())), end])
    member = member_of_events(log, population, int(low), int(high))
    event = np.flatnonzero(member >= 0)
    member, time, amount = member[event], log.time[low:high][event], log.amount[low:high][event]
    opening = time == population.first[member]
    later = (time >= start[member]) & ~opening
    value = np.empty((len(population), len(days)))
    for column, horizon in enumerate(days):
        within = later & (time < start[member] + int(horizon * DAY))
        if count_first:
            within |= opening
        value[:, column] = np.bincount(member, weights=np.where(within, amount, 0.0), minlength=len(population))
    return Labels(np.maximum(value, 0.0), days, (value < 0).mean(axis=0), count_first)
