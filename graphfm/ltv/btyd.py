"""BG/NBD and Gamma-Gamma together: the classical model of customer value, as a baseline."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from graphfm.bundle import refusing
from graphfm.ltv.bgnbd import BGNBD
from graphfm.ltv.forecast import Forecast
from graphfm.ltv.gammagamma import GammaGamma
from graphfm.ltv.kept import load_numbers, save_numbers
from graphfm.ltv.occasions import Occasions, count_occasions
from graphfm.ltv.population import choose
from graphfm.ltv.task import Task, parts

__all__ = ["BTYD"]

_PURCHASES, _AMOUNTS = ("r", "alpha", "a", "b"), ("p", "q", "gamma")


class BTYD:
    """Expected purchases x expected amount, fitted on the past alone: it needs no labels.

    The parameters come from everybody (users, or pairs) who is known at the newest cutoff of the training tasks, not
    from their populations, which are chosen by recency and would bend the rates. The model knows neither returns nor a
    first purchase that counts.
    """

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> BTYD:
        """Fit both parts.

        Raises:
            ValueError: no task, or fewer than two members with a repeat purchase.
        """
        if not tasks:
            raise ValueError("fit needs at least one task.")
        task = max(tasks, key=lambda one: one.population.cutoff)
        everybody = choose(task.past, task.population.cutoff, unit=task.population.unit, who="all")
        known = count_occasions(task.past, everybody)
        self.purchases = BGNBD().fit(known.frequency, known.recency, known.age)
        self.amounts = GammaGamma().fit(known.frequency, known.spend)
        return self

    def predict(self, task: Task) -> Forecast:
        """Predict for a population from its own past."""
        return self._told(count_occasions(task.past, task.population), task.horizons)

    def stream(self, task: Task, rows: int = 65536) -> Iterator[tuple[Task, Forecast]]:
        """:meth:`predict` some members at a time; the log is counted once.

        Yields:
            a part of the task and its forecast.
        """
        known = count_occasions(task.past, task.population)
        for part in parts(len(task.population), rows):
            yield task.part(part), self._told(known.part(part), task.horizons)

    def _told(self, known: Occasions, horizons: tuple[float, ...]) -> Forecast:
        history = (known.frequency, known.recency, known.age)
        each = self.amounts.expected(known.frequency, known.spend)[:, None]
        bought = np.stack([self.purchases.expected(days, *history) for days in horizons], axis=1)
        pay = np.stack([self.purchases.pays(days, *history) for days in horizons], axis=1)
        return Forecast(pay, bought * each)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the seven parameters and both likelihoods."""
        purchases = {name: getattr(self.purchases, name) for name in (*_PURCHASES, "log_likelihood")}
        amounts = {name: getattr(self.amounts, name) for name in (*_AMOUNTS, "log_likelihood")}
        return save_numbers(folder, self, {"purchases": purchases, "amounts": amounts})

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> BTYD:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: a folder that holds something else.
        """
        numbers = load_numbers(folder, cls)
        with refusing(folder, cls.__name__):
            made = cls()
            made.purchases = BGNBD(*(float(numbers["purchases"][name]) for name in _PURCHASES))
            made.amounts = GammaGamma(*(float(numbers["amounts"][name]) for name in _AMOUNTS))
            for part, name in ((made.purchases, "purchases"), (made.amounts, "amounts")):
                part.log_likelihood = float(numbers[name]["log_likelihood"])
        return made
