"""Ranks that die, hang or disagree."""

import contextlib
import os
import signal
import time
from datetime import timedelta

import pytest
from ranks import WIDTH, Interrupting, errors_of, finish, graphs, kill, needs_fork, same, start, train

from graphfm.backbones import GCN
from graphfm.objectives import GraphCL
from graphfm.samplers import RandomWalks


@needs_fork
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_other_with_a_clear_error(tmp_path, rank):
    folder, begun = tmp_path / "run", time.monotonic()
    objective = Interrupting(rank, 12, kill(signal.SIGKILL))
    children = start(
        2, lambda _: train(objective=objective, checkpoint=folder, checkpoint_every=1, epochs=50), tmp_path
    )
    codes = finish(children, 60)
    assert time.monotonic() - begun < 60
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 3
    error = (tmp_path / f"error-{1 - rank}").read_text()
    assert error.startswith(f"PretrainingStopped: rank {1 - rank} of 2: another rank is gone, hangs or came too late")
    assert "the last good checkpoint is" in error
    assert "resume=True" in error
    resumed = train(objective=Interrupting(), checkpoint=folder, resume=True, groups=2, epochs=5)
    assert same(train(objective=Interrupting(), groups=2, epochs=5), resumed)


@needs_fork
@pytest.mark.slow
def test_a_rank_that_hangs_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("graphfm.distributed.PATIENCE", timedelta(seconds=2))
    children = start(2, lambda _: train(objective=Interrupting(1, 5, lambda: time.sleep(60))), tmp_path)
    begun = time.monotonic()
    while not (tmp_path / "error-0").exists() and time.monotonic() - begun < 40:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.kill(children[1], signal.SIGKILL)
    finish(children)
    assert "another rank is gone, hangs or came too late" in (tmp_path / "error-0").read_text()


@needs_fork
@pytest.mark.parametrize(
    ("differs", "named"),
    [
        ("graphs", "graphs"),
        ("lr", "settings"),
        ("sampler", "settings"),
        ("backbone", "backbone, objective, weights or checkpoint"),
        ("objective", "objective"),
        ("coordinators", "coordinators, weights or checkpoint"),
    ],
)
def test_ranks_that_disagree_are_named(tmp_path, differs, named):
    def work(rank):
        sources, options = graphs(), {}
        if rank == 1:
            other = {
                "lr": 0.5, "sampler": RandomWalks(0.5, 8, batch_size=12), "backbone": GCN(WIDTH, 7),
                "objective": GraphCL(temperature=0.7), "coordinators": None,
            }  # fmt: skip
            options = {differs: other[differs]} if differs in other else {}
            sources[0].x[3, 2] += (differs == "graphs") * 1e-3
        train(sources, **options)

    found = errors_of(2, work, tmp_path)
    for error in found:
        assert error.startswith(f"ValueError: rank 1 has other {named} than rank 0. Give every rank the same"), error


@needs_fork
def test_of_three_ranks_the_odd_one_is_named(tmp_path):
    found = errors_of(3, lambda rank: train(lr=0.1 if rank == 0 else 0.2, groups=3), tmp_path)
    assert all(error.startswith("ValueError: rank 0 has other settings than rank 1.") for error in found)


@needs_fork
def test_a_rank_that_does_not_see_the_checkpoint_is_named(tmp_path):
    train(epochs=1, groups=2, checkpoint=tmp_path / "here")
    found = errors_of(
        2, lambda rank: train(checkpoint=tmp_path / ("here", "there")[rank], resume=True, epochs=2), tmp_path
    )
    assert all("rank 1 has other weights or checkpoint than rank 0" in error for error in found)
