"""Does the order of methods hold from month to month? ``python benchmarks/ltv_tables.py months``.

The paired bootstrap answers for other customers, not for other months. So for each log and unit: the mean normalised
Gini of boosted trees and of networks at every origin there is a figure of, the two newest before the tests among them.
There, networks are those of ``choose`` with the settings that it chose on these very origins, one of four; trees have
their defaults, with the same seeds, and learn from the same tasks. Written after the test cells had been seen.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from ltv_choice import ORIGINS, SEEDS
from ltv_kept import HERE, SETUPS, load

from graphfm.data.purchases import show_time
from graphfm.ltv import Tweedie, TwoStage, rolling_origins
from graphfm.ltv.evaluate import TASK
from graphfm.ltv.scoring import chosen_by
from graphfm.ltv.task import Task
from graphfm.results import read

NETWORKS = {
    "graph": "GRePO",
    "plain": "GRePO(graph=False)",
    "items": "GRePO(graph=False, item_embedding=True)",
}


def months(name: str, unit: str) -> dict[str, dict[str, float]]:
    """Mean normalised Gini by origin and method; ``payers`` of the longest horizon, ``largest``: the share of one."""
    return {**_before(name, unit), **_tests(name, unit)}


def _paying(task: Task) -> dict[str, float]:
    value = task.labels.value[:, -1]
    return {"payers": float((value > 0).sum()), "largest": float(value.max() / value.sum())}


def _before(name: str, unit: str) -> dict[str, dict[str, float]]:
    log, setup = load(name), SETUPS[unit]
    origins = rolling_origins(log, setup.horizons)
    tasks = [setup.task(log, cutoff) for cutoff in (*origins.train, *origins.val)]
    choice = json.loads((HERE / f"{name}-{unit}" / "choice.json").read_text())
    found = {}
    for turn, place in enumerate(range(len(tasks) - ORIGINS, len(tasks))):
        task = tasks[place]
        told = _paying(task)
        for kind in (TwoStage, Tweedie):
            made = [kind(seed=seed).fit(tasks[: place - 1], tasks[place - 1 : place]) for seed in SEEDS]
            told[kind.__name__] = float(np.mean([chosen_by(one.predict(task), task) for one in made]))
        for family, tried in choice["scores"].items():
            best = max(tried, key=lambda one: np.mean(one["gini"]))["gini"]
            told[NETWORKS[family]] = float(np.mean(best[turn * len(SEEDS) : (turn + 1) * len(SEEDS)]))
        found[show_time(task.population.cutoff)] = told
    return found


def _tests(name: str, unit: str) -> dict[str, dict[str, float]]:
    cells: dict[str, dict[str, list[Any]]] = {}
    path = HERE / f"{name}-{unit}" / "results.jsonl"
    for one in read(path) if path.exists() else []:
        if one.task == TASK and one.method in ("TwoStage", "Tweedie", *NETWORKS.values()):
            cells.setdefault(str(one.settings["origin"]), {}).setdefault(one.method, []).append(one.metrics)
    log, setup = load(name), SETUPS[unit]
    tasks = {show_time(cutoff): setup.task(log, cutoff) for cutoff in rolling_origins(log, setup.horizons).test}
    return {
        f"{origin} (test)": _paying(tasks[origin])
        | {method: float(np.mean([one["gini"] for one in mine])) for method, mine in methods.items()}
        for origin, methods in cells.items()
    }
