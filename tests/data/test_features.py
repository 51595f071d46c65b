"""The unifier against a full SVD in float64, and what it does to odd features."""

import logging

import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Data

from graphfm.data.checks import check_graph
from graphfm.data.features import Unifier, leading_directions, structural_features

EDGES = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])


def graph(x, name=None, **more):
    data = Data(x=x, edge_index=EDGES, num_nodes=x.size(0), **more)
    if name is not None:
        data.name = name
    return data


def random_features(rows, columns, rank=None, seed=0, dtype=torch.float32):
    """A decaying spectrum, so that the leading directions are well defined."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(rows, columns) if rank is None else rank
    left = torch.linalg.qr(torch.randn(rows, rank, dtype=torch.float64, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(columns, rank, dtype=torch.float64, generator=generator))[0]
    return (left * 10 * 0.8 ** torch.arange(rank) @ right.t()).to(dtype)


SHAPES = {"tall": (400, 300), "wide": (280, 500), "small": (50, 120), "few rows": (6, 40)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_directions_are_those_of_the_full_svd(shape, dtype):
    x, k = random_features(*shape, dtype=dtype), 12
    found = leading_directions(x, k)
    _, values, vectors = torch.linalg.svd(x.double(), full_matrices=False)
    k = min(k, *shape)
    assert found.dtype == dtype
    assert found.shape == (shape[1], k)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    assert_close(found.double().t() @ found.double(), torch.eye(k).double(), rtol=0, atol=tolerance)
    assert_close((x.double() @ found.double()).norm(dim=0), values[:k], rtol=tolerance, atol=0)
    sign = torch.sign((vectors[:k] * found.double().t()).sum(1))
    assert_close(found.double().t(), vectors[:k] * sign[:, None], rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_signs_are_fixed(shape):
    x = random_features(*shape)
    found = leading_directions(x, 5)
    top = found.abs().argmax(0)
    assert bool((found[top, torch.arange(5)] > 0).all())
    assert torch.equal(found, leading_directions(x, 5))
    assert_close(found, leading_directions(-x, 5), rtol=0, atol=1e-4)
    shuffled = leading_directions(x[torch.randperm(shape[0], generator=torch.Generator().manual_seed(1))], 5)
    assert_close(found, shuffled, rtol=0, atol=1e-3)  # a node's features do not depend on the order of the others


@pytest.mark.parametrize("shape", [(400, 300), (280, 500), (50, 120)], ids=["tall", "wide", "small"])
def test_directions_that_are_not_there_are_left_out(shape):
    x = random_features(*shape, rank=4)
    found = leading_directions(x, 12)
    assert found.size(1) <= 12
    kept = x.double() @ found.double()
    assert float((kept @ found.double().t() - x).norm() / x.double().norm()) < 1e-4
    assert found.size(1) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=lambda d: str(d)[6:])
def test_wide_features_are_projected_to_unit_scale(dtype):
    x = random_features(200, 60).to(dtype)
    out = Unifier(10).transform(graph(x))
    assert (out.dtype, out.shape) == (torch.float32, (200, 10))
    assert float(out.double().square().sum(1).mean().sqrt()) == pytest.approx(1.0, rel=1e-5)
    full = x.double() @ torch.linalg.svd(x.double(), full_matrices=False)[2][:10].t()
    scale = full.square().sum(1).mean().rsqrt()
    assert_close((out @ out.t()).double(), (full @ full.t()) * scale**2, rtol=1e-3, atol=1e-4)


def test_narrow_features_are_padded_and_scaled():
    x = random_features(20, 4)
    out = Unifier(10).transform(graph(x))
    assert bool((out[:, 4:] == 0).all())
    assert_close(out[:, :4], x / x.square().sum(1).mean().sqrt())
    assert_close(Unifier(4).transform(graph(x)), out[:, :4])
    assert torch.equal(Unifier(10, rescale=False).transform(graph(x))[:, :4], x)


def test_domains_enter_at_one_scale():
    graphs = [graph(s * random_features(50, w, seed=w), f"g{w}") for s, w in ((1e-3, 5), (1e4, 30), (1.0, 64))]
    unifier = Unifier(16).fit(graphs)
    for data in graphs:
        assert float(unifier.transform(data).square().sum(1).mean()) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("width", [3, 40], ids=["narrow", "wide"])
def test_zero_features_stay_zero(width):
    out = Unifier(10).transform(graph(torch.zeros(5, width)))
    assert torch.equal(out, torch.zeros(5, 10))


def test_more_features_than_nodes():
    x = random_features(6, 500)
    out = Unifier(100).transform(graph(x))
    assert out.shape == (6, 100)
    assert bool((out[:, 6:] == 0).all())
    scale = x.double().square().sum(1).mean()
    assert_close((out @ out.t()).double(), x.double() @ x.double().t() / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [6, 80], ids=["narrow", "wide"])
def test_every_layout_and_kind_of_number_gives_the_same(width):
    x = (torch.rand(30, width, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    expected = Unifier(10).transform(graph(x))
    rows, columns = torch.nonzero(x).t()
    doubled = torch.cat([torch.stack([rows, columns])] * 2, 1)
    halves = torch.sparse_coo_tensor(doubled, torch.full((doubled.size(1),), 0.5), x.shape)  # not coalesced
    for other in (x.to_sparse(), x.to_sparse_csr(), halves, x.long(), x.bool(), x.to(torch.uint8)):
        assert_close(Unifier(10).transform(graph(other)), expected)
    assert_close(Unifier(10).transform(graph(x.double())), expected, rtol=1e-4, atol=1e-5)


def test_a_source_is_known_by_name_and_width():
    source = graph(random_features(50, 40), "a")
    unifier = Unifier(8).fit([source, graph(random_features(50, 40, seed=1), "b")])
    later = graph(random_features(9, 40, seed=2), "a")
    assert unifier.projection(later) is unifier.projections[0]
    assert_close(unifier.transform(later), later.x @ unifier.projections[0].basis * unifier.projections[0].scale)
    assert unifier.projection(graph(random_features(50, 41), "a")) not in unifier.projections
    assert unifier.projection(graph(source.x)) not in unifier.projections  # no name: never seen


def test_a_target_never_seen_gets_its_own():
    unifier = Unifier(8).fit([graph(random_features(50, 40), "a")])
    target = graph(random_features(30, 7, seed=3), "c")
    assert_close(unifier.transform(target), Unifier(8).transform(target))
    assert len(unifier.projections) == 1


def test_another_width_is_refused():
    projection = Unifier(8).projection(graph(random_features(50, 40)))
    with pytest.raises(ValueError, match=r"data\.x has 41 features, this model was fitted on 40.*adapt the model"):
        projection(torch.zeros(2, 41))


def test_a_node_that_comes_later_is_projected_alike():
    x = random_features(50, 40)
    projection = Unifier(8).projection(graph(x))
    assert_close(projection(x)[:3], projection(x[:3]))


def test_state_makes_a_round_trip():
    graphs = [graph(random_features(50, 40), "a"), graph(random_features(50, 3), "b"), graph(torch.zeros(4, 20))]
    unifier = Unifier(8, rescale=False).fit(graphs)
    settings, tensors = unifier.state()
    again = Unifier.from_state(settings, tensors)
    assert (again.dim, again.rescale, again.names) == (8, False, ["a", "b", "graph2"])
    for data in graphs:
        assert torch.equal(again.transform(data), unifier.transform(data))
    assert again.state()[0] == settings
    with pytest.raises(ValueError, match="the basis of domain 'a' is missing or has a wrong shape"):
        Unifier.from_state(settings, {k: v for k, v in tensors.items() if k != "basis.0"})
    with pytest.raises(ValueError, match="basis of domain 'a'"):
        Unifier.from_state(settings, tensors | {"basis.0": tensors["basis.0"][1:]})


def slow_structure(edges, nodes):
    """By sets of neighbours: binned degrees, then means over neighbours."""
    near = [set() for _ in range(nodes)]
    for a, b in edges.t().tolist():
        near[a].add(b)
        near[b].add(a)
    level = torch.zeros(nodes, 16)
    for i, others in enumerate(near):
        level[i, min((1 + len(others)).bit_length() - 1, 15)] = 1.0
    levels = [level]
    for _ in range(3):
        level = torch.stack([level[list(o)].mean(0) if o else torch.zeros(16) for o in near])
        levels.append(level)
    return torch.cat(levels, 1)


@pytest.mark.parametrize("count", [0, 5, 60])
def test_structural_features_are_their_description(count):
    edges = torch.randint(20, (2, count), generator=torch.Generator().manual_seed(0))
    data = Data(edge_index=edges, num_nodes=20)
    assert_close(structural_features(data), slow_structure(edges, 20))


@pytest.mark.parametrize("x", [None, torch.empty(3, 0)], ids=["none", "no columns"])
def test_graphs_without_features_get_structural_ones(x, caplog):
    data = Data(x=x, edge_index=EDGES, num_nodes=3)
    with caplog.at_level(logging.INFO, logger="graphfm"):
        out = Unifier(100).transform(data)
    assert "has no features: using structural ones" in caplog.text
    structure = structural_features(Data(edge_index=EDGES, num_nodes=3))
    assert_close(out[:, :64], structure / structure.square().sum(1).mean().sqrt())
    assert data.x is x


def test_the_graphs_are_left_as_they_were():
    data = graph(random_features(50, 40), "a")
    before = data.x.clone()
    Unifier(8).fit([data]).transform(data).add_(1.0)
    narrow = graph(random_features(5, 8))
    kept = narrow.x.clone()
    Unifier(8, rescale=False).transform(narrow).add_(1.0)
    assert torch.equal(data.x, before)
    assert torch.equal(narrow.x, kept)


def test_bad_graphs_are_refused_by_name():
    bad = random_features(5, 4)
    bad[2, 1] = float("nan")
    with pytest.raises(ValueError, match=r"graphs\[1\]\.x holds 1 NaN"):
        Unifier(8).fit([graph(random_features(5, 4)), graph(bad)])
    with pytest.raises(ValueError, match=r"data\.x holds 1 NaN"):
        Unifier(8).transform(graph(bad))
    with pytest.raises(ValueError, match=r"data\.x must have two dimensions"):
        Unifier(8).transform(graph(torch.ones(4)))
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        Unifier(0)


def test_real_features_keep_their_leading_part(data_root):
    from graphfm.data import load

    data = check_graph(load("cora", root=data_root))
    found = leading_directions(data.x, 20)
    _, values, _ = torch.linalg.svd(data.x.double(), full_matrices=False)
    assert_close((data.x @ found).double().norm(dim=0), values[:20], rtol=1e-4, atol=0)
