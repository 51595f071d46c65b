"""Forecasts as a table with the log's own names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphfm.ltv.forecast import Forecast
from graphfm.ltv.task import Task

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["as_columns", "as_table"]


def as_columns(forecast: Forecast, task: Task) -> dict[str, np.ndarray]:
    """One row a member and horizon, members in the order of the population.

    Args:
        forecast: of N members and K horizons.
        task: what was predicted.

    Returns:
        ``[N K]`` each: ``user``, ``item`` (where the unit is the pair), ``horizon`` in days, ``pay``, ``mean``, and
        ``q10`` and the like for the quantiles; users and items by the names of the log.

    Raises:
        ValueError: a task with other members or horizons.
    """
    people, count = task.population, len(task.horizons)
    if forecast.mean.shape != (len(people), count):
        raise ValueError(
            f"the forecast is {list(forecast.mean.shape)}, the task has {len(people)} members and {count} horizons; "
            "give the task that was predicted."
        )
    columns = {"user": np.repeat(task.past.users[people.user], count)}
    if people.item is not None:
        columns["item"] = np.repeat(task.past.items[people.item], count)
    columns["horizon"] = np.tile(np.asarray(task.horizons), len(people))
    columns["pay"], columns["mean"] = forecast.pay.reshape(-1), forecast.mean.reshape(-1)
    if forecast.quantiles is not None:
        for place, level in enumerate(forecast.levels):
            columns[f"q{round(100 * level, 6):g}"] = forecast.quantiles[..., place].reshape(-1)
    return columns


def as_table(forecast: Forecast, task: Task) -> DataFrame:
    """:func:`as_columns` as a ``pandas.DataFrame``.

    Raises:
        ImportError: pandas is not installed.
        ValueError: a task with other members or horizons.
    """
    columns = as_columns(forecast, task)
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ImportError("tables need pandas; pip install 'graphfm[ltv]', or use as_columns.") from error
    return DataFrame(columns)
