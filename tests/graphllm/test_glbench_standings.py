"""Standings by hand: kin in ranks, and peaks of memory."""

import dataclasses
import re

import pytest

from graphfm.graphllm.cost_plot import cost_plot
from graphfm.graphllm.page import write_glbench_report
from graphfm.graphllm.runner import RESULTS
from graphfm.graphllm.standings import standings
from graphfm.results import Result, append


def cell(method, dataset, accuracy, *, seed=0, memory=0):
    return Result(
        task="text-node-classification", dataset=dataset, method=method, seed=seed, peak_memory=memory,
        metrics={"accuracy": accuracy, "macro_f1": accuracy}, settings={"protocol": "supervised", "group": "classical"},
        seconds=1.0, versions={},
    )  # fmt: skip


# A is best on a and b, C on c and d; where b, c and d are one dataset, C is best on it.
SCORES = {"A": (0.9, 0.9, 0.1, 0.1), "B": (0.5, 0.5, 0.2, 0.2), "C": (0.1, 0.1, 0.9, 0.9)}
CELLS = [cell(name, place, score) for name, got in SCORES.items() for place, score in zip("abcd", got, strict=True)]


@pytest.mark.parametrize(
    ("kin", "datasets", "ranks"),
    [
        ({}, 4, {"A": 2.0, "B": 2.0, "C": 2.0}),
        ({"c": "b", "d": "b"}, 2, {"A": 1.5, "B": 2.5, "C": 2.0}),
        ({"c": "x", "d": "x", "never measured": "a"}, 3, {"A": 5 / 3, "B": 2.0, "C": 7 / 3}),
    ],
)
def test_kin_are_ranked_by_their_mean(kin, datasets, ranks, tmp_path):
    (found,) = standings(CELLS, kin)
    assert found.ranking.datasets == datasets
    assert {line.method: line.rank for line in found.lines} == pytest.approx(ranks)
    assert found.datasets == ("a", "b", "c", "d"), "all are shown"
    for one in CELLS:
        append(tmp_path / RESULTS, one)
    assert f"Friedman over {datasets} datasets" in write_glbench_report(tmp_path, kin=kin).read_text()


def test_a_method_with_fewer_seeds_than_most_is_shown_and_not_ranked():
    cells = [cell(name, place, 0.5, seed=seed) for name in "ABC" for place in "ab" for seed in range(2 + (name == "C"))]
    cells += [cell("D", place, 0.9) for place in "ab"]
    (found,) = standings(cells)
    assert set(found.ranking.methods) == {"A", "B", "C"}
    assert {line.method for line in found.lines} == {"A", "B", "C", "D"}
    assert found.lines[-1].method == "D"


def test_the_headline_says_from_how_many_the_best_is_told(tmp_path):
    scores = {"A": 0.9, "B": 0.88, "C": 0.5, "D": 0.2}
    for name, score in scores.items():
        for place in "abcdefgh":
            append(tmp_path / RESULTS, cell(name, place, score))
    page = write_glbench_report(tmp_path).read_text()
    # Nemenyi at 5 %: 2.569 sqrt(4 * 5 / (6 * 8)) = 1.66, and the ranks are 1, 2, 3, 4.
    assert "A has the best mean rank over 8 datasets (90.0 % accuracy); the test tells it from 2 of 3 others." in page


def test_settings_stand_in_their_order_and_unknown_ones_last():
    cells = [dataclasses.replace(cell("A", "a", 0.5), settings={"protocol": name, "shots": 1})
             for name in ("of another time", "zero-shot", "few-shot", "supervised")]  # fmt: skip
    order = [one.setting for one in standings(cells)]
    assert order == ["supervised", "few-shot, 1 labels a class", "zero-shot", "of another time"]


def test_memory_is_the_median_of_the_seeds_where_it_is_largest():
    peaks = {"a": (1, 2, 900), "b": (5, 7, 6)}
    cells = [cell("A", place, 0.5, seed=i, memory=m) for place, got in peaks.items() for i, m in enumerate(got)]
    (found,) = standings(cells)
    assert found.lines[0].memory == 6


def test_seconds_that_are_near_each_other_still_have_two_ticks():
    pytest.importorskip("matplotlib", reason="the extra that draws is not installed")
    near = [dataclasses.replace(one, seconds=40.0 + i / 100) for i, one in enumerate(CELLS)]
    (found,) = standings(near, {})
    drawn = re.findall(r">\s*([^<>]+?)\s*</text>", cost_plot(found))
    assert {"10", "100"} <= set(drawn), drawn
    assert "1000" not in drawn
