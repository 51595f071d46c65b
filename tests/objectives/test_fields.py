"""What objectives share: who may stand in for whom, what is chosen, and the fate of node pairs."""

import pytest
import torch
from test_augment import make_batch
from torch_geometric.data import Data

from graphfm.data.batches import Neighbourhoods
from graphfm.objectives.fields import Kin, adjacency, chosen, graph_of, ordinary, reweighted
from graphfm.objectives.pairs import pair_key, uniform


def test_sampled_neighbourhoods_keep_the_normalisation_of_the_whole_graph():
    random = torch.Generator().manual_seed(0)
    data = Data(x=torch.randn(60, 4, generator=random), edge_index=torch.randint(60, (2, 400), generator=random))
    batch = Neighbourhoods(data, [3], 10).batch(0)
    found = adjacency(batch)
    assert found is batch.adj
    degree = (
        torch.bincount(data.edge_index[1], minlength=60)
        + 1
        - (data.edge_index[0] == data.edge_index[1]).long() @ (torch.nn.functional.one_hot(data.edge_index[1], 60))
    )
    halved = reweighted(found, torch.full((found.num_edges,), 0.5))
    for adj, factor in ((found, 1.0), (halved, 0.5)):
        form = adj.gcn()
        source, target = form.edge_index
        scale = degree[batch.n_id].float().rsqrt()
        drawn = torch.zeros(batch.num_nodes, batch.num_nodes).index_put_(
            (found.row, found.col), factor * found.weight, accumulate=True
        )
        drawn.fill_diagonal_(1.0)
        expected = scale[:, None] * drawn * scale[None, :]
        whole = torch.zeros_like(expected).index_put_((target, source), form.weight, accumulate=True)
        torch.testing.assert_close(whole, expected)
    batch.edge_index = batch.edge_index[:, 1:]
    assert adjacency(batch).num_edges == found.num_edges - 1
    assert adjacency(Data(x=data.x, edge_index=data.edge_index, adj=torch.eye(60))).num_edges == 400


def two_types():
    """Two graphs of users, items and a coordinator each."""
    return Data(
        x=torch.zeros(12, 1),
        edge_index=torch.empty(2, 0, dtype=torch.long),
        batch=torch.tensor([0] * 6 + [1] * 6),
        ptr=torch.tensor([0, 6, 12]),
        node_type=torch.tensor([0, 1, 0, 1, 1, 0, 1, 0, 1, 1, 1, 0]),
        is_coordinator=torch.tensor(([False] * 5 + [True]) * 2),
    )


def test_kin_is_of_the_same_graph_type_and_standing():
    batch = two_types()
    kin = Kin(batch)
    facts = list(zip(batch.batch.tolist(), batch.node_type.tolist(), batch.is_coordinator.tolist(), strict=True))
    torch.manual_seed(0)
    nodes = torch.arange(12).repeat(400)
    drawn = kin.draw(nodes)
    for node in range(12):
        found = drawn[nodes == node]
        members = {i for i in range(12) if facts[i] == facts[node]}
        assert set(found.tolist()) == members
        share = torch.bincount(found, minlength=12)[sorted(members)] / 400
        assert bool(((share - 1 / len(members)).abs() < 0.12).all())


def test_kin_within_a_graph_that_coordinators_join_is_of_the_same_domain():
    batch = two_types()
    batch.domain = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 0, 2, 2, 2])
    fields = (batch.batch, batch.domain, batch.node_type, batch.is_coordinator)
    facts = list(zip(*(field.tolist() for field in fields), strict=True))
    torch.manual_seed(0)
    nodes = torch.arange(12).repeat(400)
    drawn = Kin(batch).draw(nodes)
    for node in range(12):
        assert set(drawn[nodes == node].tolist()) == {i for i in range(12) if facts[i] == facts[node]}


def test_far_kin_is_of_the_same_domain_in_whatever_graph():
    batch = two_types()
    batch.domain = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 0, 2, 2, 2])  # a graph may span domains
    facts = list(zip(batch.domain.tolist(), batch.node_type.tolist(), batch.is_coordinator.tolist(), strict=True))
    torch.manual_seed(0)
    nodes = torch.arange(12).repeat(400)
    drawn = Kin(batch, far=True).draw(nodes)
    for node in range(12):
        assert set(drawn[nodes == node].tolist()) == {i for i in range(12) if facts[i] == facts[node]}
    del batch.domain
    assert torch.equal(Kin(batch, far=True).group, Kin(batch).group)


def test_a_shuffle_is_a_permutation_among_kin_and_every_one_is_as_likely():
    batch = two_types()
    kin, seen = Kin(batch), {}
    torch.manual_seed(0)
    for _ in range(600):
        order = kin.shuffle()
        assert sorted(order.tolist()) == list(range(12))
        assert bool((kin.group[order] == kin.group).all())
        three = tuple(order[[1, 3, 4]].tolist())  # the items of the first graph
        seen[three] = seen.get(three, 0) + 1
    assert len(seen) == 6
    assert all(60 < n < 145 for n in seen.values())


def test_a_graph_without_fields_is_one_graph_of_ordinary_nodes():
    graph = Data(x=torch.zeros(3, 1), edge_index=torch.tensor([[0], [1]]))
    index, count = graph_of(graph)
    assert (index.tolist(), count) == ([0, 0, 0], 1)
    assert ordinary(graph).tolist() == [True] * 3
    index, count = graph_of(Data(x=torch.zeros(3, 1), batch=torch.tensor([0, 0, 1])))
    assert (index.tolist(), count) == ([0, 0, 1], 2)


def test_chosen_takes_its_share_of_the_candidates_and_at_least_one():
    torch.manual_seed(0)
    candidate = torch.arange(10_000) % 2 == 0
    hit = chosen(torch.rand(10_000), candidate, 0.3)
    assert not bool((hit & ~candidate).any())
    assert float(hit.sum()) / 5000 == pytest.approx(0.3, abs=0.03)
    luck = torch.tensor([0.9, 0.1, 0.8])
    assert chosen(luck, torch.tensor([True, False, True]), 0.01).tolist() == [False, False, True]
    assert chosen(luck, torch.zeros(3, dtype=torch.bool), 0.5).tolist() == [False] * 3
    assert chosen(luck[:0], torch.zeros(0, dtype=torch.bool), 0.5).numel() == 0


def test_both_directions_of_an_edge_draw_alike_and_all_edges_uniformly():
    torch.manual_seed(0)
    edges = make_batch((400,)).edge_index
    luck = uniform(pair_key(edges, 400))
    assert torch.equal(luck, uniform(pair_key(edges, 400))) is False
    torch.manual_seed(1)
    there = uniform(pair_key(edges, 400))
    torch.manual_seed(1)
    assert torch.equal(there, uniform(pair_key(edges.flip(0), 400)))
    counts = torch.histc(torch.unique(there), 10, 0, 1)
    assert bool(((counts / counts.sum() - 0.1).abs() < 0.03).all())
