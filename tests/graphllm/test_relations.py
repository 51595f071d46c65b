"""Surroundings of nodes against the slow obvious way: distances by search, PageRank solved in float64."""

import networkx as nx
import pytest
import torch

from graphfm.graphllm.predictors.relations import chosen, pagerank, relations, rings
from graphfm.nn import Adjacency


@pytest.fixture(scope="module")
def graph():
    """Thirty nodes, two components, one node alone."""
    found = nx.gnm_random_graph(24, 40, seed=3)
    found.add_edges_from([(25, 26), (26, 27), (27, 28)])
    found.add_nodes_from(range(30))
    return found


@pytest.fixture(scope="module")
def adj(graph):
    ends = torch.tensor(list(graph.edges)).t()
    return Adjacency.from_edges(torch.cat([ends, ends.flip(0)], dim=1), 30)


def test_rings_are_distances(graph, adj):
    found = rings(adj, torch.arange(30), 3)
    for root in range(30):
        away = nx.single_source_shortest_path_length(graph, root, cutoff=3)
        for step, ring in enumerate(found, start=1):
            assert set(ring[:, root].nonzero().flatten().tolist()) == {n for n, d in away.items() if d == step}


def test_pagerank_is_the_solution_of_its_equation(graph, adj):
    dense = torch.from_numpy(nx.to_numpy_array(graph, nodelist=range(30)))
    walk = dense / dense.sum(0).clamp(min=1)
    wanted = 0.2 * torch.linalg.inv(torch.eye(30, dtype=torch.float64) - 0.8 * walk)
    found = pagerank(adj, torch.tensor([0, 7, 26, 29]), 0.2, 100)
    torch.testing.assert_close(found.double(), wanted[:, [0, 7, 26, 29]], atol=1e-6, rtol=1e-4)


def test_relations_take_the_nearest_members_and_never_the_node(graph, adj):
    roots = torch.tensor([5, 29, 0])
    rank = pagerank(adj, roots, 0.15, 30)
    found = relations(adj, roots, 4)
    for column, root in enumerate(roots.tolist()):
        away = nx.single_source_shortest_path_length(graph, root)
        kinds = [{n for n, d in away.items() if d == 1}, {n for n, d in away.items() if d == 2}, set(away) - {root}]
        for ids, members in zip(found, kinds, strict=True):
            row = [node for node in ids[column].tolist() if node != 30]
            assert len(row) == len(set(row)) == min(4, len(members))
            assert set(row) <= members
            left = [rank[node, column] for node in members - set(row)]
            assert not left or min(rank[node, column] for node in row) >= max(left)
    alone = relations(adj, torch.tensor([5]), 4)
    assert all(torch.equal(one[0], many[0]) for one, many in zip(alone, found, strict=True)), "not of the batch"


def test_chosen_fills_up_with_nobody():
    members = torch.tensor([[True, False], [True, False]])
    assert chosen(members, torch.tensor([[1.0, 1.0], [2.0, 2.0]]), 4).tolist() == [[1, 0, 2, 2], [2, 2, 2, 2]]


def test_weights_change_pagerank_and_not_distances():
    ends = torch.tensor([[0, 0, 1, 2], [1, 2, 0, 0]])
    adj = Adjacency.from_edges(ends, 3, torch.tensor([1.0, 3.0, 1.0, 3.0]))
    assert rings(adj, torch.tensor([0]), 1)[0].flatten().tolist() == [False, True, True]
    assert relations(adj, torch.tensor([0]), 1)[0].tolist() == [[2]]
