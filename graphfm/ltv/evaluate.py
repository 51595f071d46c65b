"""Methods side by side over rolling origins: fit on what was known, predict, wait, score."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphfm.data.purchases import DAY, Purchases, show_time
from graphfm.ltv.audit import audit_leaks
from graphfm.ltv.cohorts import cohorts
from graphfm.ltv.forecast import Forecast
from graphfm.ltv.front import ParetoFront
from graphfm.ltv.maker import Maker, Method
from graphfm.ltv.origins import rolling_origins
from graphfm.ltv.plain import Zero, check_payers
from graphfm.ltv.scoring import chosen_by, score
from graphfm.ltv.setup import Setup
from graphfm.ltv.task import Task
from graphfm.progress import progress_bar
from graphfm.results import Result, append, cell_key, environment, peak_memory, read

__all__ = ["DRIFT", "TASK", "evaluate_ltv", "predictions_of"]

TASK, DRIFT = "lifetime-value", "lifetime-value drift"

_log = logging.getLogger(__name__)


def evaluate_ltv(
    log: Purchases,
    methods: Mapping[str, Maker | Sequence[Maker]],
    setup: Setup,
    *,
    dataset: str = "log",
    seeds: Sequence[int] = (0,),
    out: str | os.PathLike[str] | None = None,
    device: str | None = None,
    audit: bool = False,
    progress: bool = False,
) -> list[Result]:
    """Every method at every test origin, with the predictor of zero beside them.

    For a test origin a method learns from the origins before it, save the last ``setup.val``, which settings are chosen
    by. Origins are at least the longest horizon apart, so all of their labels are known by then.

    Args:
        log: the events.
        methods: by name; of several makers under one name the one with the highest mean normalised Gini on validation
            is taken (its number is the metric ``chosen``), for every origin and seed anew.
        setup: what is asked.
        dataset: the log's name.
        seeds: of methods that take a ``seed``; others are run with the first alone.
        out: folder; cells are appended to ``results.jsonl`` in it as they come, predictions go beside it (and the
            front of a :class:`graphfm.ltv.ParetoSweep`), and cells that are there are not run again.
        device: for methods that take a ``device``.
        audit: change the future and see that no prediction moves, once for each method (:func:`audit_leaks`).
        progress: show a progress bar.

    Returns:
        a :class:`graphfm.results.Result` for each method, origin and seed; metrics as :func:`graphfm.ltv.scoring.score`
        names them, and one of task :data:`DRIFT` for each day of drift.

    Raises:
        ValueError: origins that do not fit into the log, nobody who pays within a horizon before the first test origin,
            no seeds, or several makers under one name without validation.
        LeakError: a method looks into the future.
    """
    _check(methods, setup, seeds)
    origins = rolling_origins(
        log, setup.horizons, test=setup.test, val=setup.val, spacing=setup.spacing, history=setup.history
    )
    cutoffs = (*origins.train, *origins.val, *origins.test)
    tasks = [setup.task(log, cutoff) for cutoff in cutoffs]
    first = len(cutoffs) - setup.test
    check_payers(tasks[: first - setup.val])
    later = _days_after(log, cutoffs[first], setup)
    folder = Path(out) if out is not None else None
    run = _Run(log, setup, dataset, device, folder, _there(folder))
    cells = list(_cells(methods, seeds, range(first, len(tasks))))
    results = []
    with progress_bar(len(cells), f"evaluating on {dataset}", enabled=progress) as advance:
        for name, makers, seed, place in cells:
            seen = tasks[: place - setup.val], tasks[place - setup.val : place]
            days = later if place == first and seed == seeds[0] else []
            results += run.cell(name, makers, seed, seen, [tasks[place], *days], audit and place == first)
            advance(1, name)
    return results


def predictions_of(folder: str | os.PathLike[str], result: Result) -> dict[str, np.ndarray]:
    """The predictions behind a cell: ``user``, ``item`` (of pairs), ``value``, ``pay`` and ``mean``, ``[N, K]`` each.

    Raises:
        FileNotFoundError: the cell was measured without ``out``, or its file is gone.
    """
    path = _path_of(Path(folder), result)
    if not path.exists():
        raise FileNotFoundError(f"there are no predictions at {path}; evaluate with out= to keep them.")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    log: Purchases
    setup: Setup
    dataset: str
    device: str | None
    out: Path | None
    finished: dict[str, Result]

    def cell(
        self,
        name: str,
        makers: Sequence[Maker],
        seed: int,
        seen: tuple[list[Task], list[Task]],
        tests: list[Task],
        audit: bool,
    ) -> list[Result]:
        """One fit, and its score at the origin and on the days of drift after it."""
        blank = [self._blank(name, makers, seed, seen, test, tests[0]) for test in tests]
        there = [self.finished.get(cell_key(one)) for one in blank]
        if all(one is not None and self._has_predictions(one) for one in there):
            return [one for one in there if one is not None]
        began = time.perf_counter()
        method, chosen = _fitted(makers, seed, self.device, *seen)
        fit_seconds = time.perf_counter() - began
        if self.out is not None and isinstance(front := getattr(method, "front", None), ParetoFront):
            self.out.mkdir(parents=True, exist_ok=True)
            front.write(self.out)  # for the report, which shows the newest
        if audit:
            audit_leaks(self.log, tests[0].population.cutoff, lambda log, cutoff: self._forecast(method, log, cutoff))
        results = []
        for cell, test in zip(blank, tests, strict=True):
            began = time.perf_counter()
            forecast = method.predict(test)
            seconds = time.perf_counter() - began
            metrics = score(forecast, test, cohorts(test, [*seen[0], *seen[1]]))
            metrics |= {"chosen": float(chosen), "fit_seconds": fit_seconds, "predict_seconds": seconds}
            memory = peak_memory(self.device)
            done = dataclasses.replace(cell, metrics=metrics, seconds=fit_seconds + seconds, peak_memory=memory)
            self._keep(done, forecast, test)
            results.append(done)
        return results

    def _blank(
        self,
        name: str,
        makers: Sequence[Maker],
        seed: int,
        seen: tuple[list[Task], list[Task]],
        test: Task,
        fitted_for: Task,
    ) -> Result:
        asked = {key: value for key, value in dataclasses.asdict(self.setup).items() if key != "drift"}
        settings = {
            **asked,
            "origin": show_time(test.population.cutoff),
            "train": len(seen[0]),
            "events": len(test.past),
            "arguments": [{key: repr(value) for key, value in one.arguments.items()} for one in makers],
            "device": self.device or "cpu",
        }
        moved = test.population.cutoff - fitted_for.population.cutoff
        if moved:
            settings |= {"fitted_for": show_time(fitted_for.population.cutoff), "day": moved / DAY}
        return Result(DRIFT if moved else TASK, self.dataset, name, seed, {}, settings, 0.0, 0, environment())

    def _forecast(self, method: Method, log: Purchases, cutoff: int) -> Forecast:
        return method.predict(self.setup.task(log, cutoff, labelled=False))

    def _has_predictions(self, result: Result) -> bool:
        return result.task == DRIFT or self.out is None or _path_of(self.out, result).exists()

    def _keep(self, result: Result, forecast: Forecast, test: Task) -> None:
        if self.out is None:
            return
        if result.task == TASK and test.labels is not None:
            people, past = test.population, test.past
            values = {"value": test.labels.value, "pay": forecast.pay, "mean": forecast.mean}
            arrays: dict[str, Any] = {"user": past.users[people.user]}
            arrays |= {key: one.astype(np.float32) for key, one in values.items()}
            if people.item is not None:
                arrays["item"] = past.items[people.item]
            path = _path_of(self.out, result)
            path.parent.mkdir(parents=True, exist_ok=True)
            # Written whole before its line, so that a line in the file always has its predictions.
            part = path.with_suffix(".part.npz")
            np.savez_compressed(part, **arrays)
            os.replace(part, path)
        if cell_key(result) not in self.finished:
            append(self.out / "results.jsonl", result)


def _there(folder: Path | None) -> dict[str, Result]:
    """Cells that a folder holds already, by key."""
    path = folder / "results.jsonl" if folder is not None else None
    return {cell_key(one): one for one in read(path)} if path is not None and path.exists() else {}


def _cells(
    methods: Mapping[str, Maker | Sequence[Maker]], seeds: Sequence[int], places: range
) -> Iterator[tuple[str, tuple[Maker, ...], int, int]]:
    """Name, makers, seed and origin of every cell; zero is always among them."""
    listed = {name: (one,) if isinstance(one, Maker) else tuple(one) for name, one in methods.items()}
    if not any(maker.method is Zero for makers in listed.values() for maker in makers):
        listed = {"Zero": (Maker(Zero),), **listed}
    for place in places:
        for name, makers in listed.items():
            seeded = any("seed" in maker.takes for maker in makers)
            for seed in seeds if seeded else seeds[:1]:
                yield name, makers, seed, place


def _fitted(
    makers: Sequence[Maker], seed: int, device: str | None, train: list[Task], val: list[Task]
) -> tuple[Method, int]:
    """The method that is best on validation, and its number."""
    fitted: list[Method] = []
    reached: list[float] = []
    for maker in makers:
        fitted.append(maker(seed, **({} if device is None else {"device": device})))
        fitted[-1].fit(train, val)
        scores = [chosen_by(fitted[-1].predict(task), task) for task in val] if len(makers) > 1 else []
        reached.append(float(np.mean(scores)) if scores else -np.inf)
    chosen = int(np.argmax(np.where(np.isnan(reached), -np.inf, reached)))
    return fitted[chosen], chosen


def _days_after(log: Purchases, origin: int, setup: Setup) -> list[Task]:
    """Tasks on the days after an origin, as far as their labels are mature."""
    last = int(log.time[-1]) - int(setup.horizons[-1] * DAY)
    days = [origin + day * DAY for day in range(1, setup.drift + 1) if origin + day * DAY <= last]
    if len(days) < setup.drift:
        _log.warning("only %d of %d days after the first test origin have mature labels.", len(days), setup.drift)
    return [setup.task(log, cutoff) for cutoff in days]


def _path_of(folder: Path, result: Result) -> Path:
    digest = hashlib.sha256(cell_key(result).encode()).hexdigest()[:16]
    return folder / "predictions" / f"{digest}.npz"


def _check(methods: Mapping[str, Maker | Sequence[Maker]], setup: Setup, seeds: Sequence[int]) -> None:
    if not seeds:
        raise ValueError("seeds is empty; give at least one.")
    for name, makers in methods.items():
        if not isinstance(makers, Maker) and (not makers or (len(makers) > 1 and not setup.val)):
            raise ValueError(f"method {name!r} has {len(makers)} makers, and val={setup.val} origins to choose by.")
    if setup.drift < 0:
        raise ValueError(f"drift must be at least 0 days, got {setup.drift}.")
