"""The pretraining verb: determinism, what it leaves alone, which sources it takes, what it refuses."""

import copy
import random

import numpy as np
import pytest
import torch
from small_runs import WIDTH, ring, same, train
from test_bad_losses import Spoiled
from torch_geometric.data import Data

import graphfm
from graphfm.backbones import FAGCN, GAT, GCN
from graphfm.data.features import Unifier
from graphfm.objectives import GraphCL, SimGRACE
from graphfm.training import PretrainingStopped


@pytest.fixture(scope="module")
def sources():
    return [ring(150, 20, 1, name="wide"), ring(90, 7, 2, name="narrow")]


# Determinism, and what is left alone


@pytest.mark.parametrize("objective", [GraphCL(), SimGRACE()])
@pytest.mark.parametrize("backbone", [FAGCN(WIDTH, 16), GCN(WIDTH, 16), GAT(WIDTH, 16)])
def test_one_seed_gives_one_model(sources, backbone, objective):
    first = train(sources, backbone=backbone, objective=objective)
    torch.rand(7)  # the caller's own draws do not matter
    second = train(sources, backbone=backbone, objective=objective)
    assert same(first, second)
    assert first.card["history"] == second.card["history"]
    assert not same(first, train(sources, backbone=backbone, objective=objective, seed=4))


def test_the_weights_handed_in_do_not_matter_without_warm_start(sources):
    torch.manual_seed(5)
    other = FAGCN(WIDTH, 16)
    assert same(train(sources), train(sources, backbone=other))
    assert not same(train(sources, warm_start=True), train(sources, backbone=other, warm_start=True))


def test_coordinators_that_were_bound_elsewhere_are_bound_again(sources):
    used = graphfm.Coordinators(1)
    used.bind([Data(x=torch.zeros(3, 4))] * 5)
    assert same(train(sources), train(sources, coordinators=used))
    assert used.features.shape == (5, 4)


def test_random_generators_of_the_caller_stay_as_they_were(sources):
    backbone = FAGCN(WIDTH, 16)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    train(sources, backbone=backbone)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


def test_nothing_that_is_handed_in_is_edited(sources):
    graphs = [g.clone() for g in sources]
    backbone, objective, coordinators = FAGCN(WIDTH, 16), GraphCL(), graphfm.Coordinators(2)
    unifier = Unifier(WIDTH)
    state = copy.deepcopy(backbone.state_dict())
    train(graphs, backbone=backbone, objective=objective, coordinators=coordinators, unifier=unifier)
    for graph, kept in zip(graphs, sources, strict=True):
        assert graph.keys() == kept.keys()
        for key in ("x", "edge_index", "y"):
            assert torch.equal(graph[key], kept[key])
    assert all(torch.equal(v, state[k]) for k, v in backbone.state_dict().items())
    assert backbone.training
    assert objective.decoder is None
    assert not coordinators.is_bound
    assert unifier.projections == []


def test_labels_are_never_read(sources):
    shuffled = [g.clone() for g in sources]
    for g in shuffled:
        g.y = g.y[torch.randperm(g.num_nodes)]
    bare = [g.clone() for g in sources]
    for g in bare:
        del g.y
    assert same(train(sources), train(shuffled))
    assert same(train(sources), train(bare))


# Sources of every kind


def test_isolated_pretraining_has_no_coordinators(sources):
    model = train(sources, coordinators=None)
    assert model.coordinators is None
    assert model.card["coordinators"] is None
    assert model.card["sampling"]["coordinators_a_sample"] == 0
    assert model.card["sampling"]["samples_that_span_domains"] == 0
    assert model.card["sampling"]["nodes_reached_across_domains"] == 0
    assert model.card["sampling"]["batches_of_several_domains"] == 1


@pytest.mark.parametrize("coordinators", [None, graphfm.Coordinators(1), graphfm.Coordinators(2, kind="mean")])
def test_one_graph_alone(sources, coordinators):
    model = train(sources[:1], coordinators=coordinators)
    assert model.card["sampling"]["batches_of_several_domains"] == 0


def test_edge_weights_count(sources):
    weighted = [g.clone() for g in sources]
    for i, g in enumerate(weighted):
        g.edge_weight = torch.rand(g.num_edges, generator=torch.Generator().manual_seed(i))
    ones = [g.clone() for g in sources]
    for g in ones:
        g.edge_weight = torch.ones(g.num_edges)
    assert not same(train(sources), train(weighted))
    assert same(train(sources), train(ones))
    assert not same(train(sources, coordinators=None), train(weighted, coordinators=None))


def test_graphs_without_features(sources):
    bare = Data(edge_index=sources[0].edge_index, num_nodes=150)
    model = train([bare, sources[1]])
    assert model.card["sources"][0]["features"] == 0
    assert torch.isfinite(torch.tensor(model.card["history"]["loss"])).all()


def test_graphs_of_isolated_nodes_only():
    alone = Data(x=torch.randn(50, 6), edge_index=torch.empty(2, 0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"graphs: only 0 of \d+ walks cover 5 nodes.*coordinators"):
        train([alone, alone], coordinators=None)
    train([alone, alone])  # coordinators make stars of them


def test_a_source_that_gives_no_sample_is_named(sources, caplog):
    alone = Data(x=torch.randn(50, 6), edge_index=torch.empty(2, 0, dtype=torch.long), name="dust")
    train([sources[0], alone], coordinators=None)
    assert "dust" in caplog.text


# Bad input


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epochs": -1}, "epochs must be an integer, at least 0, got -1"),
        ({"epochs": 1.5}, "epochs must be an integer"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": float("nan")}, "lr must be positive"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, got 0"),
        ({"resume": True}, "resume=True needs checkpoint"),
        ({"unifier": Unifier(5)}, "unifier.dim is 5, backbone.in_channels 12"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_bad_options_are_named(sources, options, match):
    with pytest.raises(ValueError, match=match):
        train(sources, **options)


def test_bad_graphs_are_named(sources):
    with pytest.raises(ValueError, match="graphs is empty"):
        train([])
    with pytest.raises(TypeError, match=r"list of graphs, got one Data; write \[graph\]"):
        train(sources[0])
    broken = sources[0].clone()
    broken.edge_index = broken.edge_index + 1000
    with pytest.raises(ValueError, match=r"graphs\[1\].edge_index"):
        train([sources[0], broken])


def test_no_epochs_gives_an_untrained_model(sources):
    model = train(sources, epochs=0)
    assert model.card["history"]["loss"] == []


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(sources):
    model = train(sources, device="cuda", epochs=2)
    assert next(model.backbone.parameters()).is_cuda
    with pytest.raises(PretrainingStopped, match="epoch 1, batch 3"):
        train(sources, objective=Spoiled(3, float("nan")), device="cuda")


def test_an_objective_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match=r"objective must be a torch\.nn\.Module"):
        graphfm.pretrain([graphfm.load("wine")], backbone=FAGCN(16, 16), objective=None, epochs=1, seed=0)
    with pytest.raises(TypeError, match=r"objective must be a torch\.nn\.Module"):
        graphfm.pretrain([graphfm.load("wine")], backbone=FAGCN(16, 16), objective=GraphCL, epochs=1, seed=0)
