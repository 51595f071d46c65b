"""Plots of an LTV report as SVG text in the look of :mod:`graphfm.report`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphfm.report.plots import INK, LINE, MUTED, as_svg, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SERIES", "calibration_plot", "decile_sums", "drift_plot", "gini_curve", "gini_plot"]

SERIES = 6  # colours there are
_STAND_INS = {f"#0102{20 + place}": f"s{place}" for place in range(SERIES)}
_COLOURS = tuple(_STAND_INS)
_SHARES = np.linspace(0, 1, 101)

Lines = Mapping[str, tuple[int, np.ndarray]]  # name to (colour, heights)


def gini_curve(mean: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Share of all value that the best-ranked 0, 1, ..., 100 % of members bring, ``[101]``; ties share theirs.

    NaN where nobody pays.
    """
    total = value.sum()
    if not total > 0:
        return np.full(len(_SHARES), np.nan)
    _, level = np.unique(-mean, return_inverse=True)
    members = np.append(0, np.cumsum(np.bincount(level))) / len(mean)
    brought = np.append(0, np.cumsum(np.bincount(level, weights=value))) / total
    return np.interp(_SHARES, members, brought)


def decile_sums(mean: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true sums of ten equal parts by prediction, the lowest first, ``[10]`` each."""
    _, group = np.unique(mean, return_inverse=True)
    shared = np.bincount(group, weights=value)[group] / np.bincount(group)[group]  # equal predictions have no order
    order = np.argsort(mean, kind="stable")
    cuts = np.linspace(0, len(mean), 11)
    sums = [
        np.diff(np.interp(cuts, np.arange(len(mean) + 1), np.append(0, np.cumsum(v[order])))) for v in (mean, shared)
    ]
    return sums[0], sums[1]


def gini_plot(curves: Lines, best: np.ndarray, title: str) -> str:
    """Share of value against share of members, with the true order and no order beside it."""
    figure, axes = blank(3.1)
    axes.plot(100 * _SHARES, 100 * _SHARES, color=LINE, linewidth=1.2, label="no order")
    axes.plot(100 * _SHARES, 100 * best, color=MUTED, linewidth=1.2, linestyle=(0, (2, 2)), label="true order")
    for name, (colour, heights) in curves.items():
        axes.plot(100 * _SHARES, 100 * heights, color=_COLOURS[colour], linewidth=1.8, label=name)
    axes.set(xlim=(0, 100), ylim=(0, 101), xlabel="best-ranked members, %", ylabel="of all value, %")
    axes.grid(axis="both", color=LINE, linewidth=0.6)
    return as_svg(figure, title, _STAND_INS)


def calibration_plot(sums: Mapping[str, tuple[int, np.ndarray, np.ndarray]], title: str) -> str:
    """True against predicted value of each decile, a mean a member, both on a logarithmic scale."""
    figure, axes = blank(3.1)
    seen = [side for _, predicted, true in sums.values() for side in (predicted, true)]
    positive = np.concatenate([side[side > 0] for side in seen]) if seen else np.zeros(0)
    if not len(positive):
        return ""
    # Nothing paid has no logarithm: it stands at the foot of the plot.
    low, high = 0.5 * max(positive.min(), positive.max() * 1e-6), 2 * positive.max()
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low * 0.7, high))
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    for name, (colour, predicted, true) in sums.items():
        x, y = np.maximum(predicted, low), np.maximum(true, low)
        axes.plot(x, y, "-", color=_COLOURS[colour], linewidth=1, alpha=0.5)
        axes.plot(x, y, "o", color=_COLOURS[colour], markersize=4.5, label=name)
    _decimal(axes)
    axes.set(xlabel="predicted, a member", ylabel="true, a member")
    axes.grid(axis="both", color=LINE, linewidth=0.6)
    return as_svg(figure, title, _STAND_INS)


def drift_plot(days: Sequence[float], lines: Lines, label: str, title: str, *, level: float | None = None) -> str:
    """A score against the days since the fit."""
    figure, axes = blank(2.6)
    if level is not None:
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    for name, (colour, heights) in lines.items():
        axes.plot(days, heights, "o-", color=_COLOURS[colour], linewidth=1.6, markersize=3.5, label=name)
    axes.set(xlabel="days after the fit", ylabel=label)
    axes.grid(axis="both", color=LINE, linewidth=0.6)
    return as_svg(figure, title, _STAND_INS)


def _decimal(axes: Axes) -> None:
    """Ticks as 0.01, 1, 100, and no minor ones."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}" if math.isfinite(value) else "")
    axes.minorticks_off()
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_color(INK)
