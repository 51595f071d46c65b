"""Coordinators against a dense construction by loops, and a hub's weight against its degree."""

import copy

import pytest
import torch
from contracts import dense, dense_gcn, hard, weights
from torch.testing import assert_close
from torch_geometric.data import Data

from graphfm.backbones import FAGCN, GCN
from graphfm.coordinators import Coordinators, vote_weights
from graphfm.nn import Adjacency

WIDTH = 3


def graph(name, seed, weighted=False):
    nodes, edges = hard(name)
    x = torch.randn(nodes, WIDTH, generator=torch.Generator().manual_seed(seed))
    data = Data(x=x, edge_index=edges, num_nodes=nodes)
    if weighted:
        data.edge_weight = weights(edges, torch.float32)
    return data


def three_graphs(weighted=False):
    names = ("directed", "isolated nodes", "self-loops")
    return [graph(n, i, weighted and i != 1) for i, n in enumerate(names)]


def slow_join(graphs, per_domain, between):
    """The joined adjacency, entry by entry, before and after votes are shared."""
    total, count = sum(g.num_nodes for g in graphs), len(graphs) * per_domain
    matrix = torch.zeros(total + count, total + count, dtype=torch.float64)
    first = 0
    for d, g in enumerate(graphs):
        weight = g.get("edge_weight")
        matrix[first : first + g.num_nodes, first : first + g.num_nodes] = dense(g.num_nodes, g.edge_index, weight)
        for c in range(per_domain):
            hub = total + d * per_domain + c
            for i in range(first, first + g.num_nodes):
                matrix[i, hub] = matrix[hub, i] = 1.0
        first += g.num_nodes
    for a in range(count):
        for b in range(count):
            if a // per_domain == b // per_domain or between == "none":
                continue
            means = [graphs[i // per_domain].x.double().mean(0) for i in (a, b)]
            cosine = float(torch.nn.functional.cosine_similarity(*means, dim=0))
            matrix[total + a, total + b] = 1.0 if between == "all" else max(cosine, 0.0)
    for hub in range(total, total + count):
        for part in (slice(0, total), slice(total, total + count)):
            if matrix[hub, part].sum() > 0:
                matrix[hub, part] /= matrix[hub, part].sum()
    return matrix


@pytest.mark.parametrize("between", ["all", "none", "similarity"])
@pytest.mark.parametrize("per_domain", [1, 3])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_the_joined_graph_is_the_slow_one(between, per_domain, weighted):
    graphs = three_graphs(weighted)
    coordinators = Coordinators(per_domain, between=between)
    joined = coordinators(graphs)
    total, count = 12, 3 * per_domain
    assert joined.num_nodes == total + count
    assert_close(
        dense(joined.num_nodes, joined.edge_index, joined.edge_weight),
        slow_join(graphs, per_domain, between),
        rtol=1e-6,
        atol=1e-7,
    )
    domain = [d for d, g in enumerate(graphs) for _ in range(g.num_nodes)]
    assert joined.domain.tolist() == domain + [d for d in range(3) for _ in range(per_domain)]
    assert joined.is_coordinator.tolist() == [False] * total + [True] * count
    assert torch.equal(joined.x, torch.cat([*(g.x for g in graphs), coordinators.features]))


def test_similarity_joins_like_graphs_alone():
    towards = torch.tensor([1.0, 0.0, 0.0])
    means = (towards, towards + torch.tensor([0.0, 1.0, 0.0]), -towards)
    graphs = [Data(x=m.repeat(2, 1), edge_index=torch.tensor([[0], [1]])) for m in means]
    joined = Coordinators(between="similarity")(graphs)
    source, target = joined.edge_index
    hubs = joined.is_coordinator[source] & joined.is_coordinator[target]
    assert set(zip((source[hubs] - 6).tolist(), (target[hubs] - 6).tolist(), strict=True)) == {(0, 1), (1, 0)}


@pytest.mark.parametrize(("kind", "pool"), [("mean", torch.mean), ("sum", torch.sum)], ids=["mean", "sum"])
def test_fixed_features(kind, pool):
    graphs = three_graphs()
    coordinators = Coordinators(2, kind=kind)
    joined = coordinators(graphs)
    expected = torch.stack([pool(g.x, 0) for g in graphs for _ in range(2)])
    assert_close(joined.x[12:], expected)
    assert list(coordinators.parameters()) == []
    assert "features" in coordinators.state_dict()


def test_learnable_features_are_drawn_at_unit_norm_from_the_seed():
    graphs = [Data(x=torch.zeros(2, 100), edge_index=torch.empty(2, 0, dtype=torch.long)) for _ in range(50)]
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(Coordinators(2).bind(graphs).features.detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
    assert float(drawn[0].norm(dim=1).mean()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("backbone", [GCN, FAGCN])
def test_gradients_reach_the_learnable_features(backbone):
    graphs, coordinators = three_graphs(), Coordinators()
    torch.manual_seed(0)
    joined = coordinators(graphs)
    out = backbone(WIDTH, 8, dropout=0.0)(joined.x, joined.edge_index, joined.edge_weight)
    out[0].square().sum().backward()  # a node of the first graph: two steps from every coordinator
    assert bool((coordinators.features.grad.abs().sum(1) > 0).all())
    step = torch.optim.SGD(coordinators.parameters(), lr=0.1)
    before = coordinators.features.detach().clone()
    step.step()
    assert not torch.equal(coordinators(graphs).x[12:], before)


def test_the_graphs_are_left_as_they_were():
    graphs = three_graphs(weighted=True)
    before = copy.deepcopy(graphs)
    Coordinators(2, between="similarity")(graphs)
    for a, b in zip(graphs, before, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys():
            assert (a[key] == b[key]) if isinstance(a[key], int) else torch.equal(a[key], b[key])


def star(leaves):
    """A hub joined to ``leaves`` nodes and to one other coordinator, which has three nodes of its own."""
    graphs = []
    for size in (leaves, 3):
        ring = torch.arange(size)
        edges = torch.stack([ring, (ring + 1) % size])
        graphs.append(Data(x=torch.zeros(size, 1), edge_index=torch.cat([edges, edges.flip(0)], 1)))
    return Coordinators(kind="mean")(graphs), leaves + 3


@pytest.mark.parametrize("leaves", [10, 100, 10_000])
def test_a_hub_neither_drowns_nor_is_drowned(leaves):
    joined, hub = star(leaves)
    adj = Adjacency.from_edges(joined.edge_index, joined.num_nodes, joined.edge_weight).gcn()
    into_node = adj.weight[(adj.row == 0) & (adj.col == hub)]
    neighbour = adj.weight[(adj.row == 0) & (adj.col == 1)]
    # A node has two neighbours, itself and the hub: the hub weighs about what a neighbour weighs.
    assert 0.5 < float(into_node / neighbour) < 2.0
    into_hub = (adj.row == hub) & (adj.col < leaves)
    assert int(into_hub.sum()) == leaves
    votes = float(adj.weight[into_hub].sum())
    self_vote = float(adj.weight[(adj.row == hub) & (adj.col == hub)])
    peer = float(adj.weight[(adj.row == hub) & (adj.col == hub + 1)])
    # All its nodes together weigh about what the hub itself and its one peer weigh.
    assert 0.5 < votes / self_vote < 2.0
    assert 0.5 < votes / peer < 2.0


def test_without_votes_the_hub_would_drown():
    joined, hub = star(10_000)
    plain = Adjacency.from_edges(joined.edge_index, joined.num_nodes).gcn()
    into_node = plain.weight[(plain.row == 0) & (plain.col == hub)]
    neighbour = plain.weight[(plain.row == 0) & (plain.col == 1)]
    assert float(into_node / neighbour) < 0.05  # this is what the votes are for


@pytest.mark.parametrize("leaves", [10, 10_000])
def test_signals_pass_the_hub_both_ways_at_any_size(leaves):
    """Two rounds of gcn: a unit signal on every node of one graph reaches the other, whatever the sizes."""
    joined, hub = star(leaves)
    adj = Adjacency.from_edges(joined.edge_index, joined.num_nodes, joined.edge_weight).gcn()
    signal = torch.zeros(joined.num_nodes, 1)
    signal[:leaves] = 1.0
    for _ in range(3):  # nodes -> hub -> other hub -> its nodes
        signal = adj.matmul(signal)
    there = float(signal[leaves:hub].mean())
    back = torch.zeros(joined.num_nodes, 1)
    back[leaves:hub] = 1.0
    for _ in range(3):
        back = adj.matmul(back)
    here = float(back[:leaves].mean())
    assert 0.01 < there < 1.0
    assert 0.01 < here < 1.0
    assert 0.2 < there / here < 5.0


def slow_votes(edge_index, is_coordinator, weight):
    out = weight.clone()
    for hub in torch.nonzero(is_coordinator).flatten().tolist():
        for kind in (False, True):
            group = (edge_index[1] == hub) & (is_coordinator[edge_index[0]] == kind)
            if weight[group].sum() > 0:
                out[group] = weight[group] / weight[group].sum()
    return out


def test_votes():
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(20, (2, 150), generator=generator)
    is_coordinator = torch.arange(20) >= 15
    weight = torch.rand(150, generator=generator, dtype=torch.float64)
    weight[::7] = 0.0
    weight[edges[1] == 19] = 0.0  # a coordinator that no weight reaches
    before = weight.clone()
    shared = vote_weights(edges, is_coordinator, weight)
    assert_close(shared, slow_votes(edges, is_coordinator, weight))
    assert_close(vote_weights(edges, is_coordinator, shared), shared)
    assert torch.equal(weight, before)
    ones = vote_weights(edges, is_coordinator)
    assert_close(ones, slow_votes(edges, is_coordinator, torch.ones(150)))
    degree = torch.zeros(20, dtype=torch.float64).index_add(0, edges[1], shared)
    assert bool((degree[15:] <= 2 + 1e-12).all())


def test_votes_pass_gradients():
    edges, is_coordinator = torch.tensor([[0, 1, 2, 3, 0], [2, 2, 3, 2, 1]]), torch.tensor([False, False, True, True])
    weight = torch.tensor([1.0, 2.0, 0.5, 1.5, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: vote_weights(edges, is_coordinator, w), weight)


def test_no_graph_without_votes_differs_from_gcn():
    nodes, edges = hard("directed")
    same = vote_weights(edges, torch.zeros(nodes, dtype=torch.bool))
    assert_close(dense_gcn(nodes, edges, same), dense_gcn(nodes, edges))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_domain": 0}, "per_domain must be at least 1, got 0"),
        ({"kind": "random"}, r"kind must be one of .*'mean'.*got 'random'"),
        ({"between": "some"}, r"between must be one of .*'none'.*got 'some'"),
    ],
    ids=["per_domain", "kind", "between"],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Coordinators(**options)


def test_bad_graphs():
    graphs, coordinators = three_graphs(), Coordinators()
    with pytest.raises(ValueError, match="graphs is empty"):
        coordinators([])
    wide = Data(x=torch.zeros(2, 9), edge_index=torch.empty(2, 0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"one feature width, got \[3, 9\]"):
        coordinators([graphs[0], wide])
    assert not coordinators.is_bound
    coordinators(graphs)
    assert coordinators.is_bound
    with pytest.raises(ValueError, match="belong to 3 graphs, got 2"):
        coordinators(graphs[:2])
    with pytest.raises(ValueError, match="graphs have 9 features, the coordinators 3"):
        coordinators([wide] * 3)
    assert repr(coordinators) == "Coordinators(per_domain=1, kind='learnable', between='all', votes=True)"


@pytest.mark.parametrize("between", ["all", "none"])
def test_carried_to_a_new_graph_entry_by_entry(between: str) -> None:
    torch.manual_seed(0)
    sources = [Data(x=torch.randn(4, 3), edge_index=torch.tensor([[0, 1], [1, 0]])) for _ in range(2)]
    coordinators = Coordinators(2, between=between).bind(sources)
    target = Data(x=torch.randn(5, 3), edge_index=torch.tensor([[0, 1, 1], [1, 0, 2]]), edge_weight=torch.ones(3) * 2)
    found = coordinators.carry(target)
    dense = torch.zeros(10, 10)
    dense.index_put_((found.edge_index[1], found.edge_index[0]), found.edge_weight, accumulate=True)
    expected = torch.zeros(10, 10)
    expected[1, 0] = expected[0, 1] = expected[2, 1] = 2.0
    expected[:5, 5] = 1.0  # a node hears the newcomer as it hears a neighbour
    expected[5, :5] = 1 / 5  # the newcomer hears all nodes as one
    if between == "all":
        expected[5, 6:] = 1 / 4  # and all other coordinators as one
        expected[6:, 5] = 1.0  # they hear nobody else
    torch.testing.assert_close(dense, expected)
    torch.testing.assert_close(found.x[:5], target.x)
    torch.testing.assert_close(found.x[6:], coordinators.features.detach())
    torch.testing.assert_close(found.x[5].norm(), coordinators.features.detach().norm(dim=1).mean())
    with pytest.raises(ValueError, match="never bound"):
        Coordinators(1).carry(target)
    with pytest.raises(ValueError, match="graph has 4 features"):
        coordinators.carry(Data(x=torch.randn(5, 4), edge_index=target.edge_index))


def test_without_votes_every_edge_counts_as_one() -> None:
    torch.manual_seed(0)
    sources = [Data(x=torch.randn(6, 3), edge_index=torch.tensor([[0, 1], [1, 0]])) for _ in range(2)]
    plain = Coordinators(1, votes=False)(sources)
    assert torch.equal(plain.edge_weight, torch.ones(plain.num_edges))
    voted = Coordinators(1)(sources)
    assert torch.equal(plain.edge_index, voted.edge_index)
    into = voted.is_coordinator[voted.edge_index[1]] & ~voted.is_coordinator[voted.edge_index[0]]
    torch.testing.assert_close(voted.edge_weight[into], torch.full((12,), 1 / 6))
