"""The front of a preference sweep, kept beside the results for the report."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np

from graphfm.bundle import write_file

__all__ = ["Front", "read_front", "write_front"]


@dataclasses.dataclass(frozen=True, eq=False)
class Front:
    """Runs of a sweep.

    Attributes:
        losses: ``[R, K]`` on validation.
        on_front: ``[R]`` of bool, whether no other run is at least as good everywhere and better somewhere.
        horizons: K days.
        single: ``[K]`` losses of the models that were trained for one horizon each.
        unit: ``[K]`` range of each loss, above 0: what differences are told in.
        chosen: number of the run that is to be used.

    Raises:
        ValueError: shapes that do not fit, or losses that are not finite.
    """

    losses: np.ndarray
    on_front: np.ndarray
    horizons: tuple[float, ...]
    single: np.ndarray
    unit: np.ndarray
    chosen: int

    def __post_init__(self) -> None:
        for name, kind in (("losses", float), ("on_front", bool), ("single", float), ("unit", float)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
        count = (len(self.horizons),)
        if self.losses.ndim != 2 or self.on_front.shape != self.losses.shape[:1] or self.losses.shape[1:] != count:
            raise ValueError(
                f"losses must be [R, K], on_front [R] and horizons K; got {self.losses.shape}, {self.on_front.shape} "
                f"and {len(self.horizons)}."
            )
        if not self.single.shape == self.unit.shape == count or not 0 <= self.chosen < len(self.losses):
            raise ValueError(
                f"single and unit must be [K] and chosen one of {len(self.losses)} runs; got {self.single.shape}, "
                f"{self.unit.shape} and {self.chosen}."
            )
        if not np.isfinite(self.losses).all():
            raise ValueError("losses must be finite; leave runs out that failed.")


def write_front(folder: str | os.PathLike[str], front: Front) -> Path:
    """Write ``front.json``."""
    path = Path(folder) / "front.json"
    content = {name: np.asarray(value).tolist() for name, value in vars(front).items()}
    write_file(path, json.dumps(content).encode())
    return path


def read_front(folder: str | os.PathLike[str]) -> Front | None:
    """What :func:`write_front` wrote; ``None`` where there is nothing.

    Raises:
        ValueError: a file that is something else.
    """
    path = Path(folder) / "front.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Front(**{**content, "horizons": tuple(content["horizons"])})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no front that this graphfm wrote ({error}); remove it.") from error
