"""Graphs: what is learned from few, that other graphs have no say, and the pooled rows the slow way."""

import copy

import pytest
import torch
from torch_geometric.data import Batch, Data

import graphfm
from graphfm.results import read
from graphfm.tasks import GRAPH_METHODS, adapt_graphs, evaluate_graphs
from graphfm.tasks.pooled import PooledReadout


def accuracy(probabilities: torch.Tensor, data: Batch, split: graphfm.Split) -> float:
    return float((probabilities[split.test].argmax(1) == data.y[split.test]).float().mean())


@pytest.mark.parametrize("method", GRAPH_METHODS)
def test_shapes_without_features_are_told_apart(model, shapes: Batch, method: str) -> None:
    bare = Batch.from_data_list(
        [Data(edge_index=g.edge_index, num_nodes=g.num_nodes, y=g.y) for g in shapes.to_data_list()]
    )
    split = graphfm.few_shot(bare.y, 3, seed=0)
    found = adapt_graphs(model, bare, split, method=method, seed=0).predict(bare)
    assert found.shape == (24, 2)
    torch.testing.assert_close(found.sum(1), torch.ones(24))
    assert accuracy(found, bare, split) > 0.9  # structural features show a ring's degrees


@pytest.mark.parametrize("method", GRAPH_METHODS)
def test_labels_of_other_graphs_have_no_say(model, shapes: Batch, method: str) -> None:
    split = graphfm.few_shot(shapes.y, 2, seed=0)
    other = shapes.clone()
    other.y = shapes.y.clone()
    other.y[split.test] = 1 - shapes.y[split.test]
    first, second = (adapt_graphs(model, d, split, method=method, seed=0, epochs=5).predict(d) for d in (shapes, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize("method", GRAPH_METHODS)
def test_other_graphs_have_no_say_unless_told(model, shapes: Batch, method: str) -> None:
    """Inductive: the features of graphs that are no training graphs may be anything."""
    split = graphfm.few_shot(shapes.y, 2, seed=0)
    strange = shapes.clone()
    outside = ~torch.isin(shapes.batch, split.train)
    strange.x = torch.where(outside[:, None], 50 * shapes.x.flip(1), shapes.x)
    settings = {"method": method, "seed": 0, "epochs": 5}
    plain, odd = (adapt_graphs(model, d, split, **settings).predict(shapes) for d in (shapes, strange))
    assert torch.equal(plain, odd)
    plain, odd = (
        adapt_graphs(model, d, split, transductive=True, **settings).predict(shapes) for d in (shapes, strange)
    )
    assert not torch.equal(plain, odd)


@pytest.mark.parametrize("pool", ["mean", "sum"])
def test_a_graph_is_embedded_alike_alone_and_in_company(model, shapes: Batch, pool: str) -> None:
    split = graphfm.few_shot(shapes.y, 2, seed=0)
    fitted = adapt_graphs(model, shapes, split, method="probe", seed=0, pool=pool)
    together = fitted.embed(shapes)
    for place, one in enumerate(shapes.to_data_list()[:4]):
        alone = Batch.from_data_list([one])
        torch.testing.assert_close(fitted.embed(alone)[0], together[place])
    order = [3, 0, 7]
    mixed = Batch.from_data_list([shapes.get_example(i) for i in order])
    torch.testing.assert_close(fitted.predict(mixed), fitted.predict(shapes)[order])


@pytest.mark.parametrize("pool", ["mean", "sum"])
def test_the_pooled_rows_are_the_slow_ones(pool: str) -> None:
    generator = torch.Generator().manual_seed(0)
    h, x = torch.randn(9, 4, generator=generator), torch.randn(9, 2, generator=generator)
    ptr, batch = torch.tensor([0, 3, 3, 9]), torch.tensor([0] * 3 + [2] * 6)
    readout = PooledReadout(4, 2, pool)
    readout.calibrate(h, x, ptr, batch)
    rows = []
    for start, end in ((0, 3), (3, 3), (3, 9)):  # the second graph has no nodes
        part = torch.cat([h, x], 1)[start:end].sum(0)
        rows.append(part / max(end - start, 1) if pool == "mean" else part)
    centred = torch.stack(rows) - torch.stack(rows).mean(0)
    parts = [p / p.square().sum(1).mean().sqrt() for p in (centred[:, :4], centred[:, 4:])]
    torch.testing.assert_close(readout(h, x, ptr, batch), torch.cat(parts, 1))
    with pytest.raises(ValueError, match="pool must be"):
        PooledReadout(4, 2, "max")


def test_frozen_methods_keep_the_weights_and_finetuning_moves_them(model, shapes: Batch) -> None:
    split = graphfm.few_shot(shapes.y, 3, seed=0)
    before = copy.deepcopy(model.backbone.state_dict())
    start = model.backbone.convs[0].lin.weight
    kept = adapt_graphs(model, shapes, split, method="probe", seed=0).network.convs[0].lin.weight
    assert torch.equal(kept, start)
    moved = adapt_graphs(model, shapes, split, method="finetune", seed=0, epochs=3)
    assert not torch.equal(moved.network.convs[0].lin.weight, start)
    again = adapt_graphs(model, shapes, split, method="finetune", seed=0, epochs=3)
    assert torch.equal(moved.predict(shapes), again.predict(shapes))
    assert all(torch.equal(v, before[k]) for k, v in model.backbone.state_dict().items())


def test_a_prompt_is_trained_and_the_weights_stay(model, shapes: Batch, attach) -> None:
    split = graphfm.few_shot(shapes.y, 3, seed=0)
    fitted = adapt_graphs(model, shapes, split, attach=attach, seed=0, epochs=5)
    assert fitted.network is attach.made
    assert float(attach.made.shift.detach().abs().sum()) > 0
    assert torch.equal(attach.made.network.convs[0].lin.weight, model.backbone.convs[0].lin.weight)


def test_validation_keeps_the_better_step(model, shapes: Batch) -> None:
    split = graphfm.few_shot(shapes.y, 3, seed=0, val_shots=3)
    probe = adapt_graphs(model, shapes, split, method="probe", seed=0).predict(shapes)
    wild = adapt_graphs(model, shapes, split, method="finetune", seed=0, epochs=3, lr=10.0).predict(shapes)
    losses = [float(torch.nn.functional.nll_loss(p[split.val].log(), shapes.y[split.val])) for p in (probe, wild)]
    assert losses[1] <= losses[0] + 1e-5  # the probe it started from was looked at


def test_every_method_stands_beside_the_rules(model, shapes: Batch, tmp_path) -> None:
    options = {"methods": ("probe", "prototype"), "shots": (1, 2), "seeds": (0, 1), "out": tmp_path / "r.jsonl"}
    results = evaluate_graphs(model, shapes, **options)
    groups = {r.method: r.settings["group"] for r in results}
    assert sorted(n for n, g in groups.items() if g == "control") == ["scratch", "untrained"]
    assert {"majority class", "features + degrees", "WL subtree h=3"} <= set(groups)
    assert len(results) == 4 * len(groups)
    assert {r.task for r in results} == {"graph"}
    assert set(results[0].metrics) == {"accuracy", "macro_f1", "auroc"}
    again = evaluate_graphs(model, shapes, **options)
    assert [r.metrics for r in again] == [r.metrics for r in results]
    assert len(read(tmp_path / "r.jsonl")) == len(results)


def test_graphs_without_nodes_or_edges(model) -> None:
    empty = torch.empty(2, 0, dtype=torch.long)
    made = [Data(x=torch.rand(n, 3), edge_index=empty, y=torch.tensor([n % 2])) for n in (1, 2, 3, 4, 0, 0)]
    data = Batch.from_data_list(made)
    split = graphfm.Split(torch.tensor([0, 1]), torch.tensor([]).long(), torch.tensor([2, 3, 4, 5]))
    for method in GRAPH_METHODS:
        assert bool(
            torch.isfinite(adapt_graphs(model, data, split, method=method, seed=0, epochs=2).predict(data)).all()
        )
    hollow = graphfm.Split(torch.tensor([4, 5]), torch.tensor([]).long(), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="have no nodes"):
        adapt_graphs(model, data, hollow, seed=0)


def test_real_collections_come_as_they_are_loaded(model, data_root) -> None:
    data = graphfm.load("mutag", root=data_root)
    split = graphfm.few_shot(data.y, 5, seed=0)
    assert split.train.numel() == 10
    assert accuracy(adapt_graphs(model, data, split, method="probe", seed=0).predict(data), data, split) > 0.7
    data = Batch.from_data_list(graphfm.load("imdb-binary", root=data_root).to_data_list()[480:520])
    assert data.x is None
    split = graphfm.few_shot(data.y, 5, seed=0)
    assert adapt_graphs(model, data, split, method="probe", seed=0).predict(data).shape == (40, 2)
    for result in evaluate_graphs(model, data, methods=("probe",), shots=(5,), seeds=(0,)):
        assert 0 <= result.metrics["accuracy"] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("tune",)}, "methods holds 'tune'"),
        ({"shots": ()}, "shots must be positive"),
        ({"seeds": ()}, "seeds is empty"),
        ({"pool": "max"}, "pool must be"),
    ],
)
def test_bad_options_are_named(model, shapes: Batch, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_graphs(model, shapes, **{"seeds": (0,), "shots": (1,), "methods": ("probe",), **options})


def test_bad_input_is_named(model, shapes: Batch, communities: Data) -> None:
    split = graphfm.few_shot(shapes.y, 1, seed=0)
    with pytest.raises(ValueError, match="graph tasks take many graphs"):
        evaluate_graphs(model, communities)
    with pytest.raises(ValueError, match="method must be one of"):
        adapt_graphs(model, shapes, split, method="tune", seed=0)
    unknown = shapes.clone()
    unknown.y = shapes.y.clone()
    unknown.y[split.train[0]] = -1
    with pytest.raises(ValueError, match="label is unknown"):
        adapt_graphs(model, unknown, split, seed=0)
    moved = graphfm.Split(split.test[:2], split.train, split.test[2:])
    with pytest.raises(ValueError, match=r"split\.val holds 1 whose label is unknown"):
        adapt_graphs(model, unknown, moved, seed=0)
    unknown.y = torch.zeros(24).long()
    with pytest.raises(ValueError, match="at least two"):
        evaluate_graphs(model, unknown)
    fitted = adapt_graphs(model, shapes, split, method="probe", seed=0)
    with pytest.raises(ValueError, match="data has no batch"):
        fitted.predict(shapes.get_example(0))
    with pytest.raises(ValueError, match="features, this model was fitted on 3"):
        fitted.predict(Batch.from_data_list([Data(x=torch.rand(2, 5), edge_index=torch.tensor([[0], [1]]))]))


@pytest.mark.cuda
def test_on_a_gpu(model, shapes: Batch) -> None:
    split = graphfm.few_shot(shapes.y, 2, seed=0)
    fitted = adapt_graphs(model, shapes, split, seed=0, device="cuda", epochs=3)
    assert fitted.predict(shapes).device.type == "cpu"
