"""Plots of a report as SVG text, drawn by matplotlib.

Colours are written as CSS variables of the page, so that one drawing serves light and dark; text stays text.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphfm.report.rows import Row, Target, changes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "INK",
    "LINE",
    "MUTED",
    "accuracy_plot",
    "as_svg",
    "available",
    "blank",
    "difference_plot",
    "label_points",
    "seconds_plot",
]

# matplotlib wants colours, the page wants variables: these stand in and are replaced in the finished SVG.
INK, MUTED, LINE = "#010203", "#010204", "#010205"
_COLOURS = {"floor": "#010206", "control": "#010207", "pretrained": "#010208"}
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    "#010206": "floor",
    "#010207": "control",
    "#010208": "pretrained",
    "#010209": "card",
}
_CARD = "#010209"
_WIDTH = 3.8  # inches: about as wide as a phone, where text then keeps its size
_ROW = 0.27


def available() -> bool:
    """Whether matplotlib is installed (extra ``viz``)."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def accuracy_plot(target: Target) -> str:
    """The score of every method of a target: mean, 95 % interval, the single cells behind it; as an ``<svg>``."""
    figure, axes = blank(0.75 + _ROW * len(target.rows))
    for place, row in enumerate(target.rows):
        colour = _COLOURS.get(row.group, MUTED)
        axes.plot(_percent(row.values), [place] * len(row.values), "|", color=colour, alpha=0.35, markersize=6)
        _dot(axes, place, row.score.mean, row.score.half_width, colour, filled=True)
        if row.is_floor:
            axes.axvline(100 * row.score.mean, color=colour, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    _methods(axes, [row.method for row in target.rows], bold=[row.is_best for row in target.rows])
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, 0.0), min(high, 101.0))  # an interval of few splits may reach beyond what can be
    axes.set_xlabel(f"{target.measure.names[0]}, %")
    return as_svg(figure, f"Method by {target.measure.names[0]} on {target.title}")


def difference_plot(targets: Sequence[Target]) -> str:
    """Paired differences to the best training-free rule, target by target; as an ``<svg>``, empty if there are none."""
    shown = [(target, [row for row in target.rows if row.difference and row.group != "floor"]) for target in targets]
    shown = [(target, rows) for target, rows in shown if rows]
    if not shown:
        return ""
    lines: list[tuple[str, Row | None]] = []
    for target, rows in shown:
        lines += [(target.title, None), *((row.method, row) for row in rows)]
    figure, axes = blank(0.75 + _ROW * len(lines))
    axes.axvline(0, color=INK, linewidth=1, zorder=0)
    for place, (_, row) in enumerate(lines):
        if row is not None and row.difference is not None:
            one = row.difference
            colour = _COLOURS.get(row.group, MUTED)
            _dot(axes, place, one.mean, one.half_width, colour, filled=changes(one) != "unclear")
    _methods(axes, [name for name, _ in lines], bold=[row is None for _, row in lines])
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -1.0), max(high, 1.0))  # zero is always in sight
    axes.set_xlabel("points above the best rule")
    return as_svg(figure, "Paired differences to the best training-free rule")


def seconds_plot(targets: Sequence[Target]) -> str:
    """Mean seconds a cell against mean score, for the methods measured on every target; ``<svg>`` or empty.

    Empty as well where targets have scores of different kinds: their mean would be of nothing.
    """
    if len({target.measure for target in targets}) != 1:
        return ""
    methods = dict.fromkeys(row.method for target in targets for row in target.rows)
    points = []
    for method in methods:
        rows = [row for target in targets for row in target.rows if row.method == method]
        accuracy = math.fsum(row.score.mean for row in rows) / len(rows)
        cost = math.fsum(row.score.seconds for row in rows) / len(rows)
        if len(rows) == len(targets) and math.isfinite(accuracy) and math.isfinite(cost):
            points.append((max(cost, 1e-4), 100 * accuracy, method, rows[0].group))
    if len(points) < 2:
        return ""
    figure, axes = blank(3.4)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for cost, accuracy, _, group in points:
        colour = _COLOURS.get(group, MUTED)
        axes.plot(cost, accuracy, "o", color=colour, markersize=6, markeredgecolor=_CARD, zorder=3)
    axes.minorticks_off()
    axes.grid(axis="both", color=LINE, linewidth=0.6)
    axes.margins(x=0.12, y=0.12)
    best = max((accuracy for _, accuracy, _, group in points if group == "floor"), default=math.nan)
    named = [point for point in points if point[3] != "floor" or point[1] == best]  # the rules lie too close for names
    label_points(axes, [(cost, accuracy, method) for cost, accuracy, method, _ in named])
    axes.set_xlabel("seconds a cell (fit and prediction)")
    name = targets[0].measure.names[0]
    axes.set_ylabel(f"{name}, %")
    return as_svg(figure, f"Seconds against {name}")


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * value for value in values]


def blank(height: float) -> tuple[Figure, Axes]:
    """An empty plot in the look of the page; nothing of pyplot's global state is touched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    figure.patch.set_visible(False)  # the page shows through, light or dark
    axes.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(LINE)
    axes.tick_params(length=0, labelsize=9, labelcolor=MUTED)
    axes.xaxis.label.set(color=MUTED, size=9)
    axes.yaxis.label.set(color=MUTED, size=9)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _dot(axes: Axes, place: float, mean: float, half_width: float, colour: str, *, filled: bool) -> None:
    """A mean and its interval; hollow where it shows nothing."""
    if math.isnan(mean):
        return
    if math.isfinite(half_width):
        ends = _percent([mean - half_width, mean + half_width])
        axes.plot(ends, [place, place], color=colour, linewidth=2, solid_capstyle="round")
    face = colour if filled else _CARD
    axes.plot(100 * mean, place, "o", color=face, markeredgecolor=colour, markeredgewidth=1.6, markersize=6, zorder=3)


def _methods(axes: Axes, names: Sequence[str], *, bold: Sequence[bool]) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    for label, heavy in zip(axes.get_yticklabels(), bold, strict=True):
        label.set(color=INK, parse_math=False, fontweight="bold" if heavy else "normal")


def _short(name: str) -> str:
    """Long names differ at their ends, so the middle goes; the tables have the whole name."""
    return name if len(name) <= 28 else f"{name[:12]}…{name[-15:]}"


def label_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Names beside points, pushed apart from the top down where they would overlap, then with a line to their point."""
    low, high = axes.get_ylim()
    apart = 0.055 * (high - low)
    left, right = (math.log(edge) for edge in axes.get_xlim())
    taken: list[tuple[float, float, float]] = []  # (left end, right end, height) of the labels so far, ends in 0..1
    for cost, accuracy, method in sorted(points, key=lambda point: -point[1]):
        across, height = (math.log(cost) - left) / (right - left), accuracy
        width = 0.05 + 0.026 * len(_short(method))
        before = across > 0.6
        start, end = (across - width, across) if before else (across, across + width)
        while any(start < e and s < end and abs(height - y) < apart * 0.98 for s, e, y in taken):
            height -= apart / 4
        taken.append((start, end, height))
        if accuracy - height > apart / 2:
            beside = cost * math.exp((-0.011 if before else 0.011) * (right - left))
            axes.plot([cost, beside], [accuracy, height], color=LINE, linewidth=1, zorder=1)
        axes.annotate(
            _short(method),
            (cost, height),
            xytext=(-7 if before else 7, 0),
            textcoords="offset points",
            ha="right" if before else "left",
            va="center",
            size=9,
            color=INK,
            parse_math=False,
        )


def as_svg(figure: Figure, title: str, variables: Mapping[str, str] | None = None) -> str:
    """The figure as an ``<svg>`` element that takes the page's colours, font and width.

    Args:
        figure: drawn in the stand-in colours of this file.
        title: for those who cannot see it.
        variables: further stand-ins and the names of the CSS variables that replace them.
    """
    import html

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    # A fixed salt makes the ids, and so the file, the same for the same results.
    options: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": "graphfm"}
    with matplotlib.rc_context(options):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="(figure|axes|patch|matplotlib|xtick|ytick|line2d|text|legend)[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    for colour, name in {**_VARIABLES, **(variables or {})}.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", text)
    label = html.escape(title, quote=True)
    return re.sub(r"<svg[^>]*?viewBox=", f'<svg role="img" aria-label="{label}" viewBox=', text, count=1)
