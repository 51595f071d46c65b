"""Settings of a method, chosen on validation nodes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.data.splits import Split
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.texts import without_labels

__all__ = ["GRIDS", "choose", "points"]

GRIDS = ("one", "small", "published")


def points(method: type[Supervised], grid: str) -> list[dict[str, Any]]:
    """All combinations of a method's grid, its defaults first.

    Args:
        method: the method.
        grid: ``"one"`` (the first value of each setting), ``"small"`` or ``"published"``.

    Raises:
        ValueError: another grid.
    """
    if grid not in GRIDS:
        raise ValueError(f"grid must be one of {', '.join(GRIDS)}, got {grid!r}.")
    values: Mapping[str, Sequence[Any]] = method.published if grid == "published" else method.grid
    found = [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]
    return found[:1] if grid == "one" else found


def choose(
    make: Callable[[dict[str, Any]], Supervised], settings: Sequence[dict[str, Any]], data: Data, split: Split
) -> tuple[Supervised, dict[str, Any], Tensor]:
    """Fit one method a setting and keep the one with the highest accuracy on ``split.val``, of equals the first.

    Without validation nodes the first setting is taken: there is nothing to choose by.

    Args:
        make: gives an unfitted method.
        settings: what to try.
        data: the graph with the labels of training and validation nodes alone.
        split: the parts.

    Returns:
        The fitted method, its setting and its scores ``[N, C]``. Its ``usage``, if it has one, is of all settings.
    """
    target = without_labels(data, torch.cat([split.val, split.test]))
    best: tuple[Supervised, dict[str, Any], Tensor] | None = None
    highest, spent, before = -1.0, None, None
    for setting in settings if split.val.numel() else settings[:1]:
        method = make(setting)
        if before is not None:
            method.go_on_from(before)
        before = method.fit(data, split)
        scores = method.predict(target)
        usage = getattr(method, "usage", None)
        spent = usage if spent is None else spent if usage is None else spent + usage
        right = _validation(scores, data.y, split.val)
        if best is None or right > highest:
            best, highest = (method, setting, scores), right
    if best is None:
        raise ValueError("settings is empty; give at least one, {} for the defaults.")
    if spent is not None:
        best[0].usage = spent  # type: ignore[attr-defined]
    return best


def _validation(scores: Tensor, y: Tensor, nodes: Tensor) -> float:
    """Accuracy on validation nodes, no answer counting as wrong."""
    if not nodes.numel():
        return 0.0
    found = scores[nodes]
    right = (found.nan_to_num(-torch.inf).argmax(1) == y[nodes]) & ~found.isnan().all(1)
    return float(right.double().mean())
