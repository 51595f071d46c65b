"""Two stages of boosted trees: whether a member pays, and how much if so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphfm.ltv.boosting import (
    Boosters,
    Trees,
    boost,
    design,
    load_boosters,
    per_horizon,
    predict_in_pieces,
    save_boosters,
)
from graphfm.ltv.forecast import Forecast
from graphfm.ltv.task import Task

__all__ = ["TwoStage"]


class TwoStage:
    """P(pay) by a classifier, times the amount of those who pay by a Gamma regression with a logarithmic link.

    The Gamma likelihood tells the mean itself; a regression of log amounts would tell the median, and a mean only with
    a correction that a heavy tail spoils.

    Args:
        neighbours: whether trees see the means of neighbours.
        seed: of what each tree sees.
        options: other settings of :class:`graphfm.ltv.boosting.Trees`.
    """

    def __init__(self, *, neighbours: bool = False, seed: int = 0, **options: Any) -> None:
        self.trees = Trees(neighbours=neighbours, seed=seed, **options)

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> TwoStage:
        """Grow both forests for every horizon; validation tasks say when to stop, and nothing else.

        Raises:
            ValueError: tasks without labels, with other horizons, or a horizon in which nobody pays.
        """
        rows = design(tasks, self.trees)
        held_out = design(val, self.trees) if val else None
        self.names, self.horizons = rows.names, tasks[0].horizons
        self.boosters: Boosters = {}
        for k, value in per_horizon(rows.value, self.horizons):
            paid = value > 0
            held = None if held_out is None else (held_out.x, held_out.value[:, k])
            payers = None if held is None else (held[0][held[1] > 0], held[1][held[1] > 0])
            pays = None if held is None else (held[0], held[1] > 0)
            self.boosters[f"{k}.pay"] = boost(rows.x, paid, pays, self.trees, objective="binary")
            self.boosters[f"{k}.amount"] = boost(rows.x[paid], value[paid], payers, self.trees, objective="gamma")
        return self

    def predict(self, task: Task) -> Forecast:
        """Both stages for each member."""
        return predict_in_pieces(task, self.trees, self.names, self.horizons, self._predict)

    def _predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = range(len(self.horizons))
        pay = np.stack([self.boosters[f"{k}.pay"].predict(x) for k in count], axis=1)
        amount = np.stack([self.boosters[f"{k}.amount"].predict(x) for k in count], axis=1)
        return pay, pay * amount

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the trees."""
        fitted = {"names": self.names, "horizons": self.horizons}
        return save_boosters(folder, "TwoStage", self.trees, fitted, self.boosters)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> TwoStage:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: a folder that holds something else.
        """
        made = cls()
        made.trees, fitted, made.boosters = load_boosters(folder, "TwoStage")
        made.names, made.horizons = tuple(fitted["names"]), tuple(fitted["horizons"])
        return made
