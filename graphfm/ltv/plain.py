"""Baselines that look at next to nothing: zero, the mean, and each one's own past."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from graphfm.bundle import refusing
from graphfm.data.purchases import DAY
from graphfm.ltv.forecast import Forecast
from graphfm.ltv.kept import load_numbers, save_numbers
from graphfm.ltv.labels import Labels
from graphfm.ltv.membership import member_of_events
from graphfm.ltv.task import Task, parts

__all__ = ["HistoricMean", "Mean", "Zero", "check_payers", "labels_of"]


def labels_of(tasks: Sequence[Task]) -> list[Labels]:
    """The labels of tasks that are to be learnt from.

    Raises:
        ValueError: no task, tasks with other horizons, or one without labels.
    """
    if not tasks or len({task.horizons for task in tasks}) > 1:
        raise ValueError(f"fit needs tasks with the same horizons, got {[task.horizons for task in tasks]}.")
    labels = [task.labels for task in tasks if task.labels is not None]
    if len(labels) < len(tasks):
        raise ValueError("fit needs tasks with labels; make them with make_task(..., labelled=True).")
    return labels


def check_payers(tasks: Sequence[Task]) -> None:
    """Raise if nobody pays: who learns from nobody cannot tell who will.

    Raises:
        ValueError: a horizon within which no member of any task pays.
    """
    value = np.concatenate([labels.value for labels in labels_of(tasks)])
    for days, payers in zip(tasks[0].horizons, (value > 0).sum(axis=0).tolist(), strict=True):
        if not payers:
            raise ValueError(
                f"nobody among the {len(value)} {tasks[0].population.unit}s of the training origins pays within "
                f"{days:g} days, so there is nothing to learn or to score; take longer horizons, who='all' or more "
                "days."
            )


class Zero:
    """Nobody pays. Its NMAE is 1, its order is none."""

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> Zero:
        """Nothing to learn."""
        return self

    def predict(self, task: Task) -> Forecast:
        """Zeros ``[N, K]``."""
        nothing = np.zeros((len(task.population), len(task.horizons)))
        return Forecast(nothing, nothing.copy())

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write that it is this method."""
        return save_numbers(folder, self, {})

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Zero:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: a folder that holds something else.
        """
        load_numbers(folder, cls)
        return cls()


class Mean:
    """Everybody pays what people paid on the average, and as often: unbiased if nothing drifts, but no order."""

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> Mean:
        """Take the mean over the members of all tasks."""
        value = np.concatenate([labels.value for labels in labels_of(tasks)])
        self.horizons = tasks[0].horizons
        self.mean, self.pay = value.mean(axis=0), (value > 0).mean(axis=0)
        return self

    def predict(self, task: Task) -> Forecast:
        """The same row for each member."""
        _check_horizons(task, self.horizons)
        rows = len(task.population)
        return Forecast(np.tile(self.pay, (rows, 1)), np.tile(self.mean, (rows, 1)))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the means."""
        return save_numbers(folder, self, self.numbers())

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Mean:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: a folder that holds something else.
        """
        numbers = load_numbers(folder, cls)
        with refusing(folder, cls.__name__):
            return cls.from_numbers(numbers)

    def numbers(self) -> dict[str, list[float]]:
        """What was learnt, for JSON."""
        return {"horizons": list(self.horizons), "mean": self.mean.tolist(), "pay": self.pay.tolist()}

    @classmethod
    def from_numbers(cls, numbers: dict[str, list[float]]) -> Mean:
        """The inverse of :meth:`numbers`.

        Raises:
            ValueError: not one number a horizon.
        """
        made = cls()
        made.horizons = tuple(numbers["horizons"])
        made.mean, made.pay = (np.array(numbers[name], dtype=np.float64) for name in ("mean", "pay"))
        if not made.mean.shape == made.pay.shape == (len(made.horizons),):
            raise ValueError(f"mean and pay are not one number for each of {len(made.horizons)} horizons")
        return made


class HistoricMean:
    """Everybody goes on as before: own spend a day since the first purchase, times the days.

    Members with a short past are drawn to the mean of the training labels, as if that had been seen for ``prior_days``:
    value = h (spent + prior_days m_h / h) / (age + prior_days), m_h being the training mean over horizon h. The first
    purchase made the member and counts in neither, unless ``count_first``.

    Args:
        prior_days: see above.
        count_first: whether the first purchase counts; ``None``: as it does in the labels of the fit.
    """

    def __init__(self, *, prior_days: float = 30.0, count_first: bool | None = None) -> None:
        if not prior_days > 0:
            raise ValueError(f"prior_days must be above 0, got {prior_days}.")
        self.prior_days = prior_days
        self.count_first = count_first

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> HistoricMean:
        """Take the training means to draw to.

        Raises:
            ValueError: tasks without labels, with other horizons, or with labels in which the first purchase counts
                for some and not for others.
        """
        self.prior = Mean().fit(tasks)
        counts = {labels.count_first for labels in labels_of(tasks)}
        if self.count_first is None and len(counts) > 1:
            raise ValueError("the first purchase counts in the labels of some tasks alone; make them alike.")
        self.counts_first = counts.pop() if self.count_first is None else self.count_first
        return self

    def predict(self, task: Task) -> Forecast:
        """Own rates; the probability to pay is 1 - exp(-rate of purchases x h), drawn likewise."""
        return self._told(task, *self._counted(task))

    def stream(self, task: Task, rows: int = 65536) -> Iterator[tuple[Task, Forecast]]:
        """:meth:`predict` some members at a time; the log is counted once.

        Yields:
            a part of the task and its forecast.
        """
        spent, bought = self._counted(task)
        for part in parts(len(task.population), rows):
            piece = task.part(part)
            yield piece, self._told(piece, spent[part], bought[part])

    def _counted(self, task: Task) -> tuple[np.ndarray, np.ndarray]:
        """What each member has spent, at least 0, and how often it has paid: ``[N]`` twice."""
        people, past = task.population, task.past
        member = member_of_events(past, people, 0, len(past))
        counted = (member >= 0) & (self.counts_first | (past.time != people.first[member]))
        member, amount = member[counted], past.amount[counted]
        spent = np.maximum(np.bincount(member, weights=amount, minlength=len(people)), 0)
        return spent, np.bincount(member, weights=amount > 0, minlength=len(people))

    def _told(self, task: Task, spent: np.ndarray, bought: np.ndarray) -> Forecast:
        prior, people = self.prior.predict(task), task.population
        horizons = np.array(task.horizons)
        age = ((people.cutoff - people.first) / DAY)[:, None]
        weight = horizons / (age + self.prior_days)
        mean = weight * (spent[:, None] + self.prior_days * prior.mean / horizons)
        expected = -np.log1p(-np.minimum(prior.pay, 1 - 1e-12))
        pay = -np.expm1(-weight * (bought[:, None] + self.prior_days * expected / horizons))
        return Forecast(pay, mean)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the arguments and the training means."""
        arguments = {"prior_days": self.prior_days, "count_first": self.counts_first}
        return save_numbers(folder, self, {**arguments, "prior": self.prior.numbers()})

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> HistoricMean:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: a folder that holds something else.
        """
        numbers = load_numbers(folder, cls)
        with refusing(folder, cls.__name__):
            made = cls(prior_days=numbers["prior_days"], count_first=numbers["count_first"])
            made.prior, made.counts_first = Mean.from_numbers(numbers["prior"]), bool(numbers["count_first"])
        return made


def _check_horizons(task: Task, fitted: tuple[float, ...]) -> None:
    if task.horizons != fitted:
        raise ValueError(f"the method was fitted for horizons {fitted}, the task asks for {task.horizons}.")
