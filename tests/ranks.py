"""Forked processes that train one model together, and the small training that they share."""

import os
import signal
import socket
import time
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

import graphfm
from graphfm.backbones import GCN
from graphfm.objectives import DGI, GraphCL
from graphfm.samplers import RandomWalks

ROOT = Path(graphfm.__file__).parents[1]
WIDTH = 6
WALKS = RandomWalks(0.4, 8, batch_size=12)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork") or not dist.is_gloo_available(), reason="needs fork and gloo")


def graphs():
    found = []
    for seed, nodes in enumerate((70, 50)):
        g = torch.Generator().manual_seed(seed)
        edges = to_undirected(torch.randint(nodes, (2, 2 * nodes), generator=g), num_nodes=nodes)
        found.append(Data(x=torch.randn(nodes, 9, generator=g), edge_index=edges, name=f"g{seed}"))
    return found


class Normed(nn.Module):
    """A backbone with running statistics, dropout and a weight that is never used."""

    def __init__(self, inside, outside):
        super().__init__()
        self.in_channels, self.out_channels, self.num_hops = inside, outside, 1
        self.conv, self.norm = GCN(inside, outside, 1), nn.BatchNorm1d(outside)
        self.spare = nn.Linear(2, 2)

    def forward(self, x, edge_index, edge_weight=None):
        return nn.functional.dropout(self.norm(self.conv(x, edge_index, edge_weight)), 0.2, self.training)


def train(sources=None, **options):
    given = {
        "backbone": GCN(WIDTH, 8), "objective": GraphCL(), "coordinators": graphfm.Coordinators(1), "epochs": 3,
        "seed": 1, "sampler": WALKS,
    }  # fmt: skip
    return graphfm.pretrain(sources or graphs(), **(given | options))


def same(a, b):
    first, second = a.backbone.state_dict(), b.backbone.state_dict()
    whole = a.card["history"] == b.card["history"] and all(torch.equal(first[k], second[k]) for k in first)
    return whole and (a.coordinators is None or torch.equal(a.coordinators.features, b.coordinators.features))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(count, work, folder):
    """Fork ``count`` ranks that each run ``work(rank)``; what goes wrong in one is written to ``folder``."""
    port, children = free_port(), []
    for rank in range(count):
        child = os.fork()
        if child:
            children.append(child)
            continue
        os.environ |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        code = 0
        try:
            work(rank)
        except BaseException as error:
            Path(folder, f"error-{rank}").write_text(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            code = 3
        os._exit(code)
    return children


def finish(children, seconds=60):
    """Wait for all; the exit codes. A rank that is still there after ``seconds`` is killed, and fails the test."""
    codes, begun = {}, time.monotonic()
    while len(codes) < len(children):
        for child in set(children) - codes.keys():
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        if time.monotonic() - begun > seconds:
            for child in set(children) - codes.keys():
                os.kill(child, signal.SIGKILL)
            pytest.fail(f"ranks were still running after {seconds} s")
        time.sleep(0.02)
    return [codes[child] for child in children]


def together(count, work, folder):
    codes = finish(start(count, work, folder))
    errors = {p.name: p.read_text() for p in Path(folder).glob("error-*")}
    assert codes == [0] * count, errors


def errors_of(count, work, folder, seconds=60):
    """What the ranks raised, for runs that must not succeed."""
    finish(start(count, work, folder), seconds)
    return [(Path(folder) / f"error-{rank}").read_text() for rank in range(count)]


class Interrupting(GraphCL):
    """GraphCL in which one rank does something at its n-th call."""

    def __init__(self, rank=None, at=0, action=None):
        super().__init__()
        self._given, self._calls = (rank, at, action), 0

    def __deepcopy__(self, memo):
        return Interrupting(*self._given)

    def forward(self, backbone, batch):
        rank, at, action = self._given
        self._calls += 1
        if self._calls == at and os.environ.get("RANK") == str(rank):
            action()
        return super().forward(backbone, batch)


def kill(name):
    return lambda: os.kill(os.getpid(), name)


def small(**options):
    return train(epochs=1, objective=DGI(), **options)
