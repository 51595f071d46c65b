"""Two questions to the cells of glbench_tables.py, by differences on the same splits.

1. Do enhancers beat classical GNNs on the same embeddings? Against one classical GNN a cell, the one that is best on
   validation nodes (of equals the first), and against each of them.
2. Does anything zero-shot beat propagation of text embeddings? Against ``TextPropagation``, whose rounds are fixed.

On one dataset the interval is 95 % by Student's t over seeds. Over datasets it is over the datasets' mean differences,
so that five seeds of one graph do not count as five graphs. cora and cora_ml, which share most of their texts, count as
one: the mean of both. A method that lacks datasets is compared over those it has. The three WebKB graphs, of one kind
of pages and the same classes at three universities, are three; beside it stands what comes of it if they are one.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from scipy.stats import t

from graphfm.results import Result
from graphfm.statistics import paired

__all__ = ["GNNS", "answers", "chosen_by_validation", "compare"]

GNNS = ("GCN", "SAGE", "GAT", "GIN", "SGC", "TunedGCN")
KIN = {"tag/cora_ml": "tag/cora"}
KINDS = KIN | {f"tag/webkb_{name}": "webkb" for name in ("texas", "cornell", "wisconsin")}
CHOSEN, FLOOR = "GNN by validation", "TextPropagation"


def chosen_by_validation(cells: Iterable[Result], among: Sequence[str], name: str) -> list[Result]:
    """A cell a dataset and seed under a new ``name``: that of the method with the highest accuracy on validation.

    Raises:
        ValueError: a cell that does not tell its accuracy on validation nodes.
    """
    found: dict[tuple[str, int], list[Result]] = defaultdict(list)
    for one in cells:
        if one.method in among:
            if "val_accuracy" not in one.metrics:
                raise ValueError(f"{one.method} on {one.dataset} lacks val_accuracy; measure it again.")
            found[one.dataset, one.seed].append(one)
    best = []
    for tried in found.values():
        if len(tried) == len(among):  # an interrupted grid must not narrow the choice
            tried.sort(key=lambda one: among.index(one.method))
            best.append(max(tried, key=lambda one: one.metrics["val_accuracy"]))
    return [dataclasses.replace(one, method=name) for one in best]


def compare(cells: Sequence[Result], method: str, baseline: str) -> dict[str, Any] | None:
    """Difference of accuracy by dataset and over them, ``[mean, half of the 95 % interval, n]``; None without any."""
    here: dict[str, list[Any]] = {}
    means: dict[str, float] = {}
    for dataset in dict.fromkeys(one.dataset for one in cells):
        try:
            found = paired([one for one in cells if one.dataset == dataset], method, baseline)
        except ValueError:  # no split in common
            continue
        here[dataset] = _told(found.mean, found.half_width, found.n)
        means[dataset] = found.mean
    if not here:
        return None
    return {
        "over datasets": _over(means, KIN),
        "WebKB as one": _over(means, KINDS),
        "above": sum(mean - half > 0 for mean, half, _ in here.values() if half is not None),
        "below": sum(mean + half < 0 for mean, half, _ in here.values() if half is not None),
        "by dataset": here,
    }


def answers(results: Iterable[Result]) -> dict[str, Any]:
    """Both questions, for all methods of a setting."""
    cells = list(results)
    supervised = [one for one in cells if one.settings["protocol"] == "supervised"]
    zero = [one for one in cells if one.settings["protocol"] == "zero-shot"]
    found: dict[str, Any] = {}
    if any(one.method in GNNS for one in supervised):
        supervised += chosen_by_validation(supervised, GNNS, CHOSEN)
        found[f"supervised, against the {CHOSEN}"] = _all(supervised, CHOSEN)
        enhancers = sorted({one.method for one in supervised if one.settings["group"] in ("enhancer", "alignment")})
        for gnn in GNNS:
            found[f"supervised, against {gnn}"] = {name: compare(supervised, name, gnn) for name in enhancers}
    if any(one.method == FLOOR for one in zero):
        found[f"zero-shot, against {FLOOR}"] = _all(zero, FLOOR)
    return found


def _all(cells: Sequence[Result], baseline: str) -> dict[str, Any]:
    methods = [name for name in dict.fromkeys(one.method for one in cells) if name != baseline]
    return {name: compare(cells, name, baseline) for name in methods}


def _over(means: dict[str, float], kin: dict[str, str]) -> list[Any]:
    """Over the mean differences by dataset, kin under one name."""
    groups: dict[str, list[float]] = defaultdict(list)
    for dataset, mean in means.items():
        groups[kin.get(dataset, dataset)].append(mean)
    found = [math.fsum(group) / len(group) for group in groups.values()]
    n = len(found)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(found) / math.sqrt(n) if n > 1 else math.nan
    return _told(math.fsum(found) / n, half, n)


def _told(mean: float, half: float, n: int) -> list[Any]:
    return [round(100 * mean, 2), None if math.isnan(half) else round(100 * half, 2), n]
