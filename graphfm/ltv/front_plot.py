"""The front of a preference sweep over all horizons at once: a line a run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from graphfm.ltv.report_front import Front
from graphfm.report.plots import INK, LINE, MUTED, as_svg, blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["front_figure", "front_svg"]


@dataclasses.dataclass(frozen=True)
class _Colours:
    """Of text, of what is dominated, of grid lines, of the front, of the chosen run."""

    ink: str = "#1d2129"
    muted: str = "#8a8f98"
    line: str = "#e2e2dc"
    front: str = "#1f6fb2"
    chosen: str = "#b07a1e"


_STAND_INS = {"#010230": "pretrained", "#010231": "control"}


def front_figure(front: Front) -> Figure:
    """A figure in plain colours: ``front_figure(front.drawn()).savefig("front.png", dpi=200)``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = _draw(front, _Colours())
    figure.patch.set(visible=True, facecolor="white")
    return figure


def front_svg(front: Front) -> str:
    """The same as an ``<svg>`` for a page of :mod:`graphfm.report`, in its colours, light and dark.

    Raises:
        ImportError: matplotlib is not installed.
    """
    accent, chosen = _STAND_INS
    return as_svg(_draw(front, _Colours(INK, MUTED, LINE, accent, chosen)), "Runs of a preference sweep", _STAND_INS)


def _draw(front: Front, colours: _Colours) -> Figure:
    """Losses less those of the single-task models: 0 means the same at every horizon, and below it is better."""
    try:
        figure, axes = blank(3.1)
    except ImportError as error:
        raise ImportError("plots need matplotlib; pip install 'graphfm[viz]'.") from error
    relative = 100 * (front.losses - front.single) / front.unit
    places = range(len(front.horizons))
    axes.axhline(0, color=colours.ink, linewidth=1, linestyle=(0, (2, 2)), label="a model for each horizon")
    seen: set[str] = set()
    for run in np.argsort(front.on_front, kind="stable"):
        kind = "on the front" if front.on_front[run] else "dominated"
        colour, width = (colours.front, 1.3) if front.on_front[run] else (colours.muted, 0.8)
        label = None if kind in seen else kind
        seen.add(kind)
        axes.plot(places, relative[run], "o-", color=colour, linewidth=width, markersize=3, alpha=0.8, label=label)
    axes.plot(places, relative[front.chosen], "o-", color=colours.chosen, linewidth=2.2, markersize=5, label="chosen")
    axes.set_xticks(places, [f"{days:g} d" for days in front.horizons])
    axes.margins(x=0.06, y=0.08)
    axes.set_ylabel("excess loss, % of its range", color=colours.muted, size=9)
    axes.tick_params(labelcolor=colours.muted)
    axes.spines["bottom"].set_color(colours.line)
    axes.grid(axis="both", color=colours.line, linewidth=0.6)
    legend = axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_color(colours.ink)
    return figure
