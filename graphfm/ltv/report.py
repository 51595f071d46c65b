"""An evaluation as one HTML page that needs nothing beside it: who leads, how sure that is, where forecasts are off."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from graphfm.ltv import report_plots
from graphfm.ltv.evaluate import DRIFT, predictions_of
from graphfm.ltv.front_plot import front_svg
from graphfm.ltv.leaderboard import Board, Row, leaderboards
from graphfm.ltv.plain import Zero
from graphfm.ltv.report_figures import number, percent
from graphfm.ltv.report_front import Front, read_front
from graphfm.report import plots
from graphfm.report.style import CSS
from graphfm.results import Result, read

__all__ = ["write_ltv_report"]

_CSS = """
:root { --s0: #1f6fb2; --s1: #b5541c; --s2: #24744a; --s3: #7d4fa8; --s4: #9b7a12; --s5: #8a8f98; }
@media (prefers-color-scheme: dark) {
  :root { --s0: #62a8e5; --s1: #ee9560; --s2: #63c08d; --s3: #bd95e6; --s4: #d9bd55; --s5: #8d939e; }
}
th.number { white-space: nowrap; }
.board { font-size: .84rem; }
.board th, .board td { padding-right: .6rem; }
.quad { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); gap: 1rem; }
.quad .card { margin: 0; }
"""
_SHOWN = 5  # methods in a plot


def write_ltv_report(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    title: str = "Lifetime value",
    draws: int = 200,
) -> Path:
    """Write a self-contained page from what :func:`graphfm.ltv.evaluate_ltv` left in a folder.

    Plots need matplotlib (extra ``viz``); without it the page has its tables and says so.

    Args:
        folder: with ``results.jsonl``, and perhaps ``front.json`` (:mod:`graphfm.ltv.report_front`).
        path: the file to write; an older report is replaced.
        title: heading of the page.
        draws: of the bootstrap behind the intervals.

    Raises:
        FileNotFoundError: there are no results.
        ValueError: results of something else.
    """
    boards = leaderboards(folder, draws=draws)
    drifts = [one for one in read(Path(folder) / "results.jsonl") if one.task == DRIFT]
    front = read_front(folder)
    body = "\n".join(_section(board, drifts) for board in boards)
    sentence, more = _verdict(boards[0])
    missing = "" if plots.available() else '<p class="alarm">No plots: <code>pip install "graphfm[viz]"</code>.</p>'
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{CSS}{_CSS}</style></head><body><main>\n"
        f'<header><h1>{escape(title)}</h1><p class="verdict">{sentence}</p><p class="more">{more}</p></header>{missing}'
        f"{body}{_front(front)}{_method(boards)}</main></body></html>\n"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _verdict(board: Board) -> tuple[str, str]:
    leader, rest = board.rows[0], [row for row in board.rows[1:] if row.behind is not None]
    near = [row.method for row in rest if row.behind is not None and not row.behind.low > 0]
    far = len(rest) - len(near)
    if not rest:
        return f"{escape(leader.method)} is alone on the board.", ""
    sentence = f"{escape(leader.method)} sorts customers best."
    if near:
        sentence = f"{sentence[:-1]}, but not clearly better than {len(near)} of {len(rest)} others."
    apart = f" Not told apart from it: {escape(', '.join(near))}." if near else ""
    return (
        sentence,
        f"Normalised Gini {leader.metrics['gini']:.3f}, the mean over horizons and origins (1 is the true order, 0 is "
        f"none). {far} of {len(rest)} others lie behind with a 95 % interval over users that excludes zero.{apart} The "
        "leader is picked on these very results and so a little flattered.",
    )


def _section(board: Board, drifts: Sequence[Result]) -> str:
    shown = _chosen(board)
    parts = [
        f"<h2>{escape(board.title)}</h2>",
        '<p class="note">Means over test origins and seeds. “behind” is the distance to the leader in mean normalised '
        "Gini with its 95 % interval over users. Predicting 0 for everybody has an NMAE of exactly 1, which most "
        "calibrated methods do not reach where few pay: never choose by it alone. Bias is what was forecast over "
        "what was paid; “top 1 %” the share of the biggest spenders among as many highest forecasts; “falls” how often "
        "more days are said to be worth less.</p>",
        f'<section class="card"><div class="scroll">{_table(board)}</div></section>',
    ]
    if plots.available():
        parts.append(_legend(shown))
        parts.append(_pair("How much of the value do the best-ranked bring?", _curves(board, shown)))
        parts.append(_pair("Is what is forecast paid? Deciles by forecast", _calibration(board, shown)))
        parts.append(_pair("From day to day, without a new fit", _drift(board, drifts, shown)))
    parts.append(_parts(board))
    return "\n".join(parts)


def _chosen(board: Board) -> dict[str, int]:
    """The best methods, each with the number of its colour."""
    able = [row.method for row in board.rows if not _is_zero(row)]
    return {name: place for place, name in enumerate(able[:_SHOWN])}


def _is_zero(row: Row) -> bool:
    return row.method == Zero.__name__


def _table(board: Board) -> str:
    last = board.horizons[-1]
    heads = [f"Gini<br>{days:g} d" for days in board.horizons] + ["Gini<br>mean", "behind"]
    heads += [
        f"AUC<br>{last:g} d",
        f"bias<br>{last:g} d",
        f"NMAE<br>{last:g} d",
        f"top 1 %<br>{last:g} d",
        "falls",
        "seconds",
    ]
    body = []
    for place, row in enumerate(board.rows):
        cells = [number(row.at("gini", days)) for days in board.horizons]
        cells += [number(row.metrics["gini"]), _behind(row, place == 0)]
        cells += [number(row.at("auc", last)), number(row.at("bias", last), 2), number(row.at("nmae", last), 2)]
        cells += [percent(row.at("top_recall", last)), percent(row.metrics["violations"]), number(row.seconds, 1)]
        columns = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        best = " class=best" if place == 0 else ""
        body.append(f'<tr{best}><td class="method">{escape(row.method)}</td>{columns}</tr>')
    top = "".join(f'<th class="number" scope="col">{name}</th>' for name in heads)
    head = f'<thead><tr><th scope="col">method</th>{top}</tr></thead>'
    return f'<table class="board">{head}<tbody>{"".join(body)}</tbody></table>'


def _behind(row: Row, leads: bool) -> str:
    one = row.behind
    if leads or one is None:
        return "<small>leads</small>" if leads else "-"
    style = "worse" if one.low > 0 else "unclear"
    return f'<span class="{style}">{number(one.mean)} <small>[{number(one.low)}, {number(one.high)}]</small></span>'


def _legend(shown: dict[str, int]) -> str:
    keys = "".join(
        f'<span><i class="key" style="background:var(--s{colour})"></i>{escape(name)}</span>'
        for name, colour in shown.items()
    )
    return f'<div class="legend">{keys}</div>'


def _pair(head: str, cards: Sequence[tuple[str, str]]) -> str:
    drawn = "".join(f'<section class="card"><h3>{escape(name)}</h3>{svg}</section>' for name, svg in cards if svg)
    return f'<h2>{escape(head)}</h2><div class="quad">{drawn}</div>' if drawn else ""


def _predictions(board: Board, shown: dict[str, int]) -> dict[str, list[dict[str, np.ndarray]]]:
    """Of the methods in plots, those whose predictions were kept."""
    found = {}
    for row in board.rows:
        if row.method in shown:
            try:
                found[row.method] = [predictions_of(board.folder, one) for one in row.cells]
            except FileNotFoundError:
                continue
    return found


def _curves(board: Board, shown: dict[str, int]) -> list[tuple[str, str]]:
    kept = _predictions(board, shown)
    cards = []
    for k, days in enumerate(board.horizons):
        lines = {
            name: (shown[name], _mean([report_plots.gini_curve(one["mean"][:, k], one["value"][:, k]) for one in mine]))
            for name, mine in kept.items()
        }
        if lines:
            any_one = next(iter(kept.values()))
            best = _mean([report_plots.gini_curve(one["value"][:, k], one["value"][:, k]) for one in any_one])
            cards.append((f"{days:g} days", report_plots.gini_plot(lines, best, f"Gini curves at {days:g} days")))
    return cards


def _calibration(board: Board, shown: dict[str, int]) -> list[tuple[str, str]]:
    kept = _predictions(board, shown)
    cards = []
    for k, days in enumerate(board.horizons):
        sums = {}
        for name, mine in kept.items():
            parts = [report_plots.decile_sums(one["mean"][:, k], one["value"][:, k]) for one in mine]
            members = sum(len(one["value"]) for one in mine) / 10
            predicted, true = (sum(side) / members for side in zip(*parts, strict=True))
            sums[name] = (shown[name], np.asarray(predicted), np.asarray(true))
        if sums:
            cards.append((f"{days:g} days", report_plots.calibration_plot(sums, f"Calibration at {days:g} days")))
    return cards


def _drift(board: Board, drifts: Sequence[Result], shown: dict[str, int]) -> list[tuple[str, str]]:
    title = board.title.split(",")[0]
    mine = [one for one in drifts if one.dataset == title and tuple(one.settings["horizons"]) == board.horizons]
    days = sorted({float(one.settings["day"]) for one in mine})
    if not days:
        return []
    last = board.horizons[-1]
    cards = []
    for metric, label, level in (
        ("gini", "normalised Gini, mean", None),
        (f"bias@{last:g}", f"bias at {last:g} days", 1.0),
    ):
        lines = {}
        for name, colour in shown.items():
            by_day = {
                float(one.settings["day"]): one.metrics.get(metric, math.nan) for one in mine if one.method == name
            }
            if by_day:
                lines[name] = (colour, np.array([by_day.get(day, math.nan) for day in days]))
        cards.append((label, report_plots.drift_plot(days, lines, label, f"Drift of {label}", level=level)))
    return cards


def _parts(board: Board) -> str:
    names = list(
        dict.fromkeys(key.split("|", 1)[1] for row in board.rows for key in row.metrics if key.startswith("members|"))
    )
    if not names:
        return ""
    longest = board.horizons[-1]
    rows = [row for row in board.rows if not _is_zero(row)]
    body = []
    for name in names:
        members = rows[0].metrics.get(f"members|{name}", math.nan) if rows else math.nan
        payers = rows[0].at("payers", longest, name) if rows else math.nan
        cells = [f"{members:,.0f}", percent(payers), *(number(row.at("gini", longest, name)) for row in rows)]
        columns = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        body.append(f'<tr><td class="method">{escape(name)}</td>{columns}</tr>')
    heads = ["members", "payers", *(row.method for row in rows)]
    top = "".join(f'<th class="number" scope="col">{escape(head)}</th>' for head in heads)
    return (
        '<h2>Cold, warm, new and old</h2><section class="card">'
        f'<p class="note">Normalised Gini at {longest:g} days, the '
        "mean over origins where it is defined. Cold: not there yet when the method was fitted.</p>"
        f'<div class="scroll"><table><thead><tr><th scope="col">part</th>{top}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></section>"
    )


def _front(front: Front | None) -> str:
    if front is None or not plots.available():
        return ""
    return (
        '<h2>The front</h2><section class="card"><p class="note">Validation losses of a sweep over preferences between '
        "horizons, a line a run, less those of the models trained for one horizon each: below 0 is better than they. "
        f"{int(front.on_front.sum())} of {len(front.losses)} runs are on the front: no other is as low at all "
        f"{len(front.horizons)} horizons and lower at one.</p>{front_svg(front)}</section>"
    )


def _method(boards: Sequence[Board]) -> str:
    cells = [one for board in boards for row in board.rows for one in row.cells]
    first = cells[0]
    origins = sorted({str(one.settings["origin"]) for one in cells})
    versions = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    asked = {name: first.settings[name] for name in ("unit", "who", "days", "since", "count_first", "horizons", "val")}
    facts = [
        ("origins", f"{len(origins)} test origins: {', '.join(origins)}. A method learns from the origins before each, "
         "whose labels are complete by then; graph, statistics and scaling know only events before the origin."),
        ("asked", ", ".join(f"{name} = {value}" for name, value in asked.items())),
        ("cells", f"{len(cells)}, {math.fsum(one.seconds for one in cells):,.0f} seconds, at most "
         f"{max(one.peak_memory for one in cells) / 2**20:,.0f} MiB"),
        ("interval", "percentile bootstrap over users, the same draws for both methods; it says nothing about other "
         "months or seeds."),
        ("versions", versions),
    ]  # fmt: skip
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return f'<h2>How it was measured</h2><section class="card"><dl>{listed}</dl></section>'


def _mean(curves: Sequence[np.ndarray]) -> np.ndarray:
    defined = [curve for curve in curves if np.isfinite(curve).all()]
    return np.mean(defined, axis=0) if defined else np.asarray(curves[0])
