"""Adaptation: no leak, no edit of its inputs, the same result for the same seed, and new nodes."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torch_geometric.data import Data

import graphfm
from graphfm.adapt import METHODS
from graphfm.fitted import Fitted
from graphfm.heads import LinearHead, PrototypeHead, fit_logistic
from graphfm.readout import Readout

PROTOCOLS = [("honest", method) for method in METHODS]


@pytest.fixture(scope="module")
def data() -> Data:
    return graphfm.load("wine")


@pytest.fixture(scope="module")
def model() -> graphfm.Pretrained:
    return graphfm.pretrain(
        [graphfm.load("breast_cancer"), graphfm.load("digits")],
        backbone=graphfm.backbones.FAGCN(40, 16),
        objective=graphfm.objectives.GraphCL(),
        coordinators=graphfm.Coordinators(1),
        epochs=1,
        seed=0,
    )


def scramble(data: Data, nodes: torch.Tensor, seed: int = 0) -> Data:
    """The same graph with the labels of ``nodes`` permuted among them."""
    changed = data.clone()
    order = torch.randperm(nodes.numel(), generator=torch.Generator().manual_seed(seed))
    changed.y = data.y.clone()
    changed.y[nodes] = data.y[nodes[order]]
    assert not torch.equal(changed.y, data.y)
    return changed


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("val_shots", [0, 2], ids=["fixed steps", "with validation"])
def test_test_labels_change_nothing(model: graphfm.Pretrained, data: Data, method: str, val_shots: int) -> None:
    split = graphfm.few_shot(data.y, shots=3, seed=1, val_shots=val_shots)
    first = graphfm.adapt(model, data, split, method=method, seed=0).predict(data)
    other = scramble(data, split.test)
    assert torch.equal(first, graphfm.adapt(model, other, split, method=method, seed=0).predict(other))


@pytest.mark.parametrize("method", METHODS)
def test_published_protocol_reads_test_labels(model: graphfm.Pretrained, method: str) -> None:
    # A sparse graph: its ego graphs are too small, so they are filled by label, which is the leak.
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat_interleave(30)
    x = torch.randn(90, 12, generator=generator) + F.one_hot(y, 12) * 2
    graph = Data(x=x, edge_index=torch.randint(90, (2, 40), generator=generator), y=y)
    split = graphfm.few_shot(y, shots=2, seed=0)
    options = {"method": method, "seed": 0, "protocol": "paper", "epochs": 5}
    first = graphfm.adapt(model, graph, split, **options).predict(graph)
    other = scramble(graph, split.test)
    second = graphfm.adapt(model, other, split, **options).predict(other)
    assert not torch.equal(first, second)
    assert torch.equal(first, graphfm.adapt(model, graph, split, **options).predict(graph))


def test_label_filled_ego_graphs_flatter_a_network(model: graphfm.Pretrained) -> None:
    """On features and edges that hold no information at all, the published protocol is far above chance."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(2).repeat_interleave(100)
    x = torch.randn(200, 12, generator=generator) + 3 * F.one_hot(y, 12)
    shown = x.clone()
    graph = Data(x=shown, edge_index=torch.empty(2, 0, dtype=torch.long), y=y)
    noise = Data(x=torch.randn(200, 12, generator=generator), edge_index=graph.edge_index, y=y)
    split = graphfm.few_shot(y, shots=5, seed=0)

    def accuracy(protocol: str) -> float:
        chosen = graphfm.adapt(model, noise, split, method="probe", seed=0, protocol=protocol).predict(noise)
        return float((chosen[split.test].argmax(1) == y[split.test]).float().mean())

    assert abs(accuracy("honest") - 0.5) < 0.12
    assert accuracy("paper") > accuracy("honest")


@pytest.mark.parametrize("method", METHODS)
def test_inputs_stay_as_they_are_and_seeds_decide(model: graphfm.Pretrained, data: Data, method: str) -> None:
    before = copy.deepcopy(model.backbone.state_dict())
    shown = data.clone()
    split = graphfm.few_shot(data.y, shots=2, seed=0)
    state = torch.get_rng_state()
    first = graphfm.adapt(model, data, split, method=method, seed=3)
    again = graphfm.adapt(model, data, split, method=method, seed=3)
    assert torch.equal(first.predict(data), again.predict(data))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[name])
    assert data.keys() == shown.keys()
    assert torch.equal(data.x, shown.x)


def test_fine_tuning_moves_the_backbone_and_lowers_the_loss(model: graphfm.Pretrained, data: Data) -> None:
    split = graphfm.few_shot(data.y, shots=5, seed=0)
    probe = graphfm.adapt(model, data, split, method="probe", seed=0)
    tuned = graphfm.adapt(model, data, split, method="finetune", seed=0, weight_decay=0.0)

    def loss(fitted: Fitted) -> float:
        return float(F.nll_loss(fitted.predict(data)[split.train].log(), data.y[split.train]))

    assert loss(tuned) < loss(probe)
    same = [torch.equal(a, b) for a, b in zip(tuned.backbone.parameters(), model.backbone.parameters(), strict=True)]
    assert not any(same)


def test_training_near_the_shots_is_training_on_the_whole_graph(model: graphfm.Pretrained) -> None:
    """Only the part of the graph that reaches a labelled node is computed; results must not change."""
    ring = torch.arange(400)
    edges = torch.stack([torch.cat([ring, (ring + 1) % 400]), torch.cat([(ring + 1) % 400, ring])])
    y = (ring // 100) % 2
    graph = Data(x=torch.randn(400, 12, generator=torch.Generator().manual_seed(0)), edge_index=edges, y=y)
    split = graphfm.few_shot(y, shots=2, seed=0)
    near = graphfm.adapt(model, graph, split, method="finetune", seed=0)
    whole = copy.deepcopy(model)
    whole.backbone.dropout = 0.0
    for conv in whole.backbone.convs:
        conv.dropout = 0.0
    local = graphfm.adapt(whole, graph, split, method="finetune", seed=0)
    del whole.backbone.num_hops  # a backbone that does not say how far it sees gets the whole graph
    full = graphfm.adapt(whole, graph, split, method="finetune", seed=0)
    torch.testing.assert_close(local.predict(graph), full.predict(graph), atol=2e-5, rtol=1e-4)
    assert near.predict(graph).shape == (400, 2)


@pytest.mark.parametrize("method", METHODS)
def test_predicts_for_nodes_that_came_later(model: graphfm.Pretrained, data: Data, method: str) -> None:
    split = graphfm.few_shot(data.y, shots=5, seed=0)
    fitted = graphfm.adapt(model, data, split, method=method, seed=0)
    twin = int(split.test[0])
    near = data.edge_index[0, data.edge_index[1] == twin]
    new = torch.full_like(near, data.num_nodes)
    grown = Data(
        x=torch.cat([data.x, data.x[twin : twin + 1]]),
        edge_index=torch.cat([data.edge_index, torch.stack([near, new]), torch.stack([new, near])], dim=1),
    )
    chances = fitted.predict(grown)
    assert chances.shape == (data.num_nodes + 1, 3)
    torch.testing.assert_close(chances.sum(1), torch.ones(data.num_nodes + 1))
    assert chances[-1].argmax() == chances[twin].argmax()


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_read_back(model: graphfm.Pretrained, data: Data, method: str, tmp_path) -> None:
    split = graphfm.few_shot(data.y, shots=2, seed=0)
    fitted = graphfm.adapt(model, data, split, method=method, seed=0)
    fitted.save(tmp_path / "fitted")
    again = graphfm.Fitted.load(tmp_path / "fitted")
    assert torch.equal(fitted.predict(data), again.predict(data))
    assert again.card == fitted.card


@pytest.mark.parametrize("method", METHODS)
def test_coordinators_carried_to_the_target(model: graphfm.Pretrained, data: Data, method: str, tmp_path) -> None:
    split = graphfm.few_shot(data.y, shots=2, seed=0)
    options = {"method": method, "seed": 0, "epochs": 3}
    carried = graphfm.adapt(model, data, split, carry=True, **options)
    assert carried.predict(data).shape == (data.num_nodes, 3)
    assert not torch.equal(carried.predict(data), graphfm.adapt(model, data, split, **options).predict(data))
    carried.save(tmp_path / "carried")
    assert torch.equal(graphfm.Fitted.load(tmp_path / "carried").predict(data), carried.predict(data))
    isolated = graphfm.Pretrained(model.backbone, model.unifier, None, {})
    with pytest.raises(ValueError, match="carry=True needs"):
        graphfm.adapt(isolated, data, split, carry=True, **options)


def test_class_without_a_label_gets_no_probability(model: graphfm.Pretrained, data: Data) -> None:
    lonely = data.clone()
    lonely.y = data.y.clone()
    lonely.y[0] = 3
    with pytest.warns(UserWarning, match="one node each"):
        split = graphfm.few_shot(lonely.y, shots=2, seed=0)
    for method in METHODS:
        chances = graphfm.adapt(model, lonely, split, method=method, seed=0).predict(lonely)
        assert chances.shape[1] == 4
        assert float(chances[:, 3].max()) == 0.0
        torch.testing.assert_close(chances.sum(1), torch.ones(lonely.num_nodes))


@pytest.mark.parametrize("method", ["finetune", "prompt:GPF", "prompt:GraphPrompt"])
def test_validation_of_unseen_classes_alone_chooses_nothing(model: graphfm.Pretrained, data: Data, method: str) -> None:
    """Such nodes cannot tell one step from another, so training is as long as it is without them."""
    whole = graphfm.few_shot(data.y, shots=2, seed=0, val_shots=2)
    train, val = whole.train[data.y[whole.train] < 2], whole.val[data.y[whole.val] == 2]
    options = {"method": method, "seed": 0, "epochs": 5, "lr": 0.05}
    found, fixed = (
        graphfm.adapt(model, data, graphfm.Split(train, part, whole.test), **options).predict(data)
        for part in (val, whole.val[:0])
    )
    torch.testing.assert_close(found, fixed)


def test_featureless_graph(model: graphfm.Pretrained) -> None:
    ring = torch.arange(60)
    edges = torch.stack([ring, (ring + 1) % 60])
    graph = Data(edge_index=edges, y=ring // 30, num_nodes=60)
    split = graphfm.few_shot(graph.y, shots=3, seed=0)
    assert torch.isfinite(graphfm.adapt(model, graph, split, method="probe", seed=0).predict(graph)).all()


def test_bad_input_is_named(model: graphfm.Pretrained, data: Data, tmp_path) -> None:
    split = graphfm.few_shot(data.y, shots=1, seed=0)
    fitted = graphfm.adapt(model, data, split, method="prototype", seed=0)
    narrow = data.clone()
    narrow.x = data.x[:, :5]
    with pytest.raises(ValueError, match=r"data\.x has 5 features.*fitted on 13"):
        fitted.predict(narrow)
    with pytest.raises(ValueError, match="method must be one of"):
        graphfm.adapt(model, data, split, method="tune", seed=0)
    with pytest.raises(ValueError, match="protocol must be one of"):
        graphfm.adapt(model, data, split, protocol="leaky", seed=0)
    with pytest.raises(ValueError, match=r"split holds indices"):
        graphfm.adapt(model, data, graphfm.Split(split.train + 1000, split.val, split.test), seed=0)
    with pytest.raises(ValueError, match=r"split\.train is empty"):
        graphfm.adapt(model, data, graphfm.Split(split.val, split.val, split.test), seed=0)
    unknown = data.clone()
    unknown.y = data.y.clone()
    unknown.y[split.train] = -1
    with pytest.raises(ValueError, match="unknown"):
        graphfm.adapt(model, unknown, split, seed=0)
    with pytest.raises(ValueError, match=r"data\.y is missing"):
        graphfm.adapt(model, Data(x=data.x, edge_index=data.edge_index), split, seed=0)
    leaky = graphfm.adapt(model, data, split, method="probe", seed=0, protocol="paper")
    with pytest.raises(ValueError, match="not saved"):
        leaky.save(tmp_path / "leaky")


def test_prototypes_are_normalised_class_means() -> None:
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn(12, 5, generator=generator), torch.tensor([0, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0, 1])
    head = PrototypeHead(5, 3).fit(z, y)
    query = torch.randn(4, 5, generator=generator)
    scores = head(query)
    for c in range(2):
        rows = [row / row.norm() for row in z[y == c]]
        mean = sum(rows) / len(rows)
        expected = (query @ mean) / query.norm(dim=1) / mean.norm() / 0.1
        torch.testing.assert_close(scores[:, c], expected)
    assert torch.isinf(scores[:, 2]).all()


@pytest.mark.parametrize("classes", [[0, 1], [0, 2], [0, 1, 2]], ids=["two", "two of three", "three"])
def test_logistic_head_is_scikit_learns(classes: list[int]) -> None:
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(30, 4, generator=generator)
    y = torch.tensor(classes)[torch.arange(30) % len(classes)]
    head = fit_logistic(LinearHead(4, 3), z, y, strength=2.0)
    expected = LogisticRegression(C=2.0, max_iter=1000).fit(z.double().numpy(), y.numpy()).predict_proba(z.numpy())
    found = torch.softmax(head(z), 1)[:, classes].detach().double()
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-5, rtol=1e-5)


def test_readout_against_a_dense_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(9, (2, 20), generator=generator)
    h = torch.randn(9, 4, dtype=torch.float64, generator=generator)
    x = torch.randn(9, 3, dtype=torch.float64, generator=generator)
    dense = torch.zeros(9, 9, dtype=torch.float64)
    for source, target in edges.t().tolist():
        dense[target, source] += 1
    degree = dense.sum(1, keepdim=True)
    average = torch.where(degree > 0, dense / degree.clamp(min=1), torch.zeros_like(dense))
    parts = [h, average @ h, average @ average @ h, x, average @ x, average @ average @ x]
    expected = torch.cat([F.normalize(part - part.mean(0), dim=1) for part in parts], 1)
    readout = Readout(4, 2, 3).double()
    adj = graphfm.nn.Adjacency.from_edges(edges, 9)
    readout.calibrate(h, x, adj)
    torch.testing.assert_close(readout(h, x, adj), expected)
    rows = torch.tensor([7, 0, 3])
    torch.testing.assert_close(readout.at(rows, x, adj)(h), expected[rows])


@pytest.mark.cuda
@pytest.mark.parametrize("method", METHODS)
def test_cuda_agrees_with_the_cpu(model: graphfm.Pretrained, data: Data, method: str) -> None:
    split = graphfm.few_shot(data.y, shots=3, seed=0)
    options = {"method": method, "seed": 0, "epochs": 0}
    here = graphfm.adapt(model, data, split, **options).predict(data)
    there = graphfm.adapt(model, data, split, device="cuda", **options).predict(data)
    torch.testing.assert_close(here, there, atol=1e-3, rtol=1e-3)
