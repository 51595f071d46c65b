"""Cells of one method that were not run alike get names of their own, so that no table averages over them."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from graphfm.results import Result

__all__ = ["as_text", "tell_apart"]

# What may differ between repeats of one thing: where it ran, and which pretraining run it came from.
_REPEATS = frozenset(
    {"shots", "protocol", "group", "device", "checkpoint", "pretrain_seed", "trained_parameters", "chosen"}
)


def tell_apart(results: Iterable[Result]) -> list[Result]:
    """Add to a method's name the settings in which its cells on one target differ, e.g. ``probe, sources=cora + wine``.

    Several pretraining seeds of one thing stay one method. Several checkpoints of one pretraining seed do not: they
    differ in something that the settings do not tell.
    """
    cells = list(results)
    together: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    for one in cells:
        settings = one.settings
        place = (one.method, one.dataset, str(settings.get("shots")), str(settings.get("protocol")))
        together[place].append(one)
    differing: dict[str, dict[str, None]] = defaultdict(dict)  # of a method, on any target: its name is the same on all
    for (method, *_), alike in together.items():
        differing[method] |= dict.fromkeys(_differing(alike))
    return [_named(one, list(differing[one.method])) for one in cells]


def as_text(value: Any) -> str:
    """A setting's value for people."""
    if isinstance(value, (list, tuple)):
        return " + ".join(as_text(entry) for entry in value)
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _differing(cells: Sequence[Result]) -> list[str]:
    names = dict.fromkeys(name for one in cells for name in one.settings if name not in _REPEATS)
    found = [name for name in names if len({as_text(one.settings.get(name)) for one in cells}) > 1]
    runs: dict[str, set[str]] = defaultdict(set)
    for one in cells:
        same = [as_text(one.settings.get(name)) for name in ("pretrain_seed", *found)]
        runs["\n".join(same)].add(as_text(one.settings.get("checkpoint")))
    return [*found, "checkpoint"] if any(len(checkpoints) > 1 for checkpoints in runs.values()) else found


def _named(one: Result, names: Sequence[str]) -> Result:
    if not names:
        return one
    extra = ", ".join(f"{name}={as_text(one.settings.get(name))}" for name in names)
    return dataclasses.replace(one, method=f"{one.method}, {extra}")
