"""The training-free rules: their formulas the slow way, no leak, and the published tables."""

import pytest
import torch
from torch.nn import functional as F
from torch_geometric.data import Data

import graphfm
from graphfm.baselines import (
    Centroid,
    Floor,
    GraphFeatures,
    KernelRidge,
    LabelPropagation,
    LinearGNNs,
    MultiHopCentroid,
    RidgeAndCentroid,
    SmoothedCentroid,
    SoftCentroid,
    floor,
)
from graphfm.baselines.ridge import ridge_scores

RULES = floor()


def planted(seed: int = 0, nodes: int = 60, classes: int = 3) -> Data:
    """Classes that show in both features and edges, an isolated node, a self-loop, directed edges."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (nodes,), generator=generator)
    x = 0.4 * torch.rand(nodes, 30, generator=generator) + F.one_hot(y, 30)
    pairs = torch.randint(nodes - 1, (2, 400), generator=generator)
    near = (y[pairs[0]] == y[pairs[1]]) | (torch.rand(400, generator=generator) < 0.2)
    return Data(x=x, y=y, edge_index=torch.cat([pairs[:, near], torch.tensor([[5], [5]])], 1))


def dense(data: Data) -> torch.Tensor:
    a = torch.zeros(data.num_nodes, data.num_nodes, dtype=torch.float64)
    for i, j in data.edge_index.t().tolist():
        if i != j:
            a[i, j] = a[j, i] = 1.0
    return a


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_no_leak_and_probabilities(rule: Floor) -> None:
    data = planted()
    split = graphfm.few_shot(data.y, shots=3, seed=0)
    first = rule.fit(data, split).predict()
    assert first.shape == (60, 3)
    torch.testing.assert_close(first.sum(1), torch.ones(60))
    other = data.clone()
    other.y = data.y.clone()
    other.y[split.test] = data.y[split.test.flip(0)]
    assert torch.equal(first, rule.fit(other, split).predict())
    accuracy = (first[split.test].argmax(1) == data.y[split.test]).float().mean()
    assert accuracy > 0.55  # classes are easy here; chance is a third


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_degenerate_graphs(rule: Floor) -> None:
    empty = Data(x=torch.zeros(8, 4), y=torch.arange(8) % 2, edge_index=torch.empty(2, 0, dtype=torch.long))
    split = graphfm.few_shot(empty.y, shots=1, seed=0)
    assert torch.isfinite(rule.fit(empty, split).predict()).all()
    with pytest.raises(RuntimeError, match="not fitted"):
        type(rule)().predict()


@pytest.mark.parametrize("hops", [0, 2, 4])
def test_centroid_is_the_slow_formula(hops: int) -> None:
    data = planted()
    split = graphfm.few_shot(data.y, shots=3, seed=0)
    a = dense(data) + torch.eye(60, dtype=torch.float64)
    norm = a / (a.sum(1, keepdim=True).sqrt() * a.sum(0, keepdim=True).sqrt())
    h = data.x.double() / data.x.double().abs().sum(1, keepdim=True)
    for _ in range(hops):
        h = norm @ h
    h = F.normalize(h - h.mean(0), dim=1)
    means = torch.stack([h[split.train][data.y[split.train] == c].mean(0) for c in range(3)])
    expected = torch.cdist(h, means).argmin(1)
    assert torch.equal(Centroid(hops).fit(data, split).predict().argmax(1), expected)


def test_multi_hop_centroid_is_the_slow_formula() -> None:
    data = planted()
    split = graphfm.few_shot(data.y, shots=3, seed=0)
    a = dense(data)
    average = a / a.sum(1, keepdim=True).clamp(min=1)
    x = data.x.double() / data.x.double().abs().sum(1, keepdim=True)
    levels = [x, average @ x, average @ average @ x]
    h = F.normalize(torch.cat([F.normalize(level - level.mean(0), dim=1) for level in levels], 1), dim=1)
    means = torch.stack([h[split.train][data.y[split.train] == c].mean(0) for c in range(3)])
    expected = h @ F.normalize(means, dim=1).t()
    graph = GraphFeatures(data)
    torch.testing.assert_close(MultiHopCentroid().scores(graph, split).double(), expected, atol=1e-5, rtol=1e-4)


def test_label_propagation_reaches_its_fixed_point() -> None:
    """Iterating to the end is solving (I - alpha S) Y = (1 - alpha) Y_0."""
    data = planted()
    split = graphfm.few_shot(data.y, shots=3, seed=0)
    a = dense(data)
    scale = a.sum(1).clamp(min=1).rsqrt()
    start = torch.zeros(60, 3, dtype=torch.float64)
    start[split.train] = F.one_hot(data.y[split.train], 3).double()
    start = start / start.sum(0)
    system = torch.eye(60, dtype=torch.float64) - 0.9 * scale[:, None] * a * scale[None]
    fixed = torch.linalg.solve(system, 0.1 * start)
    expected = fixed / fixed.sum(1, keepdim=True).clamp(min=1e-12)
    found = LabelPropagation(alpha=0.9, steps=400).scores(GraphFeatures(data), split)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-3)


def test_leave_one_out_is_done_by_leaving_one_out() -> None:
    """The closed form chooses the penalty that refitting without each row in turn would choose."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(12, 4, dtype=torch.float64, generator=generator)
    target = torch.randn(12, 2, dtype=torch.float64, generator=generator)
    kernel = z @ z.t()
    scale = kernel.diagonal().mean()
    errors = {}
    for penalty in (1e-3, 1e-2, 1e-1, 1.0, 10.0):
        ridge = kernel + penalty * scale * torch.eye(12, dtype=torch.float64)
        error = 0.0
        for i in range(12):
            keep = [j for j in range(12) if j != i]
            dual = torch.linalg.solve(ridge[keep][:, keep], target[keep])
            error += float((kernel[i, keep] @ dual - target[i]).square().sum())
        errors[penalty] = error
    best = min(errors, key=errors.get)
    dual = torch.linalg.solve(kernel + best * scale * torch.eye(12, dtype=torch.float64), target)
    torch.testing.assert_close(ridge_scores(kernel, target, torch.arange(12), False), kernel @ dual)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_linear_gnns_are_the_least_squares_solutions(ridge: float) -> None:
    data = planted()
    split = graphfm.few_shot(data.y, shots=2, seed=0)
    a = dense(data)
    average = a / a.sum(1, keepdim=True).clamp(min=1)
    x = data.x.double()
    high = torch.eye(60, dtype=torch.float64) - average
    target = F.one_hot(data.y[split.train], 3).double()
    channels = (x, average @ x, average @ average @ x, high @ x, high @ high @ x)
    expected = torch.zeros(60, 3, dtype=torch.float64)
    for h in channels:  # a ridge is as many rows more, one a column, whose answers are zero
        rows, width = h[split.train], h.size(1)
        root = (ridge * rows.square().sum(1).mean()).sqrt()
        more = torch.cat([rows, root * torch.eye(width, dtype=torch.float64)])
        expected += h @ torch.linalg.pinv(more) @ torch.cat([target, target.new_zeros(width, 3)]) / 5
    found = LinearGNNs(ridge).scores(GraphFeatures(data), split).double()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_a_negative_ridge_is_refused() -> None:
    with pytest.raises(ValueError, match="ridge must be at least 0, got -1"):
        LinearGNNs(-1.0)


def test_soft_centroid_is_the_slow_formula() -> None:
    data = planted()
    split = graphfm.few_shot(data.y, shots=2, seed=0)
    graph = GraphFeatures(data)
    h = graph.spectral.double()
    means = torch.stack([h[split.train][data.y[split.train] == c].mean(0) for c in range(3)])
    scores = h @ F.normalize(means, dim=1).t()
    for _ in range(2):
        soft = torch.softmax(10 * scores, 1)
        for node in split.train.tolist():
            soft[node] = 50.0 * F.one_hot(data.y[node], 3)
        centres = torch.stack([sum(soft[i, c] * h[i] for i in range(60)) for c in range(3)])
        scores = h @ F.normalize(centres, dim=1).t()
    found = SoftCentroid().scores(graph, split)
    torch.testing.assert_close(found.double(), scores, atol=1e-4, rtol=1e-3)


def test_combination_is_the_sum_of_z_scores() -> None:
    data = planted()
    split = graphfm.few_shot(data.y, shots=2, seed=0)
    graph = GraphFeatures(data)
    total = torch.zeros(60, 3)
    for rule in (SoftCentroid(), KernelRidge()):
        scores = rule.scores(graph, split)
        total += (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True)
    torch.testing.assert_close(RidgeAndCentroid().scores(graph, split), total)


# Mean accuracy over 20 random splits at 1 and 5 shots, and their spread, as published for these rules.
TABLE = [
    ("cora", Centroid(0), (28.9, 44.5)),
    ("cora", Centroid(2), (49.6, 69.8)),
    ("cora", Centroid(4), (53.5, 72.3)),
    ("cora", SmoothedCentroid(4), (56.0, 74.2)),
    ("citeseer", Centroid(0), (28.3, 44.0)),
    ("citeseer", Centroid(4), (43.4, 64.5)),
    ("photo", Centroid(0), (37.4, 58.4)),
    ("photo", Centroid(2), (46.6, 65.5)),
    ("photo", Centroid(4), (42.8, 57.4)),
    ("photo", SmoothedCentroid(4), (50.6, 66.2)),
    ("wisconsin", Centroid(0), (46.1, 62.0)),
    ("wisconsin", Centroid(2), (29.6, 34.8)),
    ("chameleon", Centroid(0), (21.2, 23.3)),
    ("chameleon", Centroid(2), (24.7, 34.3)),
    ("chameleon", Centroid(4), (25.0, 32.4)),
]


@pytest.fixture(scope="module")
def features(data_root: str) -> dict[str, GraphFeatures]:
    return {name: GraphFeatures(graphfm.load(name)) for name in {row[0] for row in TABLE}}


@pytest.mark.parametrize(("name", "rule", "table"), TABLE, ids=[f"{row[0]}, {row[1].name}" for row in TABLE])
def test_tables_are_reproduced(features: dict[str, GraphFeatures], name: str, rule: Floor, table: tuple) -> None:
    graph = features[name]
    for shots, expected in zip((1, 5), table, strict=True):
        found = []
        for seed in range(20):
            split = graphfm.few_shot(graph.y, shots=shots, seed=seed)
            chosen = rule.fit(graph, split).predict().argmax(1)
            found.append(100 * float((chosen[split.test] == graph.y[split.test]).float().mean()))
        spread = torch.tensor(found).std()
        # Two means over 20 different splits each: their difference spreads by sqrt(2 / 20) of one split's spread.
        assert abs(sum(found) / 20 - expected) < 3 * float(spread) * (2 / 20) ** 0.5 + 0.5
