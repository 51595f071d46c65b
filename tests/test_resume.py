"""Runs that are stopped, or meet a loss they cannot go on with, against runs that were not."""

import signal
import threading

import pytest
import torch
from stopped_runs import WIDTH, Interrupting, same, sigterm, small_graphs, train

import graphfm
from graphfm.backbones import FAGCN
from graphfm.checkpoint import CheckpointError, read_bundle
from graphfm.data.features import Unifier
from graphfm.objectives import GraphCL, SimGRACE
from graphfm.samplers import RandomWalks
from graphfm.training import PretrainingStopped


@pytest.fixture(scope="module")
def sources():
    return small_graphs()


# Stopped and taken up again


@pytest.mark.parametrize("objective", [GraphCL(), SimGRACE()])
@pytest.mark.parametrize("coordinators", [None, graphfm.Coordinators(2)])
def test_more_epochs_later_are_the_same_as_at_once(sources, tmp_path, objective, coordinators):
    options = {"objective": objective, "coordinators": coordinators}
    whole = train(sources, **options)
    train(sources, epochs=2, checkpoint=tmp_path, **options)
    torch.rand(5)
    assert same(whole, train(sources, checkpoint=tmp_path, resume=True, **options))


@pytest.mark.parametrize("at", [1, 2, 7, 10, 11, 25])
def test_sigterm_in_the_middle_of_an_epoch(sources, tmp_path, at):
    plain = Interrupting(0, None)
    whole = train(sources, objective=plain)
    with pytest.raises(PretrainingStopped, match=r"stopped by SIGTERM after .*resume=True"):
        train(sources, objective=Interrupting(at, sigterm), checkpoint=tmp_path)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    settings, _ = read_bundle(tmp_path, "training")
    batches = -(-int(whole.card["sampling"]["samples"]) // 10)
    assert settings["epoch"] * batches + settings["step"] == at
    assert same(whole, train(sources, objective=plain, checkpoint=tmp_path, resume=True))


def test_sigterm_at_the_very_end_is_not_swallowed(sources, tmp_path):
    plain = Interrupting(0, None)
    whole = train(sources, objective=plain)
    last = 4 * -(-int(whole.card["sampling"]["samples"]) // 10)
    with pytest.raises(PretrainingStopped, match="SIGTERM"):
        train(sources, objective=Interrupting(last, sigterm), checkpoint=tmp_path)
    assert same(whole, train(sources, objective=plain, checkpoint=tmp_path, resume=True))


def test_sigterm_without_a_folder_says_that_nothing_was_kept(sources):
    with pytest.raises(PretrainingStopped, match="no checkpoint folder was given, so nothing was kept"):
        train(sources, objective=Interrupting(3, sigterm))


def test_in_another_thread_signals_are_left_alone(sources):
    found = []
    thread = threading.Thread(target=lambda: found.append(train(sources)))
    thread.start()
    thread.join()
    assert same(found[0], train(sources))


def test_resume_without_a_state_begins_at_the_beginning(sources, tmp_path):
    assert same(train(sources), train(sources, checkpoint=tmp_path, resume=True))


def test_a_finished_run_is_only_read(sources, tmp_path):
    whole = train(sources, checkpoint=tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert same(whole, train(sources, checkpoint=tmp_path, resume=True))
    assert before == {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}


def test_a_state_that_would_be_replaced_is_mentioned(sources, tmp_path, caplog):
    train(sources, checkpoint=tmp_path)
    train(sources, checkpoint=tmp_path)
    assert "holds a training state, which this run replaces; resume=True" in caplog.text


def test_checkpoints_come_every_n_epochs_and_at_the_end(sources, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("graphfm.training.TrainingRun.save", lambda run, folder: seen.append(run.epoch))
    train(sources, epochs=7, checkpoint=tmp_path, checkpoint_every=3)
    assert seen == [3, 6, 7]


def test_checkpointing_does_not_change_the_run(sources, tmp_path):
    assert same(train(sources), train(sources, checkpoint=tmp_path))


def test_seconds_add_up_over_the_parts(sources, tmp_path):
    first = train(sources, epochs=2, checkpoint=tmp_path)
    kept, _ = read_bundle(tmp_path, "training")
    second = train(sources, checkpoint=tmp_path, resume=True)
    assert kept["seconds"] <= first.card["seconds"]
    assert second.card["seconds"] > kept["seconds"]


# States of other runs


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 2e-3}, "lr"),
        ({"seed": 2}, "seed"),
        ({"sampler": RandomWalks(0.4, 12, batch_size=8)}, "batch_size"),
        ({"backbone": FAGCN(WIDTH, 8)}, "backbone"),
        ({"backbone": FAGCN(WIDTH, 16, dropout=0.5)}, "backbone"),
        ({"objective": SimGRACE()}, "objective"),
        ({"objective": GraphCL(temperature=0.3)}, "objective"),
        ({"coordinators": None}, "coordinators"),
        ({"unifier": Unifier(WIDTH, rescale=False)}, "unifier"),
    ],
)
def test_a_state_of_another_run_is_refused(sources, tmp_path, change, named):
    train(sources, epochs=1, checkpoint=tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=rf"another run \(it differs in .*{named}"):
        train(sources, checkpoint=tmp_path, resume=True, **change)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_a_state_over_other_graphs_is_refused(sources, tmp_path):
    train(sources, epochs=1, checkpoint=tmp_path)
    other = [g.clone() for g in sources]
    other[1].x = other[1].x + 1e-3
    with pytest.raises(CheckpointError, match=r"another run .*graphs"):
        train(other, checkpoint=tmp_path, resume=True)


def test_fewer_epochs_than_are_done_is_refused(sources, tmp_path):
    train(sources, epochs=3, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="has 3 epochs behind it, epochs is 2"):
        train(sources, epochs=2, checkpoint=tmp_path, resume=True)


# Losses that cannot be gone on with


class Spoiled(GraphCL):
    def __init__(self, at, how):
        super().__init__()
        self._at, self._how, self._calls = at, how, 0

    def __deepcopy__(self, memo):
        return Spoiled(self._at, self._how)

    def forward(self, backbone, batch):
        self._calls += 1
        loss = super().forward(backbone, batch)
        if self._calls != self._at:
            return loss
        if self._how == "gradient":  # finite itself
            return loss + (backbone.lin_in.bias[0] * 0).sqrt()
        return loss * float(self._how)


@pytest.mark.parametrize("how", ["nan", "inf", "1e12", "gradient"])
def test_the_checkpoint_stays_the_last_good_one(sources, tmp_path, how):
    batches = -(-int(train(sources, epochs=0).card["sampling"]["samples"]) // 10)
    kept = tmp_path / "kept"
    train(sources, objective=Spoiled(0, how), epochs=2, checkpoint=kept)
    before = {p.name: p.read_bytes() for p in kept.iterdir() if p.suffix == ".safetensors"}
    run = tmp_path / "run"
    with pytest.raises(PretrainingStopped, match=rf"epoch 3, batch {batches} of {batches} .*last good .*epoch 2\)"):
        train(sources, objective=Spoiled(3 * batches, how), checkpoint=run)
    assert before == {p.name: p.read_bytes() for p in run.iterdir() if p.suffix == ".safetensors"}
    settings, tensors = read_bundle(run, "training")
    assert (settings["epoch"], settings["step"]) == (2, 0)
    assert all(torch.isfinite(v).all() for v in tensors.values() if v.is_floating_point())


def test_sigterm_does_not_keep_a_bad_state(sources, tmp_path):
    train(sources, objective=Spoiled(0, "gradient"), epochs=1, checkpoint=tmp_path)

    class Both(Spoiled):
        def __deepcopy__(self, memo):
            return Both(self._at, self._how)

        def forward(self, backbone, batch):
            if self._calls + 1 == self._at:
                sigterm()
            return super().forward(backbone, batch)

    Both.__name__ = "Spoiled"
    with pytest.raises(PretrainingStopped, match="no longer finite after epoch 2, batch 3"):
        train(sources, objective=Both(3, "gradient"), checkpoint=tmp_path, resume=True)
    assert read_bundle(tmp_path, "training")[0]["epoch"] == 1
