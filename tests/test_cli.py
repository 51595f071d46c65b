"""The command line: what it parses, what it passes on, and how it fails. The verbs are stand-ins."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

import graphfm.data
from graphfm.cli import app
from graphfm.results import Result, append, read

ROOT = Path(__file__).parents[1]


def cell(method="finetune", group="pretrained", seed=0, dataset="wine", accuracy=0.5):
    settings = {"shots": 1, "protocol": "honest", "group": group}
    return Result("node-classification", dataset, method, seed, {"accuracy": accuracy}, settings, 1.0, 1, {})


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def verbs(monkeypatch):
    """Stand-ins for every verb; what they were called with is in ``calls``."""
    calls = {}

    class Model:
        def save(self, path):
            calls["save"] = path

        @staticmethod
        def load(path):
            calls["load"] = path
            return "model"

    def pretrain(graphs, **options):
        calls["pretrain"] = (graphs, options)
        return Model()

    def evaluate(model, data, **options):
        calls.setdefault("evaluate", []).append((model, data.name, options))
        cells = [cell("sgc4", "floor", seed, data.name, 0.4 + 0.1 * seed) for seed in options["seeds"]]
        cells += [cell(name, "pretrained", seed, data.name) for name in options["methods"] for seed in options["seeds"]]
        if options["out"] is not None:
            append(options["out"], cells)
        return cells

    def make(package, name, *arguments, **options):
        return (package, name, *arguments, *([options] if options else []))

    monkeypatch.setitem(sys.modules, "graphfm.pretrain", types.SimpleNamespace(pretrain=pretrain))
    monkeypatch.setitem(sys.modules, "graphfm.evaluate", types.SimpleNamespace(evaluate=evaluate))
    monkeypatch.setitem(sys.modules, "graphfm.names", types.SimpleNamespace(make=make))
    monkeypatch.setattr(graphfm.data, "load", lambda name: types.SimpleNamespace(name=name))
    monkeypatch.setitem(vars(graphfm), "Pretrained", Model)
    monkeypatch.setitem(vars(graphfm), "Coordinators", lambda count: ("coordinators", count))
    return calls


def test_version(run):
    from graphfm._version import __version__

    assert run("--version").output.strip() == f"graphfm {__version__}"


def test_every_command_has_help(run):
    for command in (["data", "list"], ["data", "show"], ["pretrain"], ["transfer"], ["baselines"], ["report"]):
        found = run(*command, "--help")
        assert found.exit_code == 0
        assert "Usage" in found.output


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['graphfm', '--help']\n"
        "from graphfm.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'torch_geometric', 'numpy', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_data_list_and_show(run, monkeypatch):
    entry = types.SimpleNamespace(
        name="ogbn-[x]", kind="ogb", where="download", domain="citations", text=False, extra="ogb"
    )
    numbers = {
        "name": "wine",
        "nodes": 12345,
        "homophily": 0.123456,
        "class_counts": {"a": 3},
        "text": False,
        "y": None,
    }
    monkeypatch.setattr(graphfm.data, "catalogue", lambda: [entry])
    monkeypatch.setattr(graphfm.data, "describe", lambda data: numbers)
    monkeypatch.setattr(graphfm.data, "load", lambda name: name)
    listed = run("data", "list").output
    assert "ogbn-[x]" in listed
    assert 'pip install "graphfm[ogb]"' in listed
    shown = run("data", "show", "wine").output
    assert all(text in shown for text in ("12,345", "0.123", "a: 3", "no", "class counts"))


def test_pretrain_passes_on_what_was_asked(run, verbs, tmp_path):
    out = tmp_path / "ckpt"
    options = "--sources a,b --sources c --backbone GAT --hidden 64 --objective SimGRACE --coordinators 2 --epochs 3"
    more = f"--batch-size 7 --learning-rate 0.01 --seed 5 --device cpu --resume --out {out}"
    found = run("pretrain", *options.split(), *more.split())
    assert found.exit_code == 0, found.output
    graphs, passed = verbs["pretrain"]
    assert [graph.name for graph in graphs] == ["a", "b", "c"]
    assert passed == {
        "backbone": ("backbones", "GAT", 100, 64),
        "objective": ("objectives", "SimGRACE"),
        "coordinators": ("coordinators", 2),
        "epochs": 3,
        "sampler": ("samplers", "RandomWalks", {"batch_size": 7}),
        "lr": 0.01,
        "seed": 5,
        "device": "cpu",
        "checkpoint": out,
        "resume": True,
        "progress": True,
    }
    assert verbs["save"] == out
    assert str(out) in found.output


def test_pretrain_leaves_defaults_to_the_verb(run, verbs, tmp_path):
    assert run("pretrain", "--sources", "a", "--coordinators", 0, "--out", tmp_path).exit_code == 0
    _, passed = verbs["pretrain"]
    assert passed["coordinators"] is None
    assert passed["sampler"] == ("samplers", "RandomWalks")
    assert not {"epochs", "lr"} & set(passed)


def test_transfer_evaluates_every_target_and_prints_the_table(run, verbs, tmp_path):
    out = tmp_path / "results.jsonl"
    methods = "probe,prompt:GPF(k=5,p=0.1)+adapter:LoRA(rank=8,alpha=2), prototype"
    found = run(
        *("transfer", "--checkpoint", "ckpt", "--target", "wine", "--target", "digits", "--shots", "1,3", "--shots", 5),
        *("--seeds", 3, "--method", methods, "--out", out, "--no-baselines", "--device", "cpu"),
    )
    assert found.exit_code == 0, found.output
    assert verbs["load"] == Path("ckpt")
    assert [(model, name) for model, name, _ in verbs["evaluate"]] == [("model", "wine"), ("model", "digits")]
    assert verbs["evaluate"][0][2] == {
        "methods": ["probe", "prompt:GPF(k=5,p=0.1)+adapter:LoRA(rank=8,alpha=2)", "prototype"],
        "shots": [1, 3, 5],
        "seeds": range(3),
        "baselines": False,
        "ego": None,
        "protocol": "honest",
        "device": "cpu",
        "out": out,
        "progress": True,
    }
    assert all(text in found.output for text in ("wine, 1 label a class", "digits", "prototype", "50.0", str(out)))


def test_baselines_need_no_model(run, verbs):
    found = run("baselines", "--target", "wine", "--seeds", 2)
    assert found.exit_code == 0, found.output
    model, name, passed = verbs["evaluate"][0]
    assert (model, name, passed["methods"], passed["seeds"], passed["out"]) == (None, "wine", [], range(2), None)


def test_report_writes_the_page(run, tmp_path):
    append(tmp_path / "results.jsonl", [cell("sgc4", "floor"), cell()])
    found = run("report", tmp_path / "results.jsonl", "--out", tmp_path / "page.html", "--title", "Mine")
    assert found.exit_code == 0, found.output
    assert "Mine" in (tmp_path / "page.html").read_text()
    assert str(tmp_path / "page.html") in found.output.replace("\n", "")


@pytest.mark.parametrize("shots", ["0", "one", "1,-3", ",", "1.5"])
def test_shots_that_are_no_numbers_are_refused_before_anything_is_loaded(run, verbs, shots):
    found = run("baselines", "--target", "wine", f"--shots={shots}")
    assert found.exit_code == 2
    assert "--shots" in found.output
    assert "evaluate" not in verbs


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x must be [nodes, features],\n got [3]"),
        FileNotFoundError("no such dataset [red]"),
        ImportError('needs pip install "graphfm[ogb]"'),
        PermissionError(13, "Permission denied", "/locked/x"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(run, verbs, monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(graphfm.data, "load", fail)
    found = run("baselines", "--target", "wine")
    assert found.exit_code == 2
    assert len(found.output.strip().splitlines()) == 1
    assert found.output.startswith("Error: ")
    assert all(word in found.output for word in str(error.args[-1]).split())
    assert "Traceback" not in found.output


def test_verbose_keeps_the_traceback(run, verbs, monkeypatch):
    def fail(name):
        raise ValueError("why")

    monkeypatch.setattr(graphfm.data, "load", fail)
    assert isinstance(run("--verbose", "baselines", "--target", "wine").exception, ValueError)


def test_a_file_that_is_not_there_says_what_to_do(tmp_path):
    command = [sys.executable, "-m", "graphfm.cli", "report", str(tmp_path / "none.jsonl")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 2
    assert "graphfm transfer --out" in found.stderr
    assert found.stdout == ""


def test_an_empty_results_file_says_so(run, tmp_path):
    (tmp_path / "results.jsonl").touch()
    assert read(tmp_path / "results.jsonl") == []
    found = run("report", tmp_path / "results.jsonl")
    assert found.exit_code == 2
    assert "holds no results yet" in found.output


def test_python_m_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "graphfm", "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "glbench" in done.stdout
