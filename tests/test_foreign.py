"""Backbones and objectives that are not ours, in the pretraining verb."""

import copy

import pytest
import torch
from small_runs import WIDTH, ring, same, train
from torch import nn
from torch_geometric.nn import GAT as PyGGAT
from torch_geometric.nn import GCN as PyGGCN
from torch_geometric.nn import GraphSAGE
from torch_geometric.utils import erdos_renyi_graph

import graphfm
from graphfm.backbones import FAGCN, GAT, GCN
from graphfm.foreign import EdgeIndexBackbone, as_backbone, redraw
from graphfm.nn import Adjacency
from graphfm.objectives import GraphCL, SimGRACE


@pytest.fixture(scope="module")
def sources():
    return [ring(150, 20, 1, name="wide"), ring(90, 7, 2, name="narrow")]


class Plain(nn.Module):
    """No reset_parameters of its own, and it ignores the edges."""

    def __init__(self, inside, outside):
        super().__init__()
        self.in_channels, self.out_channels = inside, outside
        self.net = nn.Sequential(nn.Linear(inside, 10), nn.ReLU(), nn.Linear(10, outside))

    def forward(self, x, edge_index, edge_weight=None):
        return self.net(x)


class Stubborn(Plain):
    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.scale = nn.Parameter(torch.ones(()))


def test_a_backbone_without_reset_parameters_is_drawn_part_by_part(sources):
    assert same(train(sources, backbone=Plain(WIDTH, 8)), train(sources, backbone=Plain(WIDTH, 8)))


def test_a_backbone_that_cannot_be_drawn_anew_says_so(sources):
    with pytest.raises(ValueError, match=r"backbone: Stubborn has parameters.*reset_parameters.*warm_start=True"):
        train(sources, backbone=Stubborn(WIDTH, 8))
    train(sources, backbone=Stubborn(WIDTH, 8), warm_start=True)


@pytest.mark.parametrize("make", [PyGGCN, GraphSAGE, PyGGAT])
@pytest.mark.parametrize("objective", [GraphCL(), SimGRACE()])
def test_the_networks_of_pyg_go_all_the_way(sources, make, objective, tmp_path):
    network = make(WIDTH, 8, num_layers=2)
    model = train(sources, backbone=network, objective=objective)
    assert isinstance(model.backbone, EdgeIndexBackbone)
    assert same(model, train(sources, backbone=make(WIDTH, 8, num_layers=2), objective=objective))
    model.save(tmp_path)
    again = graphfm.Pretrained.load(tmp_path, backbone=make(WIDTH, 8, num_layers=2))
    assert same(model, again)
    target = sources[1]
    split = graphfm.few_shot(target.y, shots=2, seed=0)
    scores = [
        graphfm.adapt(m, target, split, method="finetune", seed=0, epochs=3).predict(target) for m in (model, again)
    ]
    assert torch.equal(*scores)
    plain = make(WIDTH, 8, num_layers=2)
    plain.load_state_dict({k.removeprefix("network."): v for k, v in model.backbone.state_dict().items()})


def test_the_adapter_computes_what_the_network_computes():
    torch.manual_seed(0)
    edges = erdos_renyi_graph(30, 0.2)
    x, w = torch.randn(30, WIDTH), torch.rand(edges.size(1))
    w[::3] = 0.0
    network = PyGGCN(WIDTH, 8, num_layers=2).eval()
    adapted = as_backbone(network)
    adj = Adjacency.from_edges(edges, 30, w)
    assert torch.allclose(adapted(x, adj), network(x, edges, edge_weight=w), atol=1e-6)
    assert torch.allclose(adapted(x, edges), network(x, edges), atol=1e-6)
    sage = GraphSAGE(WIDTH, 8, num_layers=2).eval()
    assert torch.allclose(as_backbone(sage)(x, adj), sage(x, edges[:, w > 0]), atol=1e-6)
    assert adapted.num_hops == 2
    assert as_backbone(adapted) is adapted


def test_our_own_backbones_need_no_adapter():
    for backbone in (FAGCN(4, 8), GCN(4, 8), GAT(4, 8)):
        assert as_backbone(backbone) is backbone


def test_as_backbone_leaves_network_and_generator_alone():
    class Normed(nn.BatchNorm1d):
        in_channels = out_channels = 4

        def forward(self, x, edge_index):
            torch.rand(3)
            return super().forward(x)

    network = Normed(4)
    before = torch.get_rng_state()
    as_backbone(network)
    assert network.training
    assert network.num_batches_tracked == 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"in_channels": None}, "positive integer attribute in_channels; Plain has None"),
        ({"out_channels": "8"}, "positive integer attribute out_channels; Plain has '8'"),
        ({"in_channels": -1}, "in_channels; Plain has -1"),
        ({"out_channels": 9}, r"gave \[2, 8\] for 2 nodes, not \[2, 9\]"),
        ({"forward": lambda x: x}, "works neither as"),
    ],
)
def test_backbones_that_cannot_serve(change, match):
    backbone = Plain(WIDTH, 8)
    for name, value in change.items():
        setattr(backbone, name, value)
    with pytest.raises(ValueError, match=match):
        as_backbone(backbone)


def test_redraw_reaches_parts_of_parts():
    torch.manual_seed(0)
    net = nn.ModuleDict({"a": nn.Sequential(nn.Linear(3, 3), nn.ModuleList([nn.Linear(2, 2)])), "b": nn.ReLU()})
    before = copy.deepcopy(net.state_dict())
    redraw(net, "backbone")
    assert not any(torch.equal(v, before[k]) for k, v in net.state_dict().items())


class Several(nn.Module):
    """Two losses at once, and no bind()."""

    def forward(self, backbone, batch):
        h = backbone(batch.x, Adjacency.from_edges(batch.edge_index, batch.num_nodes, batch.edge_weight))
        return torch.stack([h.square().mean(), (h - 1).square().mean()])


def test_an_objective_of_several_losses_without_bind(sources):
    losses = train(sources, objective=Several(), epochs=4).card["history"]["loss"]
    assert losses[-1] < losses[0]
