"""Results of an evaluation as a table: each method's means over origins and seeds, and its distance to the leader."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphfm.ltv.bootstrap import Difference, Sample, paired_bootstrap
from graphfm.ltv.evaluate import TASK, predictions_of
from graphfm.results import Result, read

__all__ = ["Board", "Row", "leaderboards"]

_PER_RUN = ("origin", "train", "events", "arguments", "device")  # settings that may differ within a board


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One method.

    Attributes:
        method: its name.
        cells: its results, by origin and seed.
        metrics: means over the cells in which they are defined.
        seconds: mean of a fit and its predictions.
        behind: leader less this method in normalised Gini, the mean over horizons, origins and seeds, with an interval
            over users; ``None`` for the leader, or without predictions.
    """

    method: str
    cells: tuple[Result, ...]
    metrics: dict[str, float]
    seconds: float
    behind: Difference | None

    def at(self, metric: str, days: float, part: str = "") -> float:
        """A metric at a horizon, of a part of the population if one is named; NaN if there is none."""
        return self.metrics.get(f"{metric}@{days:g}{f'|{part}' if part else ''}", math.nan)


@dataclasses.dataclass(frozen=True, eq=False)
class Board:
    """Methods that answered the same questions.

    Attributes:
        title: log, unit and population.
        horizons: days, rising.
        rows: the best first.
        folder: where the predictions are.
    """

    title: str
    horizons: tuple[float, ...]
    rows: tuple[Row, ...]
    folder: Path


def leaderboards(folder: str | os.PathLike[str], *, draws: int = 0) -> list[Board]:
    """Boards of a folder that :func:`graphfm.ltv.evaluate_ltv` wrote, one for each setup.

    Args:
        folder: with ``results.jsonl``.
        draws: of the bootstrap; 0 for none.

    Raises:
        FileNotFoundError: there are no results.
        ValueError: the file holds nothing about lifetime value.
    """
    folder = Path(folder)
    boards: dict[str, list[Result]] = {}
    for one in read(folder / "results.jsonl"):
        if one.task == TASK:
            boards.setdefault(_question(one), []).append(one)
    if not boards:
        raise ValueError(f"{folder} holds no results about lifetime value; graphfm ltv evaluate --out {folder}.")
    return [_board(cells, folder, draws) for cells in boards.values()]


def _question(one: Result) -> str:
    asked = {name: value for name, value in one.settings.items() if name not in _PER_RUN}
    return json.dumps([one.dataset, asked], sort_keys=True)


def _board(cells: Sequence[Result], folder: Path, draws: int) -> Board:
    first = cells[0]
    methods: dict[str, list[Result]] = {}
    for one in cells:
        methods.setdefault(one.method, []).append(one)
    rows = [_row(name, mine) for name, mine in methods.items()]
    rows.sort(key=lambda row: -row.metrics["gini"] if math.isfinite(row.metrics["gini"]) else math.inf)
    if draws:
        rows = [rows[0], *(dataclasses.replace(row, behind=_behind(rows[0], row, folder, draws)) for row in rows[1:])]
    asked = first.settings
    within = "" if asked["who"] == "all" else f" of the last {asked['days']:g} days"
    title = f"{first.dataset}, {asked['who']} {asked['unit']}s{within}"
    return Board(title, tuple(asked["horizons"]), tuple(rows), folder)


def _row(method: str, cells: Sequence[Result]) -> Row:
    names = dict.fromkeys(name for one in cells for name in one.metrics)
    metrics = {}
    for name in names:
        values = [value for one in cells if math.isfinite(value := one.metrics.get(name, math.nan))]
        metrics[name] = math.fsum(values) / len(values) if values else math.nan
    return Row(method, tuple(cells), metrics, math.fsum(one.seconds for one in cells) / len(cells), None)


def _behind(leader: Row, row: Row, folder: Path, draws: int) -> Difference | None:
    """Over the origins and seeds that both have; a method without seeds stands beside every seed of the other."""
    try:
        theirs = {(one.settings["origin"], one.seed): predictions_of(folder, one) for one in row.cells}
        ours = {(one.settings["origin"], one.seed): predictions_of(folder, one) for one in leader.cells}
    except FileNotFoundError:
        return None
    samples = []
    for origin, seed in dict.fromkeys([*ours, *theirs]):
        first = ours.get((origin, seed)) or _only(ours, origin)
        second = theirs.get((origin, seed)) or _only(theirs, origin)
        if first is None or second is None:
            continue
        for k in range(first["value"].shape[1]):
            if (first["value"][:, k] > 0).any():
                columns = (first["value"][:, k], first["mean"][:, k], second["mean"][:, k])
                samples.append(Sample(first["user"], *(column.astype(np.float64) for column in columns)))
    return paired_bootstrap(samples, draws=draws) if samples else None


def _only(found: dict[tuple[str, int], dict[str, np.ndarray]], origin: str) -> dict[str, np.ndarray] | None:
    """The predictions of a method that was run with one seed."""
    mine = [one for (other, _), one in found.items() if other == origin]
    return mine[0] if len(mine) == 1 else None
