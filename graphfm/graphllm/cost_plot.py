"""What methods cost against what they reach, drawn."""

from __future__ import annotations

import math

from graphfm.graphllm.standings import Standings
from graphfm.report import plots

__all__ = ["cost_plot"]


def cost_plot(one: Standings) -> str:
    """Mean seconds a cell, encoding included, against mean accuracy; ``<svg>``, empty with fewer than two points."""
    points = [line for line in one.lines if not math.isnan(line.mean)]
    if len(points) < 2 or not plots.available():
        return ""
    figure, axes = plots.blank(4.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    spots = [(max(line.seconds, 1e-2), 100 * line.mean, line.method) for line in points]
    for cost, accuracy, _ in spots:
        axes.plot(cost, accuracy, "o", color=plots.MUTED, markersize=5, zorder=3)
    axes.minorticks_off()
    axes.grid(axis="both", color=plots.LINE, linewidth=0.6)
    axes.margins(y=0.12)
    # Whole decades: with fewer than two ticks a logarithmic axis says nothing.
    low, high = min(spots)[0] / 1.2, max(spots)[0] * 1.2
    axes.set_xlim(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)))
    plots.label_points(axes, spots)
    axes.set_xlabel("seconds a cell, encoding included")
    axes.set_ylabel("mean accuracy, %")
    return plots.as_svg(figure, "Seconds against accuracy")
