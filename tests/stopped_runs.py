"""Small runs that stop in the middle, for the tests of stopping and of disks."""

import os
import signal

import torch
from torch_geometric.data import Data

import graphfm
from graphfm.backbones import FAGCN
from graphfm.objectives import GraphCL
from graphfm.samplers import RandomWalks

WIDTH = 12
WALKS = RandomWalks(start_share=0.4, walk_length=12)


def small_graphs():
    found = []
    for i, (nodes, features) in enumerate([(120, 20), (80, 6)]):
        g = torch.Generator().manual_seed(i)
        edges = torch.randint(nodes, (2, 4 * nodes), generator=g)
        found.append(Data(x=torch.randn(nodes, features, generator=g), edge_index=edges, name=f"graph {i}"))
    return found


def train(graphs, **options):
    given = {
        "backbone": FAGCN(WIDTH, 16),
        "objective": GraphCL(),
        "coordinators": graphfm.Coordinators(1),
        "epochs": 4,
        "seed": 1,
        "sampler": WALKS,
        "checkpoint_every": 1,
    }
    return graphfm.pretrain(graphs, **(given | options))


def same(a, b):
    first, second = a.backbone.state_dict(), b.backbone.state_dict()
    whole = a.card["history"] == b.card["history"] and first.keys() == second.keys()
    if a.coordinators is not None:
        whole = whole and torch.equal(a.coordinators.features, b.coordinators.features)
    return whole and all(torch.equal(first[k], second[k]) for k in first)


class Interrupting(GraphCL):
    """GraphCL that does something at its n-th call; to a checkpoint it looks like any other objective."""

    def __init__(self, at, action):
        super().__init__()
        self._at, self._action, self._calls = at, action, 0

    def __deepcopy__(self, memo):
        return Interrupting(self._at, self._action)

    def forward(self, backbone, batch):
        self._calls += 1
        if self._calls == self._at:
            self._action()
        return super().forward(backbone, batch)


def sigterm():
    os.kill(os.getpid(), signal.SIGTERM)
