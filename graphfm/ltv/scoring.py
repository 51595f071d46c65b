"""All scores of a forecast: every horizon, the whole population and its parts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphfm.ltv.forecast import Forecast
from graphfm.ltv.gini import normalised_gini
from graphfm.ltv.metrics import ltv_scores, monotonicity_violations
from graphfm.ltv.task import Task

__all__ = ["chosen_by", "score"]

_OF_PARTS = ("gini", "auc", "payers", "bias", "nmae")


def score(forecast: Forecast, task: Task, parts: Mapping[str, np.ndarray] | None = None) -> dict[str, float]:
    """Scores by name.

    Args:
        forecast: of the task.
        task: with labels.
        parts: masks ``[N]`` of parts that are scored as well.

    Returns:
        - ``gini@7`` and the like, as :func:`graphfm.ltv.ltv_scores` has them, for every horizon;
        - for parts ``gini@7|cold users``, likewise AUC, share of payers, bias and NMAE; ``members|cold users``, their
          number;
        - ``covered90@7``: the share whose value lies at or below the 90 % quantile, for methods that have them;
        - ``violations`` and ``violations_pay``, see :func:`graphfm.ltv.monotonicity_violations`;
        - ``gini``: see :func:`chosen_by`.

    Raises:
        ValueError: a task without labels, or a forecast of something else.
    """
    if task.labels is None:
        raise ValueError("scores need a task with labels.")
    value = task.labels.value
    if forecast.mean.shape != value.shape:
        raise ValueError(f"the forecast is {list(forecast.mean.shape)}, the labels are {list(value.shape)}.")
    everybody = np.ones(len(value), dtype=bool)
    found: dict[str, float] = {}
    for name, mask in {"": everybody, **(parts or {})}.items():
        ending = f"|{name}" if name else ""
        found[f"members{ending}"] = float(mask.sum())
        for k, days in enumerate(task.horizons):
            scores = ltv_scores(forecast.mean[mask, k], value[mask, k], forecast.pay[mask, k])
            kept = scores if not name else {metric: scores[metric] for metric in _OF_PARTS}
            found |= {f"{metric}@{days:g}{ending}": one for metric, one in kept.items()}
    found |= _coverage(forecast, value, task.horizons)
    found["violations"] = monotonicity_violations(forecast.mean)
    found["violations_pay"] = monotonicity_violations(forecast.pay)
    found["gini"] = chosen_by(forecast, task)
    return found


def chosen_by(forecast: Forecast, task: Task) -> float:
    """What settings are chosen by on validation: normalised Gini, the mean over horizons in which somebody pays."""
    if task.labels is None:
        raise ValueError("scores need a task with labels.")
    each = [normalised_gini(forecast.mean[:, k], task.labels.value[:, k]) for k in range(len(task.horizons))]
    defined = [one for one in each if np.isfinite(one)]
    return float(np.mean(defined)) if defined else float("nan")


def _coverage(forecast: Forecast, value: np.ndarray, horizons: tuple[float, ...]) -> dict[str, float]:
    if forecast.quantiles is None:
        return {}
    return {
        f"covered{100 * level:g}@{days:g}": float((value[:, k] <= forecast.quantiles[:, k, q]).mean())
        for k, days in enumerate(horizons)
        for q, level in enumerate(forecast.levels)
    }
