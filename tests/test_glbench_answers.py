"""What the benchmark of graphs with text answers: choice by validation alone, kin as one, by hand."""

import math
from pathlib import Path

import pytest

from graphfm.results import Result

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
T = {1: 12.7062, 2: 4.3027}  # Student's t, 97.5 %, by degrees of freedom


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import glbench_answers

    return glbench_answers


def cell(method, dataset, accuracy, *, seed=0, val=0.5, setting="supervised", group="enhancer"):
    return Result(
        task="text-node-classification", dataset=dataset, method=method, seed=seed,
        metrics={"accuracy": accuracy, "val_accuracy": val}, settings={"protocol": setting, "group": group},
        seconds=1.0, peak_memory=0, versions={},
    )  # fmt: skip


def test_the_reference_is_chosen_by_validation_and_only_among_all(script):
    cells = [
        cell("GCN", "a", 0.9, val=0.4), cell("GAT", "a", 0.1, val=0.6), cell("SGC", "a", 0.5, val=0.6),
        cell("GCN", "b", 0.9, val=0.4), cell("GAT", "b", 0.8, val=0.3),
    ]  # fmt: skip
    (found,) = script.chosen_by_validation(cells, ("GCN", "GAT", "SGC"), "chosen")
    assert (found.method, found.dataset, found.metrics["accuracy"]) == ("chosen", "a", 0.1)
    del cells[0].metrics["val_accuracy"]
    with pytest.raises(ValueError, match="GCN on a lacks val_accuracy"):
        script.chosen_by_validation(cells, ("GCN", "GAT", "SGC"), "chosen")


def test_kin_count_as_one_and_seeds_are_paired(script):
    above = {"tag/cora": 0.10, "tag/cora_ml": 0.30, "debian": 0.06, "tag/webkb_texas": -0.08, "tag/webkb_cornell": 0.0}
    cells = [
        cell(name, dataset, level + (0.001 * seed + gain if name == "M" else 0.0), seed=seed)
        for dataset, gain in above.items()
        for seed, level in enumerate((0.3, 0.6))
        for name in ("M", "base")
    ]
    cells.append(cell("M", "debian", 0.99, seed=7))  # without a baseline it is no pair
    found = script.compare(cells, "M", "base")
    means = [20.05, 6.05, -7.95, 0.05]
    mean = sum(means) / 4
    spread = math.sqrt(sum((one - mean) ** 2 for one in means) / 3 / 4)
    assert found["over datasets"] == [pytest.approx(mean, abs=0.01), pytest.approx(3.1824 * spread, abs=0.02), 4]
    fewer = [20.05, 6.05, -3.95]
    mean = sum(fewer) / 3
    spread = math.sqrt(sum((one - mean) ** 2 for one in fewer) / 2 / 3)
    assert found["WebKB as one"] == [pytest.approx(mean, abs=0.01), pytest.approx(T[2] * spread, abs=0.02), 3]
    assert found["by dataset"]["debian"] == [6.05, pytest.approx(T[1] * 0.05, abs=0.01), 2]
    assert (found["above"], found["below"]) == (3, 1)
    assert script.compare(cells, "M", "nobody") is None


def test_both_questions(script):
    cells = [cell(name, "a", 0.5, group="classical") for name in script.GNNS]
    cells += [cell("M", "a", 0.6), cell("Z", "a", 0.4, setting="zero-shot"), cell("L", "a", 0.4, group="lm")]
    cells += [cell("TextPropagation", "a", 0.3, setting="zero-shot")]
    found = script.answers(cells)
    assert found["supervised, against the GNN by validation"]["M"]["over datasets"] == [10.0, None, 1]
    assert set(found["supervised, against GCN"]) == {"M"}
    assert found["zero-shot, against TextPropagation"]["Z"]["over datasets"] == [10.0, None, 1]
