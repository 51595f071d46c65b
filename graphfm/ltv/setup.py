"""What an evaluation, or a model that is kept, asks of a log."""

from __future__ import annotations

import dataclasses
from typing import Literal

from graphfm.data.purchases import Purchases
from graphfm.ltv.population import Unit, Who
from graphfm.ltv.task import Task, make_task

__all__ = ["Setup"]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is asked, of whom, and when.

    Attributes:
        horizons: days, rising.
        unit: pairs of user and item, or users.
        who: see :func:`graphfm.ltv.choose`.
        days: likewise.
        since: see :func:`graphfm.ltv.labels.future_value`.
        count_first: likewise.
        test: origins that are scored; each method is fitted anew for every one.
        val: origins just before it that settings are chosen by.
        spacing: days between origins, see :func:`graphfm.ltv.rolling_origins`.
        history: likewise.
        drift: days after the first test origin on which the methods fitted for it are scored again.
    """

    horizons: tuple[float, ...] = (3, 7, 14, 30)
    unit: Unit = "pair"
    who: Who = "new"
    days: float = 7
    since: Literal["cutoff", "first"] = "cutoff"
    count_first: bool = False
    test: int = 3
    val: int = 1
    spacing: float | None = None
    history: float | None = None
    drift: int = 0

    def task(self, log: Purchases, cutoff: int, *, labelled: bool = True) -> Task:
        """The task at one cutoff."""
        return make_task(
            log,
            cutoff,
            self.horizons,
            unit=self.unit,
            who=self.who,
            days=self.days,
            since=self.since,
            count_first=self.count_first,
            labelled=labelled,
        )
