"""What a model was fitted on, and what differs in another log."""

from __future__ import annotations

import dataclasses
from typing import Any

from graphfm.ltv.population import Unit
from graphfm.ltv.task import Task

__all__ = ["Columns"]


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of all that enters a model, in order, and what it tells.

    Attributes:
        unit: ``"user"`` or ``"pair"``.
        horizons: in days.
        user: features of a user.
        item: of an item; none where the unit is the user.
        pair: of a user with an item, likewise.
    """

    unit: Unit
    horizons: tuple[float, ...]
    user: tuple[str, ...]
    item: tuple[str, ...] = ()
    pair: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: Task) -> Columns:
        """Those of a task."""
        graph, unit = task.snapshot, task.population.unit
        horizons = tuple(float(days) for days in task.horizons)
        user = tuple(graph["user"].feature_names)
        if unit == "user":
            return cls(unit, horizons, user)
        pair = graph["user", "buys", "item"].feature_names
        return cls(unit, horizons, user, tuple(graph["item"].feature_names), tuple(pair))

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Columns:
        """The inverse of ``dataclasses.asdict``, through JSON."""
        names: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        return cls(**names)

    def check(self, task: Task) -> None:
        """Raise unless ``task`` has the same columns.

        Raises:
            ValueError: it has others; the message says which.
        """
        other = Columns.of(task)
        differing = []
        for name in ("unit", "horizons"):
            mine, found = getattr(self, name), getattr(other, name)
            if mine != found:
                differing.append(f"{name}: {found!r} in the place of {mine!r}")
        for name in ("user", "item", "pair"):
            differing += _differences(name, getattr(self, name), getattr(other, name))
        if differing:
            raise ValueError(
                f"the model was fitted on other columns: {'; '.join(differing)}. Make the task, and its snapshot, with "
                "the options that the model was fitted with."
            )


def _differences(name: str, mine: tuple[str, ...], found: tuple[str, ...]) -> list[str]:
    if mine == found:
        return []
    missing, new = [n for n in mine if n not in found], [n for n in found if n not in mine]
    parts = [f"{label} {', '.join(names)}" for label, names in (("without", missing), ("with", new)) if names]
    return [f"{name} features {' and '.join(parts) or 'in another order'}"]
