"""A folder of cells as one self-contained HTML page."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from graphfm.graphllm.cost_plot import cost_plot
from graphfm.graphllm.ranks import Ranking
from graphfm.graphllm.runner import RESULTS, failures
from graphfm.graphllm.standings import Line, Standings, standings
from graphfm.report.rows import interval, percent, seconds
from graphfm.report.style import CSS
from graphfm.results import Result, Summary, read

__all__ = ["write_glbench_report"]

_MORE = """
td .family { color: var(--muted); font-size: .8rem; }
"""


def write_glbench_report(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "Graphs with text",
    kin: Mapping[str, str] | None = None,
) -> Path:
    """Write the report of a folder that :func:`graphfm.graphllm.run` filled.

    Leaderboard, accuracy against cost, a table for every dataset, what failed, how it was measured. Plots need
    matplotlib (extra ``viz``).

    Args:
        folder: holds ``results.jsonl`` and perhaps ``failures.jsonl``.
        path: the file to write; ``report.html`` in the folder if not given.
        title: heading.
        kin: see :func:`~graphfm.graphllm.standings.standings`.

    Raises:
        FileNotFoundError: the folder holds no results.
        ValueError: none in them.
    """
    cells = read(Path(folder) / RESULTS)
    found = standings(cells, kin)
    path = Path(folder) / "report.html" if path is None else Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{CSS}{_MORE}</style></head><body><main>",
        f'<header><h1>{escape(title)}</h1><p class="verdict">{_headline(found)}</p></header>',
        *(_setting(one) for one in found),
        _failures(folder),
        _measured(cells),
        "</main></body></html>\n",
    ]
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _headline(found: Sequence[Standings]) -> str:
    sentences = []
    for one in found:
        best = next((line for line in one.lines if not math.isnan(line.mean)), None)
        if best is not None:
            many = len(one.common) if one.ranking is None else one.ranking.datasets
            over = f"{many} dataset{'s' if many != 1 else ''}"
            name = f"{one.setting.capitalize()}: {best.method}"
            text = f"{name} has the best mean rank over {over} ({percent(best.mean)} % accuracy)"
            sentences.append(f"{name} alone" if one.ranking is None else text + _level(one.ranking, best.method))
    return escape(". ".join(sentences)) + "." if sentences else "No method was measured on every dataset."


def _level(ranking: Ranking, best: str) -> str:
    """How many others the test cannot tell from the best, as an end to a sentence."""
    if math.isnan(ranking.difference):
        return ""
    others = max((len(group) for group in ranking.groups if best in group), default=1) - 1
    return f"; the test tells it from {len(ranking.methods) - 1 - others} of {len(ranking.methods) - 1} others"


def _setting(one: Standings) -> str:
    plot = cost_plot(one)
    datasets = "".join(_dataset(one, name) for name in one.datasets)
    drawn = f'<section class="card"><h3>Accuracy against cost</h3>{plot}</section>' if plot else ""
    return (
        f"<h2>{escape(one.setting.capitalize())}</h2>"
        f'<section class="card"><h3>Leaderboard</h3><div class="scroll">{_leaderboard(one)}</div>'
        f"{_ranking(one.ranking)}</section>{drawn}{datasets}"
    )


def _leaderboard(one: Standings) -> str:
    heads = ("mean rank", "mean accuracy", "seconds", "peak MiB", "tokens", "price", "no answer")
    columns = "".join(f'<th class="number" scope="col">{name}</th>' for name in heads)
    body = "".join(_standing(line) for line in one.lines)
    return f'<table><thead><tr><th scope="col">method</th>{columns}</tr></thead><tbody>{body}</tbody></table>'


def _standing(line: Line) -> str:
    rank = "-" if math.isnan(line.rank) else f"{line.rank:.2f}"
    cells = (
        rank,
        percent(line.mean),
        "-" if math.isnan(line.seconds) else seconds(line.seconds),
        f"{line.memory / 2**20:,.0f}",
        f"{line.tokens:,.0f}" if line.tokens else "-",
        f"{line.price:.4f}" if line.price else "-",
        f"{percent(line.unknown_rate)} %" if line.unknown_rate else "-",
    )
    numbers = "".join(f'<td class="number">{value}</td>' for value in cells)
    name = f'{escape(line.method)} <span class="family">{escape(line.family)}</span>'
    return f'<tr><td class="method">{name}</td>{numbers}</tr>'


def _ranking(ranking: Ranking | None) -> str:
    if ranking is None or math.isnan(ranking.p_value):
        return '<p class="note">Too few methods or datasets for a test of the ranks.</p>'
    groups = "; ".join(", ".join(group) for group in ranking.groups) or "none"
    return (
        f'<p class="note">Friedman over {ranking.datasets} datasets: p = {ranking.p_value:.2g}. Nemenyi: mean '
        f"ranks that differ by less than {ranking.difference:.2f} cannot be told apart at 5 %. Groups that cannot be: "
        f"{escape(groups)}.</p>"
    )


def _dataset(one: Standings, name: str) -> str:
    lines = [line for line in one.lines if name in line.accuracy]
    lines.sort(key=lambda line: -line.accuracy[name].mean if not math.isnan(line.accuracy[name].mean) else 1.0)
    most = max(line.accuracy[name].n for line in lines)
    best = next(line for line in lines if line.accuracy[name].n == most)  # fewer seeds are no comparison
    body = "".join(_row(line, name, best=line is best, most=most) for line in lines)
    heads = "".join(f'<th class="number" scope="col">{text}</th>' for text in ("accuracy", "macro-F1", "seconds"))
    seeds = f"{most} seed{'s' if most != 1 else ''}"
    return (
        f'<section class="card"><h3>{escape(name)} <span class="small">{escape(one.setting)}, {seeds}</span></h3>'
        f'<div class="scroll"><table><thead><tr><th scope="col">method</th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _row(line: Line, name: str, *, best: bool, most: int) -> str:
    accuracy, macro = line.accuracy[name], line.macro_f1.get(name)
    fewer = f" <small>({accuracy.n} seed{'s' if accuracy.n != 1 else ''})</small>" if accuracy.n < most else ""
    return (
        f'<tr{" class=best" if best else ""}><td class="method">{escape(line.method)}{fewer}</td>'
        f'<td class="number">{_score(accuracy)}</td><td class="number">{_score(macro)}</td>'
        f'<td class="number">{seconds(line.spent[name])}</td></tr>'
    )


def _score(one: Summary | None) -> str:
    return "-" if one is None else escape(interval(one.mean, one.half_width))


def _failures(folder: str | os.PathLike[str]) -> str:
    found = failures(folder)
    if not found:
        return "<h2>Failures</h2><p>None.</p>"
    rows = "".join(
        f'<tr><td class="method">{escape(one["method"])}</td><td>{escape(one["dataset"])}</td>'
        f'<td class="number">{one["seed"]}</td><td>{escape(one["setting"])}</td>'
        f"<td>{escape(one['error'][:300])} <small>{escape(one['where'])}</small></td></tr>"
        for one in found
    )
    heads = "".join(f'<th scope="col">{text}</th>' for text in ("method", "dataset", "seed", "setting", "error"))
    return (
        f'<h2>Failures</h2><section class="card"><div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _measured(cells: Sequence[Result]) -> str:
    facts = [
        ("splits", ", ".join(sorted({f"{one.dataset}: {one.settings.get('split')}" for one in cells}))),
        (
            "choices",
            "Settings of a supervised method are chosen by accuracy on validation nodes, one checkpoint for all "
            "metrics. Few-shot and zero-shot methods choose nothing. Test labels are read by the score alone; "
            "zero-shot methods are given the target without labels.",
        ),
        ("zero-shot", _sources(cells)),
        ("nodes left out, their texts being a source's", _left_out(cells)),
        ("interval", "95 % by Student’s t over seeds, each with a split of its own where the protocol draws splits."),
        ("no answer", "Counts as wrong in accuracy and macro-F1."),
        (
            "cost",
            "Seconds of all settings tried and of the prediction, plus what encoding the texts took when it was first "
            "done. Peak memory is the device's; on a CPU that of the whole process, with all the texts and models that "
            "it holds. Tokens and price are what all answers cost when they were first given.",
        ),
        ("models", _models(cells)),
        ("texts", _texts(cells)),
        ("texts told in part", _shortened(cells)),
        ("prompts that lost their middle", _cut_prompts(cells)),
        ("class descriptions", _described(cells)),
        ("device", ", ".join(sorted({str(one.settings.get("device")) for one in cells}))),
        ("versions", ", ".join(sorted({f"{k} {v}" for one in cells for k, v in one.versions.items()}))),
    ]
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts if text)
    return f'<h2>How it was measured</h2><section class="card"><dl>{listed}</dl></section>'


_READERS = ("encoder", "states", "tunable", "lm")


def _texts(cells: Sequence[Result]) -> str:
    """What text encoders cut, and what they had nothing to read of."""
    found = {
        f"{one.dataset}: {one.metrics['texts_cut']:.0f} cut by {model}, {one.metrics['texts_empty']:.0f} without a word"
        for one in cells
        if "texts_cut" in one.metrics
        and (model := next((one.settings[n] for n in _READERS if n in one.settings), None))
    }
    return "; ".join(sorted(found))


def _shortened(cells: Sequence[Result]) -> str:
    """What methods cut before anything reads it."""
    found = {
        f"{one.dataset}: {one.metrics['texts_shortened']:.0f} by {one.method}"
        for one in cells
        if one.metrics.get("texts_shortened")
    }
    return "; ".join(sorted(found))


def _described(cells: Sequence[Result]) -> str:
    """Which methods read more of the classes than their names."""
    found = sorted({one.method for one in cells if one.settings.get("labels") == "descriptions"})
    return f"Read by {', '.join(found)}; all others read names at most." if found else ""


def _left_out(cells: Sequence[Result]) -> str:
    """Nodes of targets whose text a source holds: where they are test nodes, no score counts them."""
    found = {
        f"{one.dataset}: {one.metrics['left_out']:.0f}"
        for one in cells
        if "sources" in one.settings and one.metrics.get("left_out")
    }
    return "; ".join(sorted(found))


def _cut_prompts(cells: Sequence[Result]) -> str:
    """The share that was longer than a language model reads, of all that a method put to it."""
    asked: dict[str, tuple[float, float]] = {}
    for one in cells:
        if one.metrics.get("prompts"):
            read, cut = asked.get(one.method, (0.0, 0.0))
            asked[one.method] = read + one.metrics["prompts"], cut + one.metrics["prompts_cut"]
    return "; ".join(
        f"{method}: {100 * cut / max(read, 1.0):.1f} % of {read:,.0f}" for method, (read, cut) in sorted(asked.items())
    )


def _models(cells: Sequence[Result]) -> str:
    """Which model served which need, and of whom if not of all methods that have such a need."""
    told = []
    for need in (*_READERS, "chat"):
        served: dict[str, set[str]] = {}
        for one in cells:
            if need in one.settings:
                served.setdefault(str(one.settings[need]), set()).add(one.method)
        for name, methods in sorted(served.items()):
            told.append(f"{need} {name} ({', '.join(sorted(methods))})")
    return "; ".join(told)


def _sources(cells: Sequence[Result]) -> str:
    found = {
        f"{one.dataset} from {', '.join(one.settings['sources']) or 'no source'}"
        for one in cells
        if "sources" in one.settings
    }
    return "; ".join(sorted(found))
