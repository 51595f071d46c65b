"""Gradient-boosted trees on tabular features. The only file that knows LightGBM (extra ``ltv``)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphfm.bundle import CheckpointError, read_bundle, refusing, write_bundle
from graphfm.ltv.forecast import Forecast
from graphfm.ltv.plain import labels_of
from graphfm.ltv.tabular import tabular
from graphfm.ltv.task import Task

__all__ = ["Boosters", "Trees", "boost", "design", "load_boosters", "predict_in_pieces", "save_boosters"]

_ENOUGH = 20  # rows of a validation set below which it stops nothing: its score is noise

Boosters = dict[str, Any]  # name to lightgbm.Booster; a horizon's models begin with its number


@dataclasses.dataclass(frozen=True)
class Trees:
    """How trees are grown; small and slow by default, since payers are few.

    Attributes:
        neighbours: whether they see the means of neighbours, see :func:`graphfm.ltv.tabular.tabular`.
        rounds: trees at most; without anything to stop by no more than 3 / rate.
        patience: rounds without a better validation score after which growing stops.
        rate: step size.
        leaves: leaves a tree.
        least: members a leaf at least.
        seed: of the members and columns that each tree sees (80 % each).
    """

    neighbours: bool = False
    rounds: int = 2000
    patience: int = 100
    rate: float = 0.01
    leaves: int = 7
    least: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.patience < 1 or self.leaves < 2 or self.least < 1 or not self.rate > 0:
            raise ValueError(f"rounds, patience, least and rate must be above 0 and leaves at least 2; got {self}.")


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """Members of several tasks: features ``[N, F]``, values ``[N, K]`` and the names of the columns."""

    x: np.ndarray
    value: np.ndarray
    names: tuple[str, ...]


def design(tasks: Sequence[Task], trees: Trees) -> Design:
    """Features and labels of tasks, one below the other."""
    value = np.concatenate([labels.value for labels in labels_of(tasks)])
    tables = [tabular(task, neighbours=trees.neighbours) for task in tasks]
    return Design(np.concatenate([table.rows() for table in tables]), value, tables[0].names)


def boost(
    x: np.ndarray, y: np.ndarray, val: tuple[np.ndarray, np.ndarray] | None, trees: Trees, **objective: Any
) -> Any:
    """Grow trees, and stop by the validation set where it has enough rows.

    Args:
        x: ``[N, F]``.
        y: ``[N]``.
        val: the same of the validation set; ``None``: there is none.
        trees: how.
        objective: parameters of LightGBM that say what is minimised, and so what validation looks at.

    Returns:
        the ``lightgbm.Booster``; it predicts with its best round.

    Raises:
        ImportError: LightGBM is not installed.
    """
    lightgbm = _lightgbm()
    settings = {
        **objective,
        "learning_rate": trees.rate,
        "num_leaves": trees.leaves,
        "min_data_in_leaf": trees.least,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "feature_fraction": 0.8,
        "seed": trees.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": torch.get_num_threads(),
        "verbosity": -1,
    }
    rows = lightgbm.Dataset(x, y, params={"verbosity": -1}, free_raw_data=True)
    if val is None or len(val[1]) < _ENOUGH:
        return lightgbm.train(settings, rows, num_boost_round=min(trees.rounds, round(3 / trees.rate)))
    held_out = lightgbm.Dataset(*val, reference=rows)
    stop = lightgbm.early_stopping(trees.patience, verbose=False)
    return lightgbm.train(settings, rows, num_boost_round=trees.rounds, valid_sets=[held_out], callbacks=[stop])


def predict_in_pieces(
    task: Task,
    trees: Trees,
    names: tuple[str, ...],
    horizons: tuple[float, ...],
    predict: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> Forecast:
    """Forecast a task with bounded memory.

    Args:
        task: of any population.
        trees: how the features were made.
        names: of the columns that were there at the fit.
        horizons: of the fit.
        predict: from features ``[n, F]`` to P(pay) and mean, ``[n, K]`` each.

    Raises:
        ValueError: other horizons, or other columns: a log with items where there were none, or the other way round.
    """
    if task.horizons != horizons:
        raise ValueError(f"the method was fitted for horizons {horizons}, the task asks for {task.horizons}.")
    table = tabular(task, neighbours=trees.neighbours)
    if table.names != names:
        missing, new = sorted(set(names) - set(table.names)), sorted(set(table.names) - set(names))
        raise ValueError(
            f"the task's columns are not those of the fit: {len(missing)} are missing {missing[:3]}, {len(new)} are "
            f"new {new[:3]}. Predict for the unit and the kind of log that the method was fitted on."
        )
    pay, mean = zip(*(predict(piece) for piece in table.pieces()), strict=True)
    return Forecast(np.concatenate(pay), np.concatenate(mean))


def save_boosters(
    folder: str | os.PathLike[str], kind: str, trees: Trees, fitted: dict[str, Any], boosters: Boosters
) -> Path:
    """Write settings as JSON and the trees as text, each with its digest; see :mod:`graphfm.bundle`."""
    texts = {name: booster.model_to_string(num_iteration=booster.best_iteration) for name, booster in boosters.items()}
    tensors = {name: torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy()) for name, text in texts.items()}
    return write_bundle(folder, "boosting", {"kind": kind, "trees": dataclasses.asdict(trees), **fitted}, tensors)


def load_boosters(folder: str | os.PathLike[str], kind: str) -> tuple[Trees, dict[str, Any], Boosters]:
    """What :func:`save_boosters` wrote.

    Raises:
        CheckpointError: a folder that holds something else.
    """
    settings, tensors = read_bundle(folder, "boosting")
    if settings.get("kind") != kind:
        raise CheckpointError(f"{folder} holds a {settings.get('kind')}, no {kind}.")
    lightgbm = _lightgbm()
    with refusing(folder, kind):
        trees = Trees(**settings["trees"])
        texts = {name: bytes(tensor.numpy()).decode() for name, tensor in tensors.items()}
        boosters = {name: lightgbm.Booster(model_str=text) for name, text in texts.items()}
    return trees, settings, boosters


def per_horizon(value: np.ndarray, horizons: Sequence[float]) -> Iterator[tuple[int, np.ndarray]]:
    """Number and values ``[N]`` of every horizon.

    Raises:
        ValueError: nobody pays in one of them.
    """
    for number, days in enumerate(horizons):
        if not (value[:, number] > 0).any():
            raise ValueError(
                f"nobody among {len(value)} members pays within {days:g} days, so there is nothing to learn; take "
                "longer horizons, more origins or a wider population."
            )
        yield number, value[:, number]


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise ImportError("Boosted trees need the extra 'ltv' (LightGBM): pip install 'graphfm[ltv]'.") from error
    return lightgbm
