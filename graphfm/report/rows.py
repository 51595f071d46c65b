"""What the terminal table, the plots and the page all show: targets, their rows, and the verdict on each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal

from graphfm.report.labels import tell_apart
from graphfm.report.tasks import Measure, measure_of, part_of
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
        score: what methods are compared by on this task: accuracy, for links MRR, for clusters NMI.
        beside: a second score: macro-F1, AUC, ARI; None where no cell has one.
        difference: its score minus that of the best training-free rule, over common splits; None if not comparable.
        values: its score on each cell, for the plots.
        is_floor: whether it is the best training-free rule itself.
        is_best: whether no method of the target has a higher mean.
        trained: how many numbers it trains, prompts, adapters and head among them; None where the cells do not say.
    """

    score: Summary
    beside: Summary | None
    difference: Paired | None
    values: tuple[float, ...]
    is_floor: bool
    is_best: bool
    trained: int | None = None

    @property
    def method(self) -> str:
        """The method's name."""
        return self.score.method

    @property
    def group(self) -> str:
        """``"floor"``, ``"control"``, ``"pretrained"``, or whatever the results say."""
        return self.score.group


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
        task: what was asked for.
        negatives: for links, what kind of pairs the true ones were ranked among.
    """

    dataset: str
    shots: int
    protocol: str
    rows: tuple[Row, ...]
    against_floor: Paired | None
    against_control: Paired | None
    task: str = "node-classification"
    negatives: str = ""

    @property
    def measure(self) -> Measure:
        """Which two metrics are shown."""
        return measure_of(self.task)

    @property
    def title(self) -> str:
        """For headings."""
        labels = "1 label a class" if self.shots == 1 else f"{self.shots} labels a class"
        about = {
            "graph": f"graphs, {labels}",
            "link": f"links, {self.negatives} negatives" if self.negatives else "links",
            "clustering": "clusters",
        }
        return f"{self.dataset}, {about.get(self.task, labels)}" + (
            "" if self.protocol == "honest" else f" ({self.protocol} protocol)"
        )

    @property
    def splits(self) -> int:
        """The largest number of splits that any of its methods was measured on."""
        return max(row.score.n for row in self.rows)

    def row(self, method: str) -> Row:
        """The row of a method that is there."""
        return next(row for row in self.rows if row.method == method)


def targets(results: Iterable[Result]) -> list[Target]:
    """Sort cells into targets, in order of appearance; cells that were not run alike are told apart by name.

    Raises:
        ValueError: no results, or none of a task with its metric (accuracy, where the task is not known).
    """
    parts: dict[tuple[str, str], list[Result]] = {}
    for one in results:
        parts.setdefault(part_of(one), []).append(one)
    if not parts:
        raise ValueError(
            "results is empty: there is nothing to show; `graphfm transfer` or `graphfm baselines` fill it."
        )
    return [target for part, cells in parts.items() for target in _targets(part, tell_apart(cells))]


def _targets(part: tuple[str, str], cells: Sequence[Result]) -> list[Target]:
    """Those of one task."""
    measure = measure_of(part[0])
    scores = summarise(cells, measure.first)
    has_second = any(measure.second in one.metrics for one in cells)
    beside = {_place(one): one for one in (summarise(cells, measure.second) if has_second else [])}
    keys = dict.fromkeys((one.dataset, one.shots, one.protocol) for one in scores)
    return [_target(key, part, cells, [one for one in scores if _place(one)[:3] == key], beside) for key in keys]


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
    part: tuple[str, str],
    cells: Sequence[Result],
    summaries: Sequence[Summary],
    beside: dict[tuple[str, int, str, str], Summary],
) -> Target:
    dataset, shots, protocol = key
    metric = measure_of(part[0]).first
    mine = [one for one in cells if _is_of(one, key)]
    floor = _champion(mine, key, "floor", metric)
    most = max(one.n for one in summaries)
    top = max((one.mean for one in summaries if one.n == most), default=math.nan)
    order = {name: place for place, name in enumerate(GROUPS)}
    rows = [
        Row(
            score=one,
            beside=beside.get((*key, one.method)),
            difference=None if one.method == floor else _paired(mine, one.method, floor, metric),
            values=tuple(cell.metrics.get(metric, math.nan) for cell in mine if cell.method == one.method),
            is_floor=one.method == floor,
            is_best=one.n == most and one.mean == top,
            trained=_trained(mine, one.method),
        )
        for one in sorted(summaries, key=lambda one: order.get(one.group, len(order)))
    ]
    best = _champion(mine, key, "pretrained", metric)
    against_floor = _paired(mine, best, floor, metric)
    against_control = _paired(mine, best, _champion(mine, key, "control", metric), metric)
    return Target(dataset, shots, protocol, tuple(rows), against_floor, against_control, *part)


def _is_of(one: Result, key: tuple[str, int, str]) -> bool:
    settings = one.settings
    return (one.dataset, int(settings.get("shots") or 0), str(settings.get("protocol", "honest"))) == key


def _champion(cells: Sequence[Result], key: tuple[str, int, str], group: str, metric: str) -> str | None:
    """The best method of a group on one target; None if there is none, or if they share no split to compare on."""
    dataset, shots, protocol = key
    try:
        return best_baseline(cells, dataset, shots, groups=(group,), protocol=protocol, metric=metric)
    except ValueError:
        return None


def _trained(cells: Sequence[Result], method: str) -> int | None:
    """The median over a method's cells: a head is as wide as the classes that its split holds."""
    found = [one.settings.get("trained_parameters") for one in cells if one.method == method]
    numbers = sorted(int(value) for value in found if value is not None)
    return numbers[len(numbers) // 2] if numbers else None


def _paired(cells: Sequence[Result], method: str | None, baseline: str | None, metric: str) -> Paired | None:
    if method is None or baseline is None:
        return None
    try:
        return paired(cells, method, baseline, metric)
    except ValueError:  # no common split
        return None
