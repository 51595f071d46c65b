"""Tasks by name, and from the command line to the report."""

import pytest
import torch
from typer.testing import CliRunner

import graphfm
from graphfm.cli import app
from graphfm.results import read
from graphfm.tasks.verbs import TASKS, first_method, measure


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200"})


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_its_verb(task, model, communities, shapes) -> None:
    data = shapes if task == "graph" else communities
    options = {"methods": [first_method(task)], "shots": [2], "seeds": [0], "baselines": False, "progress": False}
    (found,) = measure(task, model, data, **options)
    expected = {"node": "node-classification", "cluster": "clustering"}.get(task, task)
    assert (found.task, found.method) == (expected, first_method(task))


def test_unknown_tasks_and_protocols_are_named(communities) -> None:
    options = {"methods": [], "shots": [1], "seeds": [0]}
    with pytest.raises(ValueError, match="task must be one of node, link, graph, cluster, got 'edge'"):
        measure("edge", None, communities, **options)
    with pytest.raises(ValueError, match="protocol 'paper' is of node classification"):
        measure("link", None, communities, protocol="paper", **options)


def test_from_a_checkpoint_to_the_report(run, model, communities, tmp_path) -> None:
    model.save(tmp_path / "ckpt")
    graphfm.data.save_npz(communities, tmp_path / "graph.npz")
    out = tmp_path / "results.jsonl"
    shared = ("--target", tmp_path / "graph.npz", "--seeds", 1, "--out", out)
    links = ("--task", "link", "--method", "cosine", "--negatives", "uniform,corrupt")
    found = run("transfer", "--checkpoint", tmp_path / "ckpt", *shared, *links)
    assert found.exit_code == 0, found.output
    assert "MRR %" in found.output
    found = run("transfer", "--checkpoint", tmp_path / "ckpt", *shared, "--task", "cluster", "--no-baselines")
    assert found.exit_code == 0, found.output
    assert "NMI %" in found.output
    cells = read(out)
    assert {(c.task, c.settings.get("negatives")) for c in cells} == {
        ("link", "uniform"),
        ("link", "corrupt"),
        ("clustering", None),
    }
    found = run("report", out, "--out", tmp_path / "r.html")
    assert found.exit_code == 0, found.output
    assert "links, corrupt negatives" in (tmp_path / "r.html").read_text()


def test_links_from_few_edges(run, model, communities, tmp_path) -> None:
    model.save(tmp_path / "ckpt")
    graphfm.data.save_npz(communities, tmp_path / "graph.npz")
    out = tmp_path / "results.jsonl"
    shared = ("--checkpoint", tmp_path / "ckpt", "--target", tmp_path / "graph.npz", "--seeds", 1, "--no-baselines")
    found = run("transfer", *shared, "--task", "link", "--method", "probe", "--edges", 3, "--out", out)
    assert found.exit_code == 0, found.output
    (cell,) = read(out)
    (same,) = graphfm.tasks.evaluate_links(
        model, graphfm.load(str(tmp_path / "graph.npz")), methods=["probe"], seeds=(0,), shots=3, baselines=False
    )
    assert cell.settings["train_edges"] == 3
    assert cell.metrics == same.metrics
    found = run("transfer", *shared, "--edges", 3, "--out", out)
    assert found.exit_code == 2
    assert "edges is of links; task 'node' has none" in found.output


def test_rules_alone(run, communities, tmp_path) -> None:
    graphfm.data.save_npz(communities, tmp_path / "graph.npz")
    found = run("baselines", "--target", tmp_path / "graph.npz", "--seeds", 1, "--task", "cluster")
    assert found.exit_code == 0, found.output
    assert "Louvain" in found.output


def test_a_task_that_is_none_ends_in_one_line(run, tmp_path) -> None:
    found = run("baselines", "--target", "wine", "--task", "edges")
    assert found.exit_code == 2
    assert "task must be one of node, link, graph, cluster" in found.output


def test_labels_play_no_part_in_links(communities) -> None:
    blind = communities.clone()
    blind.y = torch.zeros_like(communities.y)
    options = {"methods": [], "shots": [1], "seeds": [0], "progress": False}
    first, second = (measure("link", None, data, **options) for data in (communities, blind))
    assert [r.metrics for r in first] == [r.metrics for r in second]
