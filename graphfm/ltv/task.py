"""One origin made ready: what is known, who is asked about, and (where it has come) the answer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from torch_geometric.data import HeteroData

from graphfm.data.purchase_snapshot import snapshot
from graphfm.data.purchases import Purchases, show_time
from graphfm.ltv.labels import Labels, check_horizons, future_value
from graphfm.ltv.population import Population, Unit, Who, choose

__all__ = ["Task", "make_task", "parts"]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What a method may see at an origin, and the labels beside it.

    Attributes:
        past: the events before the cutoff, and no others.
        population: whose value is asked for.
        horizons: days, rising.
        labels: their value; ``None`` where the future is not known.
        graph: the snapshot of the past at the cutoff, where it is not the usual one: with other windows or neighbours,
            read from a file, rewired. Methods read :attr:`snapshot`.

    Raises:
        ValueError: a graph of another cutoff.
    """

    past: Purchases
    population: Population
    horizons: tuple[float, ...]
    labels: Labels | None
    graph: HeteroData | None = None

    def __post_init__(self) -> None:
        if self.graph is not None and self.graph.cutoff != self.population.cutoff:
            raise ValueError(
                f"graph is of {show_time(self.graph.cutoff)}, the population of {show_time(self.population.cutoff)}; "
                "make both for one cutoff."
            )

    @functools.cached_property
    def snapshot(self) -> HeteroData:
        """``graph``, or the snapshot of :func:`graphfm.data.purchase_snapshot.snapshot`; made once, when asked for."""
        return snapshot(self.past, self.population.cutoff) if self.graph is None else self.graph

    def part(self, rows: slice | np.ndarray) -> Task:
        """Some of the members, with the same past and the same snapshot.

        Args:
            rows: their places in the population, rising.
        """
        people, labels = self.population, self.labels
        some = dataclasses.replace(
            people,
            user=people.user[rows],
            item=None if people.item is None else people.item[rows],
            first=people.first[rows],
            row=people.row[rows],
        )
        if labels is not None:
            labels = dataclasses.replace(labels, value=labels.value[rows])
        # A snapshot that is made already is not made again.
        graph = self.__dict__.get("snapshot", self.graph)
        return dataclasses.replace(self, population=some, labels=labels, graph=graph)


def make_task(
    log: Purchases,
    cutoff: Any,
    horizons: Sequence[float],
    *,
    unit: Unit,
    who: Who = "new",
    days: float = 7,
    since: Literal["cutoff", "first"] = "cutoff",
    count_first: bool = False,
    labelled: bool = True,
) -> Task:
    """Cut a log, choose a population by its past, and label it by its future.

    Args:
        log: the events.
        cutoff: see :func:`graphfm.data.purchases.as_time`.
        horizons: days, rising.
        unit: see :func:`graphfm.ltv.population.choose`.
        who: likewise.
        days: likewise.
        since: see :func:`graphfm.ltv.labels.future_value`.
        count_first: likewise.
        labelled: whether to make labels; without, nothing after the cutoff is looked at.

    Raises:
        ValueError: a cutoff outside the log, nobody in the population, or labels that are not mature.
    """
    moment = log.check_cutoff(cutoff)
    past = log.before(moment)
    population = choose(past, moment, unit=unit, who=who, days=days)
    wanted = check_horizons(horizons)
    labels = future_value(log, population, wanted, since=since, count_first=count_first) if labelled else None
    return Task(past, population, wanted, labels)


def parts(members: int, rows: int) -> Iterator[slice]:
    """``rows`` members at a time, in order; at least one part, even of nobody."""
    for low in range(0, max(members, 1), rows):
        yield slice(low, low + rows)
