"""One forest for each horizon with a Tweedie likelihood: zeros and a heavy tail in one distribution."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

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

__all__ = ["Tweedie"]


class Tweedie:
    """The mean by boosted trees with Tweedie deviance (variance proportional to mean^power, 1 < power < 2).

    A Tweedie value is a Poisson number of Gamma amounts, so P(pay) = 1 - exp(-mean^(2 - power) / (phi (2 - power))).
    The dispersion phi is set for each horizon so that P(pay) is right on the average over the members learnt from.

    Args:
        power: of the variance.
        neighbours: whether trees see the means of neighbours.
        seed: of what each tree sees.
        options: other settings of :class:`graphfm.ltv.boosting.Trees`.
    """

    def __init__(self, *, power: float = 1.5, neighbours: bool = False, seed: int = 0, **options: Any) -> None:
        if not 1 < power < 2:
            raise ValueError(f"power must lie between 1 and 2, got {power}.")
        self.power = power
        self.trees = Trees(neighbours=neighbours, seed=seed, **options)

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> Tweedie:
        """Grow a forest for every horizon; validation tasks say when to stop, and nothing else.

        Raises:
            ValueError: tasks without labels, with other horizons, or a horizon in which nobody pays.
        """
        rows = design(tasks, self.trees)
        held_out = design(val, self.trees) if val else None
        self.names, self.horizons = rows.names, tasks[0].horizons
        self.boosters: Boosters = {}
        dispersion = []
        for k, value in per_horizon(rows.value, self.horizons):
            held = None if held_out is None else (held_out.x, held_out.value[:, k])
            objective = {"objective": "tweedie", "tweedie_variance_power": self.power}
            found = self.boosters[str(k)] = boost(rows.x, value, held, self.trees, **objective)
            dispersion.append(_dispersion(found.predict(rows.x), float((value > 0).mean()), self.power))
        self.dispersion = tuple(dispersion)
        return self

    def predict(self, task: Task) -> Forecast:
        """Mean, and what it says about P(pay)."""
        return predict_in_pieces(task, self.trees, self.names, self.horizons, self._predict)

    def _predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = np.stack([self.boosters[str(k)].predict(x) for k in range(len(self.horizons))], axis=1)
        return _pay(mean, np.array(self.dispersion), self.power), mean

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the trees."""
        fitted = {"names": self.names, "horizons": self.horizons, "power": self.power, "dispersion": self.dispersion}
        return save_boosters(folder, "Tweedie", self.trees, fitted, self.boosters)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Tweedie:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: a folder that holds something else.
        """
        made = cls()
        made.trees, fitted, made.boosters = load_boosters(folder, "Tweedie")
        made.names, made.horizons = tuple(fitted["names"]), tuple(fitted["horizons"])
        made.power, made.dispersion = fitted["power"], tuple(fitted["dispersion"])
        return made


def _pay(mean: np.ndarray, dispersion: np.ndarray, power: float) -> np.ndarray:
    return np.asarray(-np.expm1(-(mean ** (2 - power)) / (dispersion * (2 - power))))


def _dispersion(mean: np.ndarray, share: float, power: float) -> float:
    """The dispersion with which the mean of P(pay) is ``share``."""
    share = min(share, 1 - 1e-6)  # if all pay, nearly all
    scale = float((mean ** (2 - power)).mean()) / (2 - power)

    def excess(log: float) -> float:
        return float(_pay(mean, np.exp(log) * np.array(scale), power).mean()) - share

    # P(pay) falls with phi from 1 to 0, so that the ends are on either side.
    return float(np.exp(brentq(excess, -60.0, 60.0)) * scale)
