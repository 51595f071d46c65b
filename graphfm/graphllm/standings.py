"""What a report shows of a folder of cells: means with intervals, ranks, cost, by setting."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from graphfm.graphllm.protocol import SETTINGS
from graphfm.graphllm.ranks import Ranking, rank_methods
from graphfm.report.labels import tell_apart
from graphfm.results import Result, Summary, summarise

__all__ = ["Line", "Standings", "standings"]


@dataclasses.dataclass(frozen=True)
class Line:
    """One method in one setting.

    Attributes:
        method: its name, with what tells it from others of that name.
        family: ``"classical"``, ``"enhancer"``, ...
        accuracy: by dataset.
        macro_f1: by dataset.
        mean: mean accuracy over the datasets that all methods of the setting have; NaN if it lacks one.
        rank: mean rank over them, kin as one; NaN as well, and where it has fewer seeds than most.
        spent: mean seconds a cell by dataset, the texts' encoding included.
        seconds: the mean of that over the datasets that all methods of the setting have; NaN if it lacks one.
        memory: peak of memory, bytes: the median over seeds, of the dataset where it is largest.
        tokens: mean tokens a cell, in and out.
        price: mean price a cell.
        unknown_rate: mean share of nodes without an answer.
    """

    method: str
    family: str
    accuracy: dict[str, Summary]
    macro_f1: dict[str, Summary]
    mean: float
    rank: float
    spent: dict[str, float]
    seconds: float
    memory: int
    tokens: float
    price: float
    unknown_rate: float


@dataclasses.dataclass(frozen=True)
class Standings:
    """All methods of one setting.

    Attributes:
        setting: ``"supervised"``, ``"few-shot, 5 labels a class"``, ``"zero-shot"``.
        datasets: in order of appearance.
        common: those that every ranked method has.
        lines: best mean rank first, then those that are not ranked.
        ranking: the test; None where fewer than two methods share a dataset.
    """

    setting: str
    datasets: tuple[str, ...]
    common: tuple[str, ...]
    lines: tuple[Line, ...]
    ranking: Ranking | None


def standings(results: Iterable[Result], kin: Mapping[str, str] | None = None) -> list[Standings]:
    """Sort cells into settings: supervised, few-shot, zero-shot, and any other as it comes.

    Ranked are the methods that have all of the most datasets that at least half of the methods have, over those; a
    dataset that was measured with fewer seeds than most methods have there does not count. Others are shown but not
    ranked, so that one interrupted method does not shrink the comparison. What zero-shot methods
    learned from differs from target to target and names no method, unless one target was answered from several.

    Args:
        results: the cells.
        kin: datasets that are no independent evidence beside another one, and that one, as two graphs of the same
            texts; in ranks and their test they count as one, with the mean accuracy.

    Raises:
        ValueError: no results.
    """
    cells = list(results)
    if not cells:
        raise ValueError("results is empty: there is nothing to show; `graphfm glbench run` fills it.")
    settings: dict[str, list[Result]] = {}
    place = {name: number for number, name in enumerate(SETTINGS)}
    for one in sorted(cells, key=lambda one: place.get(str(one.settings.get("protocol", "supervised")), len(place))):
        settings.setdefault(_setting(one), []).append(one)
    return [_standings(name, tell_apart(_without_sources(group)), kin or {}) for name, group in settings.items()]


def _without_sources(cells: Sequence[Result]) -> list[Result]:
    """The cells without ``sources`` in their settings, if each target has the same in all of a method's cells."""
    found: dict[tuple[str, str], set[str]] = {}
    for one in cells:
        found.setdefault((one.method, one.dataset), set()).add(str(one.settings.get("sources")))
    if any(len(lists) > 1 for lists in found.values()):
        return list(cells)
    return [
        dataclasses.replace(one, settings={key: value for key, value in one.settings.items() if key != "sources"})
        for one in cells
    ]


def _setting(one: Result) -> str:
    name = str(one.settings.get("protocol", "supervised"))
    return f"{name}, {one.settings.get('shots')} labels a class" if name == "few-shot" else name


def _standings(setting: str, cells: Sequence[Result], kin: Mapping[str, str]) -> Standings:
    accuracy = _by_method(summarise(cells, "accuracy"))
    macro = _by_method(summarise(cells, "macro_f1"))
    datasets = tuple(dict.fromkeys(one.dataset for one in cells))
    whole = _whole(accuracy)
    wanted = _shared(whole)
    ranked = {name: found for name, found in accuracy.items() if wanted <= whole[name]}
    common = tuple(name for name in datasets if name in wanted)
    ranking = None
    if len(ranked) > 1 and common:
        ranking = rank_methods({method: _merged(found, common, kin) for method, found in ranked.items()})
    lines = [_line(name, [one for one in cells if one.method == name], accuracy, macro, common) for name in accuracy]
    place = {} if ranking is None else dict(zip(ranking.methods, ranking.mean_ranks, strict=True))
    lines = [dataclasses.replace(line, rank=place.get(line.method, math.nan)) for line in lines]
    lines.sort(key=lambda line: (math.isnan(line.rank), line.rank, -_defined(line.mean)))
    return Standings(setting, datasets, common, tuple(lines), ranking)


def _whole(accuracy: Mapping[str, Mapping[str, Summary]]) -> dict[str, frozenset[str]]:
    """By method, the datasets that it was measured on with as many seeds as the middle one of the methods there."""
    seeds: dict[str, list[int]] = {}
    for found in accuracy.values():
        for name, one in found.items():
            seeds.setdefault(name, []).append(one.n)
    usual = {name: statistics.median_low(counts) for name, counts in seeds.items()}
    return {
        method: frozenset(name for name, one in found.items() if one.n >= usual[name])
        for method, found in accuracy.items()
    }


def _merged(found: Mapping[str, Summary], common: Sequence[str], kin: Mapping[str, str]) -> dict[str, float]:
    """Mean accuracy by dataset, kin under one name."""
    groups: dict[str, list[float]] = {}
    for name in common:
        groups.setdefault(kin.get(name, name), []).append(found[name].mean)
    return {name: math.fsum(means) / len(means) for name, means in groups.items()}


def _shared(found: dict[str, frozenset[str]]) -> frozenset[str]:
    """The most datasets that at least half of the methods have all of; else those that all have."""
    for wanted in sorted(set(found.values()), key=lambda one: (-len(one), sorted(one))):
        if 2 * sum(wanted <= has for has in found.values()) >= len(found):
            return wanted
    return frozenset.intersection(*found.values())


def _by_method(summaries: Iterable[Summary]) -> dict[str, dict[str, Summary]]:
    found: dict[str, dict[str, Summary]] = {}
    for one in summaries:
        found.setdefault(one.method, {})[one.dataset] = one
    return found


def _line(
    method: str,
    cells: Sequence[Result],
    accuracy: dict[str, dict[str, Summary]],
    macro: dict[str, dict[str, Summary]],
    common: Sequence[str],
) -> Line:
    mine = accuracy[method]
    means = [mine[name].mean for name in common if name in mine]
    whole = len(means) == len(common)
    there = {name: [one for one in cells if one.dataset == name] for name in mine}
    spent = {name: _mean(one.seconds + _number(one, "encode_seconds") for one in got) for name, got in there.items()}
    return Line(
        method=method,
        family=str(cells[0].settings.get("group", "")),
        accuracy=mine,
        macro_f1=macro[method],
        mean=math.fsum(means) / len(means) if means and whole else math.nan,
        rank=math.nan,
        spent=spent,
        seconds=math.fsum(spent[name] for name in common) / len(common) if means and whole else math.nan,
        memory=max(int(statistics.median(one.peak_memory for one in got)) for got in there.values()),
        tokens=_mean(_number(one, "prompt_tokens") + _number(one, "completion_tokens") for one in cells),
        price=_mean(_number(one, "price") for one in cells),
        unknown_rate=_mean(_number(one, "unknown_rate") for one in cells),
    )


def _number(one: Result, metric: str) -> float:
    """A metric, 0 where the cell has none."""
    return _defined(one.metrics.get(metric))


def _defined(value: float | None) -> float:
    return 0.0 if value is None or math.isnan(value) else float(value)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
