"""Walks, induced graphs and ego nets against PyG in a loop."""

import itertools

import pytest
import torch
from contracts import adjacency, graphs, hard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.utils import k_hop_subgraph, subgraph

from graphfm.data import subgraphs
from graphfm.data.subgraphs import ego_nets, induced_subgraphs, k_hop_nodes, random_walks


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_graph(nodes=60, edges=150, seed=0):
    edge_index = torch.randint(nodes, (2, edges), generator=generator(seed))
    return nodes, edge_index, adjacency(nodes, edge_index)


def edge_set(edge_index):
    return sorted(map(tuple, edge_index.t().tolist()))


def slow_induced(edge_index, nodes, members):
    """Nodes in ascending order and the edges among them, renumbered."""
    chosen = torch.unique(members[members >= 0])
    return chosen, edge_set(subgraph(chosen, edge_index.long(), relabel_nodes=True, num_nodes=nodes)[0])


def parts(found, adj):
    """What each subgraph holds, and that its edges are those of the big graph."""
    for i in range(len(found)):
        node = found.node[found.ptr[i] : found.ptr[i + 1]]
        mine = slice(int(found.edge_ptr[i]), int(found.edge_ptr[i + 1]))
        local, place = found.edge_index[:, mine], found.edge[mine]
        assert torch.equal(node[local], adj.edge_index[:, place])
        assert place.unique().numel() == place.numel()
        yield node, local


@given(graphs(), st.data())
@settings(max_examples=60, deadline=None)
def test_induced_graphs_of_any_graph(graph, data):
    nodes, edge_index, _ = graph
    length = data.draw(st.integers(1, 6))
    rows = st.lists(st.integers(-1, nodes - 1), min_size=length, max_size=length)
    members = torch.tensor(data.draw(st.lists(rows, min_size=1, max_size=5)))
    adj = adjacency(nodes, edge_index)
    found = induced_subgraphs(adj, members)
    assert len(found) == members.size(0)
    for i, (node, local) in enumerate(parts(found, adj)):
        chosen, edges = slow_induced(edge_index, nodes, members[i])
        assert torch.equal(node, chosen)
        assert edge_set(local) == edges
        key = local[1] * nodes + local[0]
        assert torch.equal(key, key.sort().values)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_induced_graphs_in_any_chunks(chunk, monkeypatch):
    _, _, adj = random_graph()
    members = torch.randint(-1, 60, (13, 9), generator=generator(1))
    whole = induced_subgraphs(adj, members)
    monkeypatch.setattr(subgraphs, "_CHUNK", chunk)
    again = induced_subgraphs(adj, members)
    for name in ("node", "ptr", "edge_index", "edge", "edge_ptr"):
        assert torch.equal(getattr(whole, name), getattr(again, name)), name


def test_members_are_left_as_they_were():
    _, _, adj = random_graph()
    members = torch.tensor([[5, 3, 5, -1]])
    induced_subgraphs(adj, members)
    assert members.tolist() == [[5, 3, 5, -1]]


def test_taking_some_makes_a_batch():
    nodes, edge_index, adj = random_graph()
    members = torch.randint(-1, 60, (8, 9), generator=generator(1))
    members[3] = -1  # an empty one
    found = induced_subgraphs(adj, members)
    index = torch.tensor([6, 3, 0, 6])
    batch = found.take(index)
    assert batch.num_graphs == 4
    assert batch.num_nodes == batch.node.numel() == batch.batch.numel() == int(batch.ptr[-1])
    assert torch.equal(batch.node[batch.edge_index], adj.edge_index[:, batch.edge])
    key = batch.edge_index[1] * batch.num_nodes + batch.edge_index[0]
    assert torch.equal(key, key.sort().values)
    for i, which in enumerate(index.tolist()):
        chosen, edges = slow_induced(edge_index, nodes, members[which])
        first, last = batch.ptr[i], batch.ptr[i + 1]
        assert torch.equal(batch.node[first:last], chosen)
        assert bool((batch.batch[first:last] == i).all())
        mine = (batch.edge_index[1] >= first) & (batch.edge_index[1] < last)
        assert edge_set(batch.edge_index[:, mine] - first) == edges


def test_selecting_some_keeps_them_whole():
    _, _, adj = random_graph()
    members = torch.randint(-1, 60, (8, 9), generator=generator(1))
    members[5] = -1
    found = induced_subgraphs(adj, members)
    mask = torch.tensor([1, 0, 0, 1, 0, 1, 1, 0]).bool()
    chosen = found.select(mask)
    assert len(chosen) == 4
    rows = torch.nonzero(mask).flatten()
    for key, value in found.take(rows).to_dict().items():
        again = chosen.take(torch.arange(4))[key]
        assert torch.equal(again, value) if isinstance(value, torch.Tensor) else again == value, key
    assert len(found.select(torch.zeros(8).bool())) == 0


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
def test_k_hop_nodes(hops):
    nodes, edge_index, adj = random_graph(edges=70)
    for seeds in ([0], [3, 17], [5, 5]):
        expected = k_hop_subgraph(torch.tensor(seeds), hops, edge_index, num_nodes=nodes)[0]
        assert torch.equal(k_hop_nodes(adj, torch.tensor(seeds), hops), expected.sort().values)


def slow_ego(nodes, edge_index, centre, hops, max_hops, at_least):
    """Grow until there are enough nodes or steps."""
    for reach in range(hops, max_hops + 1):
        found = k_hop_subgraph(centre, reach, edge_index, num_nodes=nodes)[0]
        if found.numel() >= at_least:
            break
    return set(found.tolist())


@pytest.mark.parametrize(("edges", "at_least", "at_most"), [(60, 10, 1000), (150, 10, 30), (40, 1, 5), (0, 10, 30)])
def test_ego_nets_grow_and_are_cut(edges, at_least, at_most):
    nodes, edge_index, adj = random_graph(edges=edges)
    centres = torch.randperm(nodes, generator=generator(2))
    found = ego_nets(adj, centres, at_least=at_least, at_most=at_most, generator=generator())
    assert found.shape == (nodes, at_most)
    cut = 0
    for centre, row in zip(centres.tolist(), found, strict=True):
        whole = slow_ego(nodes, edge_index, centre, 2, 5, at_least)
        members = row[row >= 0].tolist()
        assert members[0] == centre
        assert len(set(members)) == len(members) == min(len(whole), at_most)
        assert set(members) <= whole
        assert bool((row[len(members) :] == -1).all())
        cut += len(whole) > at_most
    assert cut > 0 or at_most >= 30


def test_ego_nets_grow_to_five_steps_and_no_further():
    path = torch.arange(20)
    edge_index = torch.stack([path[:-1], path[1:]])  # messages go up the path
    found = ego_nets(adjacency(20, edge_index), torch.tensor([19, 3]))
    assert found[0][found[0] >= 0].sort().values.tolist() == [14, 15, 16, 17, 18, 19]
    assert found[1][found[1] >= 0].sort().values.tolist() == [0, 1, 2, 3]


def test_a_cut_ego_net_is_a_fair_choice():
    nodes = 41
    edge_index = torch.stack([torch.arange(1, nodes), torch.zeros(nodes - 1, dtype=torch.long)])
    adj = adjacency(nodes, edge_index)
    found = ego_nets(adj, torch.zeros(2000, dtype=torch.long), at_most=11, generator=generator())
    times = torch.bincount(found.flatten(), minlength=nodes)
    assert int(times[0]) == 2000
    expected, spread = 2000 * 10 / 40, (2000 * 0.25 * 0.75) ** 0.5
    assert bool(((times[1:] - expected).abs() < 5 * spread).all())
    again = ego_nets(adj, torch.zeros(2000, dtype=torch.long), at_most=11, generator=generator())
    assert torch.equal(found, again)


def test_no_centres_no_nets():
    _, _, adj = random_graph()
    assert ego_nets(adj, torch.empty(0, dtype=torch.long)).shape == (0, 30)


def test_every_step_of_a_walk_is_an_edge():
    nodes, edge_index, adj = random_graph(edges=70)
    start = torch.arange(nodes)
    walks = random_walks(adj, start, 12, generator())
    edges = set(edge_set(edge_index))
    stuck = {n for n in range(nodes) if not bool((edge_index[1] == n).any())}
    assert stuck
    assert torch.equal(walks[:, 0], start)
    for walk in walks.tolist():
        for at, to in itertools.pairwise(walk):
            assert (to, at) in edges if at not in stuck else to == at
    assert torch.equal(walks, random_walks(adj, start, 12, generator()))
    assert not torch.equal(walks, random_walks(adj, start, 12, generator(1)))


@pytest.mark.parametrize("name", ["no edges", "one node"])
def test_walks_without_edges_stay(name):
    nodes, edge_index = hard(name)
    start = torch.arange(nodes)
    walks = random_walks(adjacency(nodes, edge_index), start, 3, generator())
    assert torch.equal(walks, start[:, None].expand(-1, 4))


def chi_square(found, expected):
    return float(((found - expected) ** 2 / expected).sum())


def test_steps_are_uniform_over_the_neighbours():
    degree = 10
    edge_index = torch.stack([torch.arange(1, degree + 1), torch.zeros(degree, dtype=torch.long)])
    walks = random_walks(adjacency(degree + 1, edge_index), torch.zeros(20_000, dtype=torch.long), 1, generator())
    found = torch.bincount(walks[:, 1], minlength=degree + 1)
    assert found[0] == 0
    assert chi_square(found[1:], torch.full((degree,), 2000.0)) < 27.9  # 99.9 % of chi-square with 9 degrees


def hubs(leaves=(8, 5), peers=True):
    """Two graphs of isolated nodes, each tied to its hub (the last two nodes); the hubs tied to each other."""
    total = sum(leaves)
    owner = torch.tensor([total] * leaves[0] + [total + 1] * leaves[1])
    spokes = torch.stack([torch.arange(total), owner])
    between = torch.tensor([[total, total + 1], [total + 1, total]]) if peers else torch.empty(2, 0).long()
    return adjacency(total + 2, torch.cat([spokes, spokes.flip(0), between], 1)), total


@pytest.mark.parametrize("hop", [0.0, 0.3, 0.9])
def test_walks_on_a_hub_hop_at_the_given_rate(hop):
    adj, total = hubs()
    walks = random_walks(adj, torch.full((20_000,), total), 1, generator(), hubs_from=total, hop=hop)
    found = torch.bincount(walks[:, 1], minlength=total + 2)
    assert int(found[:8].sum() + found[total + 1]) == 20_000
    assert abs(int(found[total + 1]) - 20_000 * hop) <= 5 * (20_000 * hop * (1 - hop)) ** 0.5
    expected = torch.full((8,), 20_000 * (1 - hop) / 8)
    assert chi_square(found[:8], expected) < 26.0  # 7 degrees, and the total varies a little


def test_ordinary_nodes_do_not_hop():
    adj, total = hubs()
    walks = random_walks(adj, torch.zeros(500, dtype=torch.long), 2, generator(), hubs_from=total, hop=0.5)
    assert bool((walks[:, 1] == total).all())
    assert bool((walks[:, 2] != total).all())
    assert 0.4 < float((walks[:, 2] == total + 1).float().mean()) < 0.6


def test_a_hub_without_peers_walks_to_its_nodes():
    adj, total = hubs(peers=False)
    walks = random_walks(adj, torch.full((500,), total), 1, generator(), hubs_from=total, hop=0.9)
    assert bool((walks[:, 1] < 8).all())
