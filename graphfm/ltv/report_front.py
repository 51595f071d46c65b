"""The front of a preference sweep, kept beside the results for the report."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["Front", "read_front", "write_front"]


@dataclasses.dataclass(frozen=True, eq=False)
class Front:
    """Runs of a sweep.

    Attributes:
        losses: ``[R, K]`` on validation.
        on_front: ``[R]`` of bool, whether no other run is at least as good everywhere and better somewhere.
        horizons: K days.
    """

    losses: np.ndarray
    on_front: np.ndarray
    horizons: tuple[float, ...]


def write_front(
    folder: str | os.PathLike[str], losses: np.ndarray, on_front: np.ndarray, horizons: Sequence[float]
) -> Path:
    """Write ``front.json``.

    Raises:
        ValueError: shapes that do not fit, or losses that are not finite.
    """
    losses, on_front = np.asarray(losses, dtype=float), np.asarray(on_front, dtype=bool)
    if losses.ndim != 2 or on_front.shape != losses.shape[:1] or losses.shape[1] != len(horizons):
        raise ValueError(
            f"losses must be [R, K], on_front [R] and horizons K; got {losses.shape}, {on_front.shape} and "
            f"{len(horizons)}."
        )
    if not np.isfinite(losses).all():
        raise ValueError("losses must be finite; leave runs out that failed.")
    path = Path(folder) / "front.json"
    content = {"losses": losses.tolist(), "on_front": on_front.tolist(), "horizons": list(horizons)}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def read_front(folder: str | os.PathLike[str]) -> Front | None:
    """What :func:`write_front` wrote; ``None`` where there is nothing."""
    path = Path(folder) / "front.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        losses, on_front = np.array(content["losses"], dtype=float), np.array(content["on_front"], dtype=bool)
        return Front(losses, on_front, tuple(content["horizons"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no front that graphfm wrote ({error}); remove it.") from error
