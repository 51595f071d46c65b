"""Results: the file survives what happens to files, and the statistics agree with scipy.stats."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from graphfm.results import (
    Result,
    append,
    best_baseline,
    cell_key,
    done,
    environment,
    paired,
    peak_memory,
    read,
    summarise,
)


def cell(method="finetune", seed=0, accuracy=0.5, *, dataset="cora", shots=1, group="pretrained", seconds=1.0, **more):
    settings = {"shots": shots, "protocol": "honest", "group": group, "device": "cpu"} | more
    return Result("node-classification", dataset, method, seed, {"accuracy": accuracy}, settings, seconds, 1, {})


# ---------------------------------------------------------------------------------------------------------- the file


def test_cells_come_back_as_they_went(tmp_path):
    path = tmp_path / "new" / "folder" / "results.jsonl"
    one = cell(accuracy=0.25, sources=["cora", "photo"], temperature=None)
    append(path, [one])
    append(path, cell(seed=1, name="naïve ✓\n"))
    assert read(path) == [one, cell(seed=1, name="naïve ✓\n")]
    assert len(path.read_text().splitlines()) == 2


def test_nothing_to_append_makes_no_file(tmp_path):
    append(tmp_path / "results.jsonl", [])
    assert not (tmp_path / "results.jsonl").exists()


def test_nan_is_null_on_disk_and_nan_again_in_memory(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [cell(accuracy=math.nan, ratio=math.inf)])
    text = path.read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no strict JSON"))
    back = read(path)[0]
    assert math.isnan(back.metrics["accuracy"])
    assert back.settings["ratio"] is None


def test_array_scalars_are_numbers(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [cell(seed=np.int64(3), accuracy=torch.tensor(0.5), rate=np.float32(0.25), sizes=(1, 2))])
    back = read(path)[0]
    assert (back.seed, back.metrics["accuracy"], back.settings["rate"]) == (3, 0.5, 0.25)
    assert back.settings["sizes"] == [1, 2]


@pytest.mark.parametrize("value", [object(), torch.zeros(2), {1, 2}])
def test_a_setting_that_json_cannot_hold_is_named_and_nothing_is_written(tmp_path, value):
    path = tmp_path / "results.jsonl"
    with pytest.raises(ValueError, match=r"result\['settings'\]\['odd'\]"):
        append(path, [cell(), cell(odd=value)])
    assert not path.exists()


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_last_line_is_skipped_and_written_past(tmp_path, caplog, cut):
    path = tmp_path / "results.jsonl"
    append(path, [cell(), cell(seed=1)])
    os.truncate(path, path.stat().st_size - cut - 1)
    with caplog.at_level(logging.WARNING):
        assert read(path) == [cell()]
        assert "line 2 is torn" in caplog.text
        append(path, [cell(seed=2)])
        assert read(path) == [cell(), cell(seed=2)]
    assert [line[:1] for line in path.read_bytes().splitlines()] == [b"{"] * 3


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [cell()])
    os.truncate(path, path.stat().st_size - 1)
    append(path, [cell(seed=1)])
    assert read(path) == [cell(), cell(seed=1)]


def test_nuls_of_a_power_cut_are_passed_over(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [cell()])
    with path.open("ab") as file:
        file.write(b"\0" * 100)
    append(path, [cell(seed=1)])
    assert read(path) == [cell(), cell(seed=1)]


@pytest.mark.parametrize(
    "text", ["name,accuracy\ncora,0.5\n", "[1, 2]\n", '{"a": 1}\n', '{\n  "a": 1\n}\n', "\x89PNG\r\n"]
)
def test_another_kind_of_file_is_refused(tmp_path, text):
    path = tmp_path / "other"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="is no results file"):
        read(path)


def test_fields_of_the_wrong_kind_are_refused(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [cell()])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": 3}))
    with pytest.raises(ValueError, match="line 1"):
        read(path)


def test_a_field_of_a_later_version_is_passed_over(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [cell()])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mood": "good"}))
    assert read(path) == [cell()]


def test_appending_to_another_kind_of_file_leaves_it_alone(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("<html>")
    with pytest.raises(ValueError, match="something else than results"):
        append(path, [cell()])
    assert path.read_text() == "<html>"


def test_no_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results file at"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)
    assert done(tmp_path / "none.jsonl") == set()


def test_an_unwritable_place_is_named_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="choose a file in a folder you may write to") as caught:
        append(tmp_path / "file" / "results.jsonl", [cell()])
    assert str(tmp_path / "file") in str(caught.value)


def test_a_folder_without_rights_raises_permission_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match="folder you may write to"):
        append(tmp_path / "results.jsonl", [cell()])


def test_a_full_disk_loses_nothing_that_was_there(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, [cell()])
    before = path.read_bytes()
    code = (
        "import resource, sys; from graphfm.results import append, read\n"
        f"limit = {len(before) + 40}\n"
        "one = read(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "try: append(sys.argv[1], one)\n"
        "except OSError as error: print(error)\n"
    )
    done_ = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert "what was there before is kept" in done_.stdout
    assert path.read_bytes() == before  # the 40 bytes that went through are gone again


def test_two_processes_may_append_to_one_file(tmp_path):
    path = tmp_path / "results.jsonl"
    code = (
        "import sys; from graphfm.results import Result, append\n"
        "for seed in range(200):\n"
        "    append(sys.argv[1], [Result('t', 'd', sys.argv[2], seed, {}, {'pad': 'x' * 5000}, 0.0, 0, {})])\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("a", "b")]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = {(one.method, one.seed) for one in read(path)}
    assert found == {(name, seed) for name in ("a", "b") for seed in range(200)}
    assert len(path.read_text().splitlines()) == 400


# ---------------------------------------------------------------------------------------------------------- identity


def test_a_cell_is_the_same_on_another_device_and_another_with_other_settings(tmp_path):
    assert cell_key(cell(device="cpu")) == cell_key(cell(device="cuda:0", threads=4))
    others = [
        cell(),
        cell(seed=1),
        cell(shots=3),
        cell(protocol="paper"),
        cell(lr=0.1),
        cell("probe"),
        cell(dataset="x"),
    ]
    assert len({cell_key(one) for one in others}) == len(others)
    append(tmp_path / "results.jsonl", others)
    assert done(tmp_path / "results.jsonl") == {cell_key(one) for one in others}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=6), json_values, max_size=4))
def test_the_key_survives_the_file(tmp_path_factory, settings):
    one = Result("t", "d", "m", 0, {}, settings, 0.0, 0, {})
    path = tmp_path_factory.mktemp("keys") / "results.jsonl"
    append(path, [one])
    assert done(path) == {cell_key(one)}


# -------------------------------------------------------------------------------------------------------- statistics


def test_intervals_agree_with_scipy():
    values = [0.61, 0.58, 0.7, 0.66, 0.59]
    cells = [cell(seed=seed, accuracy=value, seconds=seed) for seed, value in enumerate(values)]
    (row,) = summarise(cells)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (row.n, row.group, row.shots, row.protocol) == (5, "pretrained", 1, "honest")
    assert row.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert row.std == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert row.half_width == pytest.approx((high - low) / 2, abs=1e-9)
    assert row.seconds == 2.0


def test_rows_keep_targets_shots_and_protocols_apart():
    cells = [cell(), cell(shots=3), cell(protocol="paper"), cell(dataset="photo"), cell("probe")]
    assert [(row.dataset, row.shots, row.protocol, row.method) for row in summarise(cells)] == [
        ("cora", 1, "honest", "finetune"),
        ("cora", 3, "honest", "finetune"),
        ("cora", 1, "paper", "finetune"),
        ("photo", 1, "honest", "finetune"),
        ("cora", 1, "honest", "probe"),
    ]


def test_one_split_has_no_interval_and_repeats_of_it_do_not_make_one():
    (row,) = summarise([cell(accuracy=0.4, pretrain_seed=0), cell(accuracy=0.6, pretrain_seed=1)])
    assert (row.n, row.mean) == (1, pytest.approx(0.5))
    assert math.isnan(row.std)
    assert math.isnan(row.half_width)


def test_undefined_values_are_left_out_and_counted():
    (row,) = summarise([cell(accuracy=0.5), cell(seed=1, accuracy=math.nan), cell(seed=2, accuracy=0.7)])
    assert (row.n, row.undefined, row.mean) == (2, 1, pytest.approx(0.6))


def test_an_unknown_metric_names_those_there_are():
    with pytest.raises(ValueError, match=r"metric='f1'.*accuracy"):
        summarise([cell()], metric="f1")
    assert summarise([]) == []


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
def test_paired_agrees_with_scipy(pairs):
    cells = [cell("a", seed, x) for seed, (x, _) in enumerate(pairs)]
    cells += [cell("b", seed, y) for seed, (_, y) in reversed(list(enumerate(pairs)))]
    found = paired(cells, "a", "b")
    differences = np.array([x - y for x, y in pairs])
    assert found.n == len(pairs)
    assert found.mean == pytest.approx(differences.mean(), abs=1e-12)
    if differences.std() > 1e-6:
        reference = stats.ttest_rel([x for x, _ in pairs], [y for _, y in pairs])
        interval = reference.confidence_interval(0.95)
        assert found.p_value == pytest.approx(reference.pvalue, rel=1e-6, abs=1e-12)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_paired_uses_common_splits_only_and_averages_repeats_first():
    ours = [
        cell("a", 0, 0.5),
        cell("a", 1, 0.4, pretrain_seed=0),
        cell("a", 1, 0.8, pretrain_seed=1),
        cell("a", 7, 0.0),
    ]
    theirs = [cell("b", 0, 0.4), cell("b", 1, 0.3), cell("b", 9, 1.0), cell("b", 7, 0.9, protocol="paper")]
    found = paired(ours + theirs, "a", "b")
    assert (found.n, found.mean) == (2, pytest.approx((0.1 + 0.3) / 2))


def test_paired_at_the_edges():
    one = paired([cell("a", 0, 0.6), cell("b", 0, 0.5)], "a", "b")
    assert (one.n, one.mean) == (1, pytest.approx(0.1))
    assert math.isnan(one.half_width)
    assert math.isnan(one.p_value)
    same = paired([cell(name, seed, 0.5) for name in "ab" for seed in range(3)], "a", "b")
    assert (same.mean, same.half_width, same.p_value) == (0.0, 0.0, 1.0)
    shifted = paired(
        [cell(name, seed, value) for name, value in (("a", 0.75), ("b", 0.5)) for seed in range(3)], "a", "b"
    )
    assert (shifted.mean, shifted.p_value) == (0.25, 0.0)


def test_paired_without_common_cells_says_so():
    with pytest.raises(ValueError, match="share no split"):
        paired([cell("a", 0), cell("b", 1)], "a", "b")


def test_best_baseline():
    cells = [cell("finetune", seed, 0.9) for seed in range(3)]
    cells += [cell("sgc4", seed, 0.6, group="floor") for seed in range(3)]
    cells += [cell("scratch", seed, 0.7, group="control") for seed in range(3)]
    cells += [cell("lucky", 0, 0.99, group="floor")]  # covers one split of three
    cells += [cell("sgc2", seed, 0.8, group="floor", dataset="photo") for seed in range(3)]
    cells += [cell("leaky", seed, 0.95, group="floor", protocol="paper") for seed in range(3)]
    assert best_baseline(cells, "cora", 1) == "scratch"
    assert best_baseline(cells, "cora", 1, groups=("floor",)) == "sgc4"
    assert best_baseline(cells, "cora", 1, protocol="paper") == "leaky"
    assert best_baseline(cells, "cora", 5) is None


def test_best_baseline_compares_on_the_splits_that_are_common():
    cells = [cell("a", seed, value, group="floor") for seed, value in ((0, 0.5), (1, 0.9))]
    cells += [cell("b", seed, value, group="floor") for seed, value in ((0, 0.6), (2, 0.1))]
    assert best_baseline(cells, "cora", 1) == "b"  # on split 0, though its mean is lower
    with pytest.raises(ValueError, match="share no split"):
        best_baseline([cell("a", 0, group="floor"), cell("b", 1, group="floor")], "cora", 1)


# ------------------------------------------------------------------------------------------------------- environment


def test_environment_tells_versions_without_importing_them():
    code = "import sys; from graphfm.results import environment; environment(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    found = environment()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(found) == {"python", "graphfm", "torch", "torch-geometric", "numpy"}


def test_peak_memory_is_in_bytes():
    assert peak_memory("cpu") == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, rel=0.05)
    assert peak_memory() > 50 * 2**20  # torch is loaded


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_of_a_device():
    torch.cuda.reset_peak_memory_stats()
    block = torch.zeros(2**20, device="cuda")
    assert peak_memory(torch.device("cuda")) >= block.numel() * 4


def test_the_module_does_not_import_torch():
    code = "import sys, graphfm.results; assert 'torch' not in sys.modules and 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
