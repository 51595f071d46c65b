"""What a preference sweep found: models, their validation losses, and which of them is to be used."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphfm.ltv.dominance import hypervolume, is_dominated
from graphfm.ltv.grepo import GRePO
from graphfm.ltv.report_front import Front, write_front
from graphfm.pareto import LossRange

__all__ = ["ParetoFront", "SweepPoint", "common_scale"]

_MARGIN = 0.1  # of the way from the constant to the lowest loss, further down
_LEAST = 1e-9


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
        single: validation losses of the single-task models, ``K``.
        constant: those of one distribution for all, ``K``.
    """

    points: tuple[SweepPoint, ...]
    horizons: tuple[float, ...]
    single: tuple[float, ...]
    constant: tuple[float, ...]

    @property
    def losses(self) -> np.ndarray:
        """``[R, K]``."""
        return np.array([point.losses for point in self.points])

    @property
    def scale(self) -> LossRange:
        """From below the best run (or single-task model) to the constant; see :func:`common_scale`."""
        return common_scale([self])

    @property
    def normalised(self) -> np.ndarray:
        """``[R, K]``: 0 at the ideal of :attr:`scale`, 1 at its reference."""
        return _normalised(self.losses, self.scale)

    @property
    def on_front(self) -> np.ndarray:
        """Whether no other run is at least as low at every horizon and lower at one: bool ``[R]``."""
        return ~is_dominated(self.losses)

    def hypervolume(self, scale: LossRange | None = None) -> float:
        """Of the normalised losses, up to the reference at (1, ..., 1); 1 would be the ideal.

        Args:
            scale: that of all sweeps that are to be compared, from :func:`common_scale`; its own where not given.
        """
        return hypervolume(_normalised(self.losses, scale or self.scale), np.ones(len(self.horizons)))

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
            "constant": list(self.constant),
            "hypervolume": self.hypervolume(),
            "chosen": self.chosen,
        }

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``front.json`` for the report; returns its path."""
        return write_front(folder, self.drawn())

    def drawn(self) -> Front:
        """What a plot shows: numbers alone, no models."""
        unit = np.array(self.scale.reference) - np.array(self.scale.ideal)
        return Front(self.losses, self.on_front, self.horizons, np.array(self.single), unit, self.chosen)


def common_scale(fronts: Sequence[ParetoFront]) -> LossRange:
    """One scale for several sweeps on the same validation tasks, so that their volumes can be compared.

    The ideal lies below the lowest loss of any run or single-task model; the reference is the constant model or, at a
    horizon where nothing beats it, the worst run.

    Raises:
        ValueError: no front.
    """
    if not fronts:
        raise ValueError("fronts is empty; give at least one.")
    seen = np.concatenate([part for front in fronts for part in (front.losses, [front.single])])
    best, worst = seen.min(axis=0), seen.max(axis=0)
    constant = np.max([front.constant for front in fronts], axis=0)
    reference = np.maximum(np.where(constant > best, constant, worst), best + _LEAST)
    return LossRange(tuple(best - _MARGIN * (reference - best)), tuple(reference))


def _normalised(losses: np.ndarray, scale: LossRange) -> np.ndarray:
    ideal, reference = np.array(scale.ideal), np.array(scale.reference)
    return np.asarray((losses - ideal) / (reference - ideal))
