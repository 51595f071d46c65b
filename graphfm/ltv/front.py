"""What a preference sweep found: models, their validation losses, and which of them is to be used."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from graphfm.ltv.dominance import hypervolume, is_dominated
from graphfm.ltv.grepo import GRePO
from graphfm.ltv.report_front import write_front
from graphfm.pareto import LossRange

__all__ = ["ParetoFront", "SweepPoint"]


@dataclasses.dataclass(frozen=True, eq=False)
class SweepPoint:
    """One run of a sweep.

    Attributes:
        preference: what it was trained for, ``K`` shares.
        losses: on validation, ``K``.
        model: fitted.
    """

    preference: tuple[float, ...]
    losses: tuple[float, ...]
    model: GRePO


@dataclasses.dataclass(frozen=True, eq=False)
class ParetoFront:
    """All runs of a sweep. Everything here is about validation losses; no test label had a part in it.

    Attributes:
        points: the runs, in the order in which they were made.
        horizons: K days.
        scale: of validation losses: ideal below those of the single-task models, reference those of a constant.
        single: validation losses of the single-task models, ``K``.
    """

    points: tuple[SweepPoint, ...]
    horizons: tuple[float, ...]
    scale: LossRange
    single: tuple[float, ...]

    @property
    def losses(self) -> np.ndarray:
        """``[R, K]``."""
        return np.array([point.losses for point in self.points])

    @property
    def normalised(self) -> np.ndarray:
        """``[R, K]``: 0 at the ideal, 1 at the constant."""
        ideal, reference = np.array(self.scale.ideal), np.array(self.scale.reference)
        return np.asarray((self.losses - ideal) / (reference - ideal))

    @property
    def on_front(self) -> np.ndarray:
        """Whether no other run is at least as low at every horizon and lower at one: bool ``[R]``."""
        return ~is_dominated(self.losses)

    @property
    def hypervolume(self) -> float:
        """Of the normalised losses, up to the constant model at (1, ..., 1); 1 would be the ideal."""
        return hypervolume(self.normalised, np.ones(len(self.horizons)))

    @property
    def unharmed(self) -> np.ndarray:
        """Whether a run is at no horizon worse than the model that was trained for it alone: bool ``[R]``."""
        return np.asarray((self.losses <= np.array(self.single)).all(axis=1))

    @property
    def chosen(self) -> int:
        """The run with the lowest mean normalised loss, which lies on the front."""
        return int(self.normalised.mean(axis=1).argmin())

    @property
    def best(self) -> GRePO:
        """The model of the chosen run."""
        return self.points[self.chosen].model

    def facts(self) -> dict[str, Any]:
        """What there is to tell, for JSON."""
        return {
            "horizons": list(self.horizons),
            "preferences": [list(point.preference) for point in self.points],
            "losses": self.losses.tolist(),
            "on_front": self.on_front.tolist(),
            "unharmed": self.unharmed.tolist(),
            "single": list(self.single),
            "ideal": list(self.scale.ideal),
            "reference": list(self.scale.reference),
            "hypervolume": self.hypervolume,
            "chosen": self.chosen,
        }

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``front.json`` for the report; returns its path."""
        return write_front(folder, self.losses, self.on_front, self.horizons)
