"""Real processes that are killed or asked to stop, against one that was not."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stopped_runs import same

import graphfm
from graphfm.checkpoint import read_bundle

ROOT = Path(graphfm.__file__).parents[1]

SERVER = """
EPOCHS = 80
import os, sys, torch, graphfm, graphfm.pretrain, graphfm.adapt
from graphfm.backbones import FAGCN
from graphfm.objectives import GraphCL
from graphfm.samplers import RandomWalks

torch.set_num_threads(1)
graphs = [graphfm.load(n) for n in ("wine", "breast_cancer")]

def work(folder):
    model = graphfm.pretrain(graphs, backbone=FAGCN(16, 16), objective=GraphCL(), epochs=EPOCHS, seed=5,
                             sampler=RandomWalks(walk_length=10), coordinators=graphfm.Coordinators(1),
                             checkpoint=folder, checkpoint_every=1, resume=True)
    model.save(folder + "/model")

print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child:
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)
    else:
        try:
            work(line.strip())
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(3)
        os._exit(0)
"""


@pytest.fixture(scope="module")
def server():
    """A process that has its imports behind it and forks one worker a request: kills then hit work, not imports."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.wait(timeout=30)
    process.stdout.close()
    process.stderr.close()


def worker(server, folder):
    server.stdin.write(f"{folder}\n")
    server.stdin.flush()
    return int(server.stdout.readline())


def end_of(server):
    return int(server.stdout.readline())


@pytest.fixture(scope="module")
def uninterrupted(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    begun = time.perf_counter()
    worker(server, folder)
    assert end_of(server) == 0
    return graphfm.Pretrained.load(folder / "model"), time.perf_counter() - begun


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_killed_at_ten_random_points_of_its_run(server, uninterrupted, tmp_path):
    whole, seconds = uninterrupted
    chance = random.Random(0)
    kills, epochs = 0, []
    state, pause = tmp_path / "training.json", seconds / 40
    while kills < 10:
        before = state.stat().st_mtime_ns if state.exists() else 0
        child = worker(server, tmp_path)
        if kills % 2:  # half of the kills come after some progress, however fast the machine is just now
            while not (state.exists() and state.stat().st_mtime_ns > before):
                time.sleep(0.001)
        time.sleep(chance.uniform(0.1, 1.5) * pause)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        if end_of(server) == 0:
            break
        kills += 1
        if (tmp_path / "training.json").exists():
            epochs.append(read_bundle(tmp_path, "training")[0]["epoch"])  # whole at any moment
    worker(server, tmp_path)
    assert end_of(server) == 0
    assert kills == 10, f"finished after {kills} kills at epochs {epochs}: the run is too short for this test"
    assert epochs == sorted(epochs)
    assert len(set(epochs)) >= 4
    assert same(whole, graphfm.Pretrained.load(tmp_path / "model"))
    assert sorted(p.suffix for p in tmp_path.iterdir()) == ["", ".json", ".safetensors"]  # nothing is left lying about


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_asked_to_stop_keeps_its_place(server, uninterrupted, tmp_path):
    whole, _ = uninterrupted
    child = worker(server, tmp_path)
    while not list(tmp_path.rglob("training.json")):  # the first checkpoint: begun, and far from its end
        time.sleep(0.01)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(end_of(server)) == 3
    message = server.stderr.readline()
    assert message.startswith("PretrainingStopped: stopped by SIGTERM after")
    assert str(tmp_path) in message
    worker(server, tmp_path)
    assert end_of(server) == 0
    assert same(whole, graphfm.Pretrained.load(tmp_path / "model"))
