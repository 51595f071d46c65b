"""What the terminal table, the plots and the page all show: targets, their rows, and the verdict on each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal

from graphfm.report.labels import tell_apart
from graphfm.results import Paired, Result, Summary, best_baseline, paired, summarise

__all__ = ["GROUPS", "Row", "Target", "Verdict", "changes", "interval", "percent", "seconds", "targets"]

Verdict = Literal["better", "worse", "unclear"]

# In the order of the tables: from what costs nothing to what is being sold.
GROUPS = {
    "floor": "training-free",
    "control": "control",
    "pretrained": "pretrained",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One method on one target.

    Attributes:
        accuracy: its accuracy.
        macro_f1: its macro-F1; None where no cell has one.
        difference: its accuracy minus that of the best training-free rule, over common splits; None if not comparable.
        values: its accuracy on each cell, for the plots.
        is_floor: whether it is the best training-free rule itself.
        is_best: whether no method of the target has a higher mean.
    """

    accuracy: Summary
    macro_f1: Summary | None
    difference: Paired | None
    values: tuple[float, ...]
    is_floor: bool
    is_best: bool

    @property
    def method(self) -> str:
        """The method's name."""
        return self.accuracy.method

    @property
    def group(self) -> str:
        """``"floor"``, ``"control"``, ``"pretrained"``, or whatever the results say."""
        return self.accuracy.group


@dataclasses.dataclass(frozen=True)
class Target:
    """One graph with a number of labels a class, under one protocol, and all methods measured on it.

    Attributes:
        dataset: the graph.
        shots: labels a class.
        protocol: how it was measured.
        rows: the methods, floor first, pretrained last.
        against_floor: the best pretrained method against the best training-free rule; None if one of them is missing.
        against_control: the same against the best control.
    """

    dataset: str
    shots: int
    protocol: str
    rows: tuple[Row, ...]
    against_floor: Paired | None
    against_control: Paired | None

    @property
    def title(self) -> str:
        """For headings."""
        labels = "1 label a class" if self.shots == 1 else f"{self.shots} labels a class"
        return f"{self.dataset}, {labels}" + ("" if self.protocol == "honest" else f" ({self.protocol} protocol)")

    @property
    def splits(self) -> int:
        """The largest number of splits that any of its methods was measured on."""
        return max(row.accuracy.n for row in self.rows)

    def row(self, method: str) -> Row:
        """The row of a method that is there."""
        return next(row for row in self.rows if row.method == method)


def targets(results: Iterable[Result]) -> list[Target]:
    """Sort cells into targets, in order of appearance; cells that were not run alike are told apart by name.

    Raises:
        ValueError: no results, or none with an accuracy.
    """
    cells = tell_apart(results)
    if not cells:
        raise ValueError(
            "results is empty: there is nothing to show; `graphfm transfer` or `graphfm baselines` fill it."
        )
    accuracy = summarise(cells)
    has_f1 = any("macro_f1" in one.metrics for one in cells)
    f1 = {_place(one): one for one in (summarise(cells, "macro_f1") if has_f1 else [])}
    keys = dict.fromkeys((one.dataset, one.shots, one.protocol) for one in accuracy)
    return [_target(key, cells, [one for one in accuracy if _place(one)[:3] == key], f1) for key in keys]


def changes(difference: Paired | None) -> Verdict:
    """What a paired difference shows: its 95 % interval lies above zero, below it, or neither."""
    if difference is None or math.isnan(difference.half_width):
        return "unclear"
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else "unclear"


def percent(value: float, *, signed: bool = False) -> str:
    """A fraction as a percentage with one decimal; ``-`` where undefined."""
    if math.isnan(value):
        return "-"
    text = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    return text.replace("-", "\N{MINUS SIGN}")


def interval(mean: float, half_width: float, *, signed: bool = False) -> str:
    """Mean and half width in percent, e.g. ``56.3 ± 2.1``; ``-`` for what is undefined."""
    return f"{percent(mean, signed=signed)} ± {percent(half_width)}"


def seconds(value: float) -> str:
    """Seconds with about three digits."""
    if math.isnan(value):
        return "-"
    if 0 < value < 0.005:
        return "<0.01"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _place(one: Summary) -> tuple[str, int, str, str]:
    return one.dataset, one.shots, one.protocol, one.method


def _target(
    key: tuple[str, int, str],
    cells: Sequence[Result],
    summaries: Sequence[Summary],
    f1: dict[tuple[str, int, str, str], Summary],
) -> Target:
    dataset, shots, protocol = key
    mine = [one for one in cells if _is_of(one, key)]
    floor = _champion(mine, key, "floor")
    most = max(one.n for one in summaries)
    top = max((one.mean for one in summaries if one.n == most), default=math.nan)
    order = {name: place for place, name in enumerate(GROUPS)}
    rows = [
        Row(
            accuracy=one,
            macro_f1=f1.get((*key, one.method)),
            difference=None if one.method == floor else _paired(mine, one.method, floor),
            values=tuple(cell.metrics.get("accuracy", math.nan) for cell in mine if cell.method == one.method),
            is_floor=one.method == floor,
            is_best=one.n == most and one.mean == top,
        )
        for one in sorted(summaries, key=lambda one: order.get(one.group, len(order)))
    ]
    best = _champion(mine, key, "pretrained")
    against_control = _paired(mine, best, _champion(mine, key, "control"))
    return Target(dataset, shots, protocol, tuple(rows), _paired(mine, best, floor), against_control)


def _is_of(one: Result, key: tuple[str, int, str]) -> bool:
    settings = one.settings
    return (one.dataset, int(settings.get("shots") or 0), str(settings.get("protocol", "honest"))) == key


def _champion(cells: Sequence[Result], key: tuple[str, int, str], group: str) -> str | None:
    """The best method of a group on one target; None if there is none, or if they share no split to compare on."""
    dataset, shots, protocol = key
    try:
        return best_baseline(cells, dataset, shots, groups=(group,), protocol=protocol)
    except ValueError:
        return None


def _paired(cells: Sequence[Result], method: str | None, baseline: str | None) -> Paired | None:
    if method is None or baseline is None:
        return None
    try:
        return paired(cells, method, baseline)
    except ValueError:  # no common split
        return None
