"""Several processes that train one model, against one process to the last bit; checkpoints; torchrun."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks import ROOT, WIDTH, Interrupting, Normed, errors_of, kill, needs_fork, same, small, together, train
from torch import nn

import graphfm
from graphfm.checkpoint import CheckpointError, read_bundle
from graphfm.distributed import ALONE
from graphfm.gradients import Groups
from graphfm.objectives import BGRL, DGI, GraphCL, GraphMAE, MultiTask, SimGRACE
from graphfm.pareto import MGDA, UncertaintyWeighting
from graphfm.samplers import Neighbours, RandomWalks
from graphfm.training import PretrainingStopped

CASES = {
    "GraphCL": {"objective": GraphCL()},
    "no coordinators": {"objective": SimGRACE(), "coordinators": None},
    "four groups": {"objective": GraphCL(), "groups": 4},
    "three groups": {"objective": DGI(), "groups": 3},
    "statistics": {"objective": GraphCL(), "backbone": Normed(WIDTH, 8)},
    "target network": {"objective": BGRL()},
    "neighbours": {"objective": GraphMAE(), "sampler": Neighbours((4, 2), 32)},
    "several tasks": {"objective": MultiTask([DGI(), GraphMAE()], MGDA())},
    "learned weights": {"objective": MultiTask([DGI(), GraphMAE()], UncertaintyWeighting())},
}


@needs_fork
def test_two_ranks_are_one_process_to_the_last_bit(tmp_path):
    def work(rank):
        for place, options in enumerate(CASES.values()):
            train(**options).save(tmp_path / f"{place}-{rank}")

    together(2, work, tmp_path)
    for place, (name, options) in enumerate(CASES.items()):
        own = {"backbone": Normed(WIDTH, 8)} if name == "statistics" else {}
        alone = train(**({"groups": 2} | options))
        for rank in range(2):
            assert same(alone, graphfm.Pretrained.load(tmp_path / f"{place}-{rank}", **own)), (name, rank)
    assert alone.card["settings"]["groups"] == 2


@needs_fork
def test_three_ranks_and_an_uneven_share(tmp_path):
    def work(rank):
        train(groups=4, epochs=2).save(tmp_path / str(rank))

    together(3, work, tmp_path)
    assert same(train(groups=4, epochs=2), graphfm.Pretrained.load(tmp_path / "2"))


class PerGraph(nn.Module):
    """A mean over graphs of a quantity of each graph alone: groups must not matter."""

    def bind(self, inside, outside):
        self.head = nn.Linear(outside, 1)

    def forward(self, backbone, batch):
        h = self.head(backbone(batch.x, batch.edge_index)).tanh().squeeze(1)
        mean = h.new_zeros(batch.num_graphs).index_add(0, batch.batch, h) / batch.ptr.diff()
        return (mean - 0.3).square().mean()


@pytest.mark.parametrize("groups", [2, 3])
def test_a_mean_over_samples_does_not_notice_groups(groups):
    options = {"objective": PerGraph(), "coordinators": None, "sampler": RandomWalks(0.6, 8, batch_size=11)}
    one, several = train(**options), train(groups=groups, **options)
    assert one.card["sampling"] == several.card["sampling"]  # the same subgraphs
    assert one.card["history"]["loss"] == pytest.approx(several.card["history"]["loss"], rel=1e-5)
    for key, value in one.backbone.state_dict().items():
        torch.testing.assert_close(value, several.backbone.state_dict()[key], rtol=1e-4, atol=1e-5)


def test_gradients_of_groups_against_the_whole_batch_in_float64():
    torch.manual_seed(0)
    network, x, y = nn.Linear(4, 1).double(), torch.randn(11, 4).double(), torch.randn(11).double()
    groups = Groups(network, 3, ALONE)

    def learn(group, index):
        loss = (network(x[index]).squeeze(1) - y[index]).square().mean()
        loss.backward()
        return loss.detach().reshape(1)

    told, stopped = groups.step(torch.randperm(11), learn, False)
    found = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    loss = (network(x).squeeze(1) - y).square().mean()
    loss.backward()
    assert not stopped
    torch.testing.assert_close(told, loss.detach().reshape(1), rtol=1e-13, atol=0)
    for mine, p in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(mine, p.grad, rtol=1e-13, atol=1e-15)


def test_groups_average_state_and_leave_unused_weights_without_gradient():
    network = Normed(3, 4)
    network.norm.momentum = 0.25
    groups, x = Groups(network, 2, ALONE), torch.randn(8, 3)
    edges = torch.empty(2, 0, dtype=torch.long)
    seen = []

    def learn(group, index):
        rows = network.conv(x[index], edges).detach()
        seen.append(rows.mean(0))
        loss = network(x[index], edges).square().mean()
        loss.backward()
        return loss.detach().reshape(1)

    groups.step(torch.arange(8), learn, False)
    torch.testing.assert_close(network.norm.running_mean, 0.25 * torch.stack(seen).mean(0))
    assert int(network.norm.num_batches_tracked) == 1
    assert network.spare.weight.grad is None
    assert network.norm.weight.grad is not None


@needs_fork
def test_ranks_go_on_where_they_were_and_so_does_one_process(tmp_path):
    folder = tmp_path / "run"

    def first(rank):
        train(epochs=2, checkpoint=folder)

    def second(rank):
        train(epochs=4, checkpoint=folder, resume=True).save(tmp_path / f"model-{rank}")

    together(2, first, tmp_path)
    assert read_bundle(folder, "training")[0]["epoch"] == 2
    copy = {p.name: p.read_bytes() for p in folder.iterdir()}
    together(2, second, tmp_path)
    whole = train(epochs=4, groups=2)
    for rank in range(2):
        assert same(whole, graphfm.Pretrained.load(tmp_path / f"model-{rank}"))
    other = tmp_path / "other"
    other.mkdir()
    for name, blob in copy.items():
        (other / name).write_bytes(blob)
    assert same(whole, train(epochs=4, groups=2, checkpoint=other, resume=True))
    with pytest.raises(CheckpointError, match="differs in groups"):
        train(epochs=4, checkpoint=other, resume=True)


@needs_fork
@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_asked_to_stop_stops_all_at_one_place(tmp_path, rank):
    folder = tmp_path / "run"
    found = errors_of(
        2, lambda _: train(objective=Interrupting(rank, 6, kill(signal.SIGTERM)), checkpoint=folder), tmp_path
    )
    assert all(error.startswith("PretrainingStopped: stopped by SIGTERM after batch") for error in found)
    resumed = train(objective=Interrupting(), checkpoint=folder, resume=True, groups=2)
    assert same(train(objective=Interrupting(), groups=2), resumed)


SCRIPT = """
import sys
import torch, torch.distributed as dist
import graphfm
from ranks import small

torch.set_num_threads(1)
model = small()
assert dist.get_world_size() == 2
if dist.get_rank() == 0:
    model.save(sys.argv[1])
"""


def test_torchrun(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "train.py", "model"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert same(small(groups=2), graphfm.Pretrained.load(tmp_path / "model"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("objective", [GraphCL(), BGRL(), MultiTask([DGI(), GraphMAE()], MGDA())])
def test_groups_on_a_gpu(objective):
    first, second = (train(objective=objective, groups=2, device="cuda") for _ in range(2))
    assert first.card["history"]["loss"] == pytest.approx(second.card["history"]["loss"], rel=1e-3)


def test_stopped_is_what_a_lost_rank_ends_in():
    assert issubclass(PretrainingStopped, RuntimeError)
