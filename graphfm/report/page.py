"""The results as one HTML file that needs nothing beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from graphfm.report import plots
from graphfm.report.labels import tell_apart
from graphfm.report.method import how_it_was_measured
from graphfm.report.rows import GROUPS, Row, Target, changes, interval, percent, seconds, targets
from graphfm.report.style import CSS
from graphfm.report.words import headline, leaks

if TYPE_CHECKING:
    from graphfm.results import Result

__all__ = ["write_report"]

_HEADINGS = {
    "floor": "Training-free rules",
    "control": "Controls: the network without pretraining",
    "pretrained": "Pretrained",
}
_VERDICTS = {"better": "▲ better", "worse": "▼ worse", "unclear": "no clear difference"}


def write_report(results: Iterable[Result], path: str | os.PathLike[str], *, title: str = "Few-shot transfer") -> Path:
    """Write a self-contained HTML report: verdict, a table for every target, plots, how it was measured.

    Plots need matplotlib (extra ``viz``); without it the page has its tables and says so.

    Args:
        results: cells of any tasks, targets and methods; they need their task's first metric (``accuracy``, ``mrr`` for
            links, ``nmi`` for clusters).
        path: the file to write; folders are made, an older report is replaced.
        title: heading of the page.

    Returns:
        The path written.

    Raises:
        ValueError: there are no results, or none of a task has that metric.
        OSError: the file cannot be written.
    """
    cells = tell_apart(results)
    text = _page(cells, targets(cells), title)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        advice = "choose a file in a folder you may write to"
        raise type(error)(error.errno, f"cannot write the report ({error.strerror}); {advice}", str(path)) from error
    return path


def _page(cells: Sequence[Result], found: Sequence[Target], title: str) -> str:
    drawn = plots.available()
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>",
            _header(found, title),
            "" if drawn else _without_plots(),
            "<h2>Every target</h2>",
            _legend(),
            *(_target(target, drawn) for target in found),
            _comparisons(found) if drawn else "",
            how_it_was_measured(cells),
            "</main></body></html>\n",
        ]
    )


def _header(found: Sequence[Target], title: str) -> str:
    sentence, more = (escape(text).replace(" %", "&nbsp;%") for text in headline(found))
    leaking = sum(leaks(target) for target in found)
    alarm = (
        '<p class="alarm" role="alert">Not comparable: '
        f"{leaking} of {len(found)} targets {'uses' if leaking == 1 else 'use'} protocol “paper”, which leaks test "
        "labels into training and model selection. It is here to reproduce published tables; its numbers are no "
        "estimate of what to expect on your graph, and they are left out of the verdict.</p>"
        if leaking
        else ""
    )
    tiles = "".join(_tile(target) for target in found if target.against_floor is not None and not leaks(target))
    return (
        f'<header><h1>{escape(title)}</h1><p class="verdict">{sentence}</p>'
        f'<p class="more">{more}</p>{alarm}</header>' + (f'<div class="tiles">{tiles}</div>' if tiles else "")
    )


def _tile(target: Target) -> str:
    one = target.against_floor
    if one is None:
        return ""
    verdict = changes(one)
    ours, theirs = target.row(one.method).score.mean, target.row(one.baseline).score.mean
    half = "" if one.n == 1 else f" <small>± {percent(one.half_width)} points</small>"
    return (
        f'<div class="tile"><div class="what">{escape(target.title)}</div>'
        f'<div class="big">{percent(one.mean, signed=True)}{half}</div>'
        f'<div class="chip {verdict}">{_VERDICTS[verdict]}</div>'
        f'<div class="small">{escape(one.method)} {percent(ours)} % against {escape(one.baseline)} '
        f"{percent(theirs)} %</div></div>"
    )


def _without_plots() -> str:
    return (
        '<p class="alarm">No plots: matplotlib is not installed. <code>pip install "graphfm[viz]"</code> adds them.</p>'
    )


def _legend() -> str:
    keys = "".join(
        f'<span><i class="key" style="background:var(--{group})"></i>{escape(name)}</span>'
        for group, name in GROUPS.items()
    )
    return (
        '<p class="note">Scores on what was held out, in percent, ± half the 95 % interval over splits; the best mean '
        "is bold. The difference is paired: taken on each split, then averaged. Trained: how many numbers a method "
        "trains, head, prompt and adapter together.</p>"
        f'<div class="legend">{keys}</div>'
    )


def _target(target: Target, drawn: bool) -> str:
    splits = "1 split" if target.splits == 1 else f"{target.splits} splits"
    plot = f"<div>{plots.accuracy_plot(target)}</div>" if drawn else ""
    return (
        f'<section class="card target{"" if drawn else " alone"}"><h3>{escape(target.title)} '
        f'<span class="small">{splits}</span></h3><div class="scroll">{_table(target)}</div>{plot}</section>'
    )


def _table(target: Target) -> str:
    first, second = target.measure.names
    counted = any(row.trained is not None for row in target.rows)
    heads = (first, second, "vs best rule", *(["trained"] if counted else []), "seconds")
    body, group = [], None
    for row in target.rows:
        if row.group != group:
            group = row.group
            style = group if group in GROUPS else "other"
            name = _HEADINGS.get(group, group or "Other methods")
            body.append(
                f'<tr class="group {style}"><th colspan="{1 + len(heads)}" scope="rowgroup">{escape(name)}</th></tr>'
            )
        body.append(_row(row, target, counted))
    columns = "".join(
        f'<th class="number{" optional" if name in (second, "trained", "seconds") else ""}" scope="col">{name}</th>'
        for name in heads
    )
    return f'<table><thead><tr><th scope="col">method</th>{columns}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def _row(row: Row, target: Target, counted: bool) -> str:
    one = row.score
    few = "" if one.n == target.splits else f" <small>(n={one.n})</small>"
    beside = "-" if row.beside is None else percent(row.beside.mean)
    trained = "-" if row.trained is None else f"{row.trained:,}"
    trained = f'<td class="number optional">{trained}</td>' if counted else ""
    return (
        f'<tr{" class=best" if row.is_best else ""}><td class="method">{escape(row.method)}</td>'
        f'<td class="number">{percent(one.mean)} <small>± {percent(one.half_width)}</small>{few}</td>'
        f'<td class="number optional">{beside}</td><td class="number">{_difference(row)}</td>'
        f'{trained}<td class="number optional">{escape(seconds(one.seconds))}</td></tr>'
    )


def _difference(row: Row) -> str:
    one = row.difference
    if row.is_floor:
        return "<small>best rule</small>"
    if one is None:
        return "-"
    # Rules that lose to the best rule are no news: only what has to beat it is coloured.
    style = "" if row.group == "floor" else f' class="{changes(one)}"'
    return f"<span{style}>{interval(one.mean, one.half_width, signed=True)}</span>"


def _comparisons(found: Sequence[Target]) -> str:
    honest = [target for target in found if not leaks(target)] or list(found)
    drawings = (
        (
            plots.difference_plot(honest),
            "Was it worth it?",
            "Each method minus the best training-free rule of its target, over the same splits, with the 95 % "
            "interval. A hollow dot: the interval holds zero.",
        ),
        (
            plots.seconds_plot(honest),
            "What does it cost?",
            "Mean over all targets, for the methods measured on every one of them. Up and to the left is better. "
            "Of the training-free rules the best is named. Pretraining itself is not in these seconds.",
        ),
    )
    cards = "".join(
        f'<section class="card"><h3>{head}</h3><p class="note">{note}</p>{svg}</section>'
        for svg, head, note in drawings
        if svg
    )
    return f'<h2>Side by side</h2><div class="pair">{cards}</div>' if cards else ""
