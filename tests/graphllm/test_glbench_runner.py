"""The runner: what it shows to methods, what it keeps, what it does when one fails; the command line; the page."""

import json

import pytest
import torch
from planted import WordVectors, planted
from recorders import STOCK, Broken, Recorder, Shy
from typer.testing import CliRunner

from graphfm.cli import app
from graphfm.graphllm import Setup, Stock, ZeroShot, failures, find_method, methods, run
from graphfm.graphllm.choose import choose, points
from graphfm.graphllm.classical import GCN, LabelPropagation, LMHead
from graphfm.graphllm.commands import _chosen
from graphfm.graphllm.page import write_glbench_report
from graphfm.graphllm.protocol import glbench_split
from graphfm.graphllm.runner import FAILURES, RESULTS
from graphfm.graphllm.standings import standings
from graphfm.graphllm.stock import Remembered
from graphfm.graphllm.texts import as_tag
from graphfm.graphllm.zeroshot import TextCosine, TextPropagation
from graphfm.results import read


class Curious(ZeroShot):
    """Writes down what it is handed."""

    family = "zero-shot"
    seen = []  # noqa: RUF012

    def fit(self, sources):
        Curious.seen.append([source.name for source in sources])
        return self

    def predict(self, data):
        Curious.seen.append(sorted(data.keys()))
        return torch.ones(data.num_nodes, 4)


@pytest.fixture
def graph():
    return planted(0, nodes=200)


def test_methods_see_no_label_that_they_may_not(graph, tmp_path):
    Recorder.seen.clear()
    found = run([graph], [Recorder], stock=STOCK, out=tmp_path, seeds=[0])
    data, split = Recorder.seen[0]
    assert (data.y[split.test] == -1).all()
    assert len(Recorder.seen) == 2, "one fit for each setting of the small grid"
    assert found[0].settings["chosen"] in ({"bias": 0.0}, {"bias": 1.0})
    Curious.seen.clear()
    run([graph], [Curious], stock=STOCK, out=tmp_path, setup=Setup(setting="zero-shot"), seeds=[0])
    assert Curious.seen[0] == []
    assert {"y", "train_mask", "val_mask", "test_mask"}.isdisjoint(Curious.seen[1])


def test_a_supervised_cell_tells_its_accuracy_on_validation_nodes(graph, tmp_path):
    found = run([graph], [Recorder, Shy], stock=STOCK, out=tmp_path, seeds=[0, 2])
    for one in found:
        val = glbench_split(graph, one.seed).val
        right = graph.y[val] == (0 if one.settings["chosen"]["bias"] else 1)
        if one.method == "Shy":  # no answer is a wrong one
            right &= val % 2 == 1
        assert one.metrics["val_accuracy"] == pytest.approx(right.double().mean().item())
    few = run([graph], [Recorder], stock=STOCK, out=tmp_path, setup=Setup(setting="few-shot"), seeds=[0])
    assert "val_accuracy" not in few[0].metrics


def test_what_is_measured_is_not_measured_again(graph, tmp_path):
    Recorder.seen.clear()
    first = run([graph], [Recorder], stock=STOCK, out=tmp_path, setup=Setup(grid="one"), seeds=range(2))
    again = run([graph], [Recorder], stock=STOCK, out=tmp_path, setup=Setup(grid="one"), seeds=range(3))
    assert len(Recorder.seen) == 3
    assert [r.seed for r in again] == [0, 1, 2]
    assert again[:2] == first
    assert len(read(tmp_path / RESULTS)) == 3


def test_settings_are_chosen_on_validation_nodes(graph):
    from graphfm.graphllm.texts import only_labels_of

    data = as_tag(graph)
    data.y = torch.where(data.y == 0, 0, 0)  # all is class 0: bias 1 is right, bias 0 is wrong
    data.y[0] = 1
    split = glbench_split(data, 0)
    _, setting, scores = choose(lambda s: Recorder(**s), points(Recorder, "small"), only_labels_of(data, split), split)
    assert setting == {"bias": 1.0}
    assert (scores.argmax(1) == 0).all()
    assert points(GCN, "published")[0] == {"hidden": 16, "layers": 2, "dropout": 0.3}
    assert len(points(GCN, "published")) == 24
    assert len(points(GCN, "one")) == 1
    with pytest.raises(ValueError, match="grid"):
        points(GCN, "huge")


def test_a_failure_is_written_down_and_passed_over(graph, tmp_path):
    found = run([graph], [Broken, Recorder], stock=STOCK, out=tmp_path, setup=Setup(grid="one"), seeds=range(3))
    assert [(r.method, r.seed) for r in found] == [
        ("Broken", 0), ("Recorder", 0), ("Recorder", 1), ("Broken", 2), ("Recorder", 2),
    ]  # fmt: skip
    failed = failures(tmp_path)
    assert [(one["method"], one["seed"], one["error"]) for one in failed] == [
        ("Broken", 1, "RuntimeError: out of luck")
    ]
    assert "out of luck" in write_glbench_report(tmp_path).read_text()
    run([graph], [Broken], stock=STOCK, out=tmp_path, setup=Setup(grid="one"), seeds=[1])
    assert len((tmp_path / FAILURES).read_text().splitlines()) == 2, "tried again"
    assert len(failures(tmp_path)) == 1


def test_unanswered_nodes_are_counted(graph, tmp_path):
    (one,) = run([graph], [Shy], stock=STOCK, out=tmp_path, setup=Setup(grid="one"), seeds=[0])
    assert 0.3 < one.metrics["unknown_rate"] < 0.7
    assert one.metrics["accuracy"] < 1 - one.metrics["unknown_rate"]


def test_cells_hold_their_cost_and_their_encoder(graph, tmp_path):
    found = run([graph], [GCN, LMHead], stock=STOCK, out=tmp_path, setup=Setup(grid="one"), seeds=[0])
    first, second = found
    assert first.settings["encoder"] == "word-vectors"
    assert first.metrics["encode_seconds"] == second.metrics["encode_seconds"] > 0
    assert first.seconds > 0
    assert first.peak_memory > 0
    assert first.settings["trained_parameters"] > second.settings["trained_parameters"] == 24 * 4 + 4


def test_few_shot_takes_its_labels_and_no_more(graph, tmp_path):
    Recorder.seen.clear()
    run([graph], [Recorder], stock=STOCK, out=tmp_path, setup=Setup(setting="few-shot", shots=3), seeds=[0])
    data, split = Recorder.seen[0]
    assert split.train.numel() == 12
    assert int((data.y >= 0).sum()) == 12
    assert len(Recorder.seen) == 1, "nothing to choose by"


def test_overlapping_sources_are_refused_or_left_out(graph, tmp_path):
    copy, other = planted(0, nodes=200), planted(5, nodes=200, classes=("fig", "gold", "hat", "ink"), filler="s")
    copy.name, other.name = "copy", "other"
    Curious.seen.clear()
    options = {"stock": STOCK, "out": tmp_path, "setup": Setup(setting="zero-shot"), "seeds": [0]}
    with pytest.raises(ValueError, match="'copy' holds"):
        run([graph], [Curious], sources=[copy, other], **options)
    run([graph], [Curious], sources=[copy, other], leave_out_overlapping=True, **options)
    assert Curious.seen[0] == ["other"]


def test_what_cannot_be_run_is_said_at_once(graph, tmp_path):
    with pytest.raises(ValueError, match="GCN needs encoder"):
        run([graph], [GCN], stock=Stock(), out=tmp_path)
    with pytest.raises(ValueError, match="none of the zero-shot setting"):
        run([graph], [GCN], stock=STOCK, out=tmp_path, setup=Setup(setting="zero-shot"))
    for bad in ({"setting": "sup"}, {"grid": "big"}, {"labels": "none"}, {"shots": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Setup(**bad)
    with pytest.raises(ValueError, match="Did you mean GCN"):
        find_method("GCNN")
    with pytest.raises(ValueError, match="is no graphfm"):
        find_method("json:JSONDecoder")


def test_an_encoder_is_asked_once_for_the_same_texts():
    class Counting(WordVectors):
        calls = 0

        def encode(self, texts):
            Counting.calls += 1
            return super().encode(texts)

    encoder = Remembered(Counting())
    assert torch.equal(encoder.encode(["a", "b"]), encoder.encode(["a", "b"]))
    assert Counting.calls == 1
    first = encoder.seconds
    encoder.new_cell()
    encoder.encode(["a", "b"])
    assert encoder.seconds == first > 0
    assert encoder.paid == 0


def test_standings_and_page(tmp_path):
    graphs = [planted(seed, nodes=150) for seed in range(3)]
    setup = Setup(grid="one")
    run(graphs, [LabelPropagation, LMHead, Recorder], stock=STOCK, out=tmp_path, setup=setup, seeds=range(2))
    run(
        graphs[:2],
        [TextCosine, TextPropagation],
        stock=STOCK,
        out=tmp_path,
        setup=Setup(setting="zero-shot"),
        seeds=[0],
    )
    supervised, zero = standings(read(tmp_path / RESULTS))
    assert supervised.setting == "supervised"
    assert supervised.common == ("planted-0", "planted-1", "planted-2")
    assert {line.method for line in supervised.lines} == {"LabelPropagation", "LMHead", "Recorder"}
    assert [line.rank for line in supervised.lines] == sorted(line.rank for line in supervised.lines)
    assert len(zero.datasets) == 2
    page = write_glbench_report(tmp_path, tmp_path / "deep" / "page.html", title="A <b>title</b>").read_text()
    assert "A &lt;b&gt;title" in page
    assert "Friedman over 3 datasets" in page
    assert page.count("<section") > 6
    with pytest.raises(ValueError, match="empty"):
        standings([])
    with pytest.raises(FileNotFoundError):
        write_glbench_report(tmp_path / "nothing")


def test_methods_that_tune_an_encoder_run_when_they_are_named(capsys):
    stock = Stock(encoder=object(), tunable=object())
    found = _chosen([], "supervised", stock)
    assert found
    assert not any("tunable" in method.needs for method in found)
    assert "LMTuning" in capsys.readouterr().out
    assert _chosen(["LMTuning"], "supervised", stock) == [find_method("LMTuning")]


def test_methods_that_learn_from_sources_are_left_out_without_any(capsys):
    stock = Stock(encoder=WordVectors())
    found = {one.__name__ for one in _chosen([], "zero-shot", stock, sources=False)}
    assert found == {"TextCosine", "TextPropagation"}
    assert "FrozenZeroG, OFAZeroShot" in capsys.readouterr().out
    assert {"FrozenZeroG", "OFAZeroShot"} < {one.__name__ for one in _chosen([], "zero-shot", stock)}
    assert _chosen(["OFAZeroShot"], "zero-shot", stock, sources=False) == [find_method("OFAZeroShot")]
    for one in methods().values():
        if issubclass(one, ZeroShot) and one.learns and one.needs == ("encoder",):
            with pytest.raises(ValueError, match="sources is empty"):
                one(WordVectors()).fit([])


def folder_of(graph, folder):
    """The graph as the tables of a user."""
    folder.mkdir()
    edges = "\n".join(f"{a},{b}" for a, b in graph.edge_index.t().tolist())
    (folder / "edges.csv").write_text(f"source,target\n{edges}\n")
    lines = [
        f"{i},{graph.label_text[int(y)]},{text}" for i, (y, text) in enumerate(zip(graph.y, graph.text, strict=True))
    ]
    (folder / "nodes.csv").write_text("id,label,text\n" + "\n".join(lines) + "\n")
    return folder


def test_command_line_without_labels_and_with_few(tmp_path):
    command = lambda *words: CliRunner().invoke(app, ["glbench", *map(str, words)], env={"COLUMNS": "200"})  # noqa: E731
    target = folder_of(planted(0, nodes=120), tmp_path / "target")
    source = folder_of(planted(1, nodes=120, classes=("fig", "gold", "hat", "ink"), filler="z"), tmp_path / "source")
    words = ("--datasets", target, "--seeds", 1, "--out")
    done = command("run", *words, tmp_path / "zero", "--setting", "zero-shot", "--sources", f"{source},{target}",
                   "--leave-out-overlapping", "--labels", "names", "--methods", "TextPropagation")  # fmt: skip
    assert done.exit_code == 0, done.output
    (cell,) = read(tmp_path / "zero" / RESULTS)
    assert (cell.settings["sources"], cell.settings["labels"]) == (["source"], "names")
    refused = command("run", *words, tmp_path / "x", "--setting", "zero-shot", "--sources", target)
    assert refused.exit_code == 2
    assert "among its own sources" in " ".join(refused.output.replace("│", " ").split())
    few = ("--setting", "few-shot", "--shots", 3, "--device", "cpu", "--methods", "LabelPropagation")
    done = command("run", *words, tmp_path / "few", *few)
    assert done.exit_code == 0, done.output
    (cell,) = read(tmp_path / "few" / RESULTS)
    assert (cell.settings["shots"], cell.settings["split"]) == (3, "3 a class / rest")
    down = ("--chat", "http://127.0.0.1:9/v1", "--model", "none", "--max-requests", 2)
    failed = command("run", *words, tmp_path / "down", "--setting", "zero-shot", "--methods", "ChatZeroShot", *down)
    assert failed.exit_code == 1, "nothing was measured"
    assert "max_requests is 2" in failed.output
    assert "1 failed" in failed.output


def test_command_line(tmp_path):
    command = lambda *words: CliRunner().invoke(app, ["glbench", *map(str, words)], env={"COLUMNS": "200"})  # noqa: E731
    listed = command("list").output.splitlines()
    assert len(listed) == 1 + len(methods())
    assert any(line.startswith("LabelPropagation") and line.endswith("nothing") for line in listed)
    folder_of(planted(0, nodes=120), tmp_path / "g")
    out = tmp_path / "out"
    words = ("--datasets", tmp_path / "g", "--methods", "labelpropagation,LMHead", "--seeds", 2, "--grid", "one")
    done = command("run", *words, "--out", out)
    assert done.exit_code == 0, done.output
    assert "4 cells" in done.output
    assert json.loads((out / RESULTS).read_text().splitlines()[0])["dataset"] == "g"
    assert command("report", out).exit_code == 0
    assert (out / "report.html").stat().st_size > 5000
    assert command("run", "--datasets", tmp_path / "g", "--setting", "other", "--out", out).exit_code == 2
    refused = command("run", *words, "--precision", "bfloat16", "--out", out)
    assert refused.exit_code == 2
    assert "is for encoders with weights" in " ".join(refused.output.split())
    words = (*words, "--chat", "http://127.0.0.1:9/v1", "--model", "none", "--out", out)
    for options, told in (
        (("--prices", "cheap"), "must be two numbers, as in 0.15,0.6, got 'cheap'"),
        (("--budget", "5"), "budget needs prices"),
    ):
        refused = command("run", *words, *options)
        assert refused.exit_code == 2
        assert told in " ".join(refused.output.replace("│", " ").split())
