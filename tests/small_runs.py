"""Small graphs, and pretraining on them, for the tests of the verb."""

import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

import graphfm
from graphfm.backbones import FAGCN
from graphfm.objectives import GraphCL
from graphfm.samplers import RandomWalks

WIDTH = 12
WALKS = RandomWalks(start_share=0.4, walk_length=12)


def ring(nodes, features, seed=0, chords=1, **more):
    """A ring with random chords, so that every walk gets somewhere."""
    g = torch.Generator().manual_seed(seed)
    around = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
    extra = torch.randint(nodes, (2, chords * nodes), generator=g)
    edges = to_undirected(torch.cat([around, extra], dim=1))
    x = torch.randn(nodes, features, generator=g)
    return Data(x=x, edge_index=edges, y=torch.randint(3, (nodes,), generator=g), **more)


def train(graphs, **options):
    given = {
        "backbone": options.get("backbone") or FAGCN(WIDTH, 16),
        "objective": GraphCL(),
        "coordinators": graphfm.Coordinators(1),
        "epochs": 2,
        "seed": 3,
        "sampler": WALKS,
    }
    return graphfm.pretrain(graphs, **(given | options))


def weights(model):
    found = dict(model.backbone.state_dict())
    if model.coordinators is not None:
        found["coordinators"] = model.coordinators.features.detach()
    return found


def same(a, b):
    a, b = weights(a), weights(b)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
