"""What a method says about a population."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from graphfm.ltv.task import Task

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Forecast"]


@dataclasses.dataclass(frozen=True, eq=False)
class Forecast:
    """Predictions for each member and horizon.

    Attributes:
        pay: ``[N, K]`` probability to pay anything.
        mean: ``[N, K]`` expected value.
        quantiles: ``[N, K, Q]`` value that a share of such members stays at or below; ``None`` from a method that has
            no distribution.
        levels: the Q shares, rising, in (0, 1).

    Raises:
        ValueError: shapes that do not fit, or levels that do not rise within (0, 1).
    """

    pay: np.ndarray
    mean: np.ndarray
    quantiles: np.ndarray | None = None
    levels: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.pay.shape != self.mean.shape or self.mean.ndim != 2:
            raise ValueError(f"pay and mean must both be [N, K], got {self.pay.shape} and {self.mean.shape}.")
        levels = tuple(float(level) for level in self.levels)
        object.__setattr__(self, "levels", levels)
        if any(not low < high for low, high in zip((0.0, *levels), (*levels, 1.0), strict=True)):
            raise ValueError(f"levels must rise and lie between 0 and 1, got {levels}.")
        wanted = (*self.mean.shape, len(levels)) if levels else None
        if wanted != (None if self.quantiles is None else self.quantiles.shape):
            got = None if self.quantiles is None else self.quantiles.shape
            raise ValueError(f"with {len(levels)} levels quantiles must be {wanted}, got {got}.")

    def __len__(self) -> int:
        return len(self.mean)

    def table(self, task: Task) -> DataFrame:
        """One row a member and horizon, members in the order of the population.

        Args:
            task: what was predicted.

        Returns:
            see :func:`graphfm.ltv.table.as_columns`.

        Raises:
            ImportError: pandas is not installed.
            ValueError: a task with other members or horizons.
        """
        from graphfm.ltv.table import as_table  # which knows this class

        return as_table(self, task)
