"""The sources as one graph, against the same made by hand."""

import copy

import torch
from contracts import as_dense, dense, hard, weights
from contracts import graphs as any_graph
from hypothesis import given, settings
from torch.testing import assert_close
from torch_geometric.data import Data

from graphfm.coordinators import Coordinators
from graphfm.data.features import Unifier
from graphfm.joined import join, undirected


def sources():
    found = []
    for i, (name, width) in enumerate((("directed", 9), ("isolated nodes", 3), ("self-loops", 6))):
        nodes, edges = hard(name)
        x = torch.randn(nodes, width, generator=torch.Generator().manual_seed(i))
        found.append(Data(x=x, edge_index=edges, name=name))
    return found


@given(any_graph())
@settings(max_examples=60, deadline=None)
def test_edges_go_both_ways_once_at_their_mean_weight(graph):
    nodes, edges, weight = graph
    index, found = undirected(Data(edge_index=edges, edge_weight=weight, num_nodes=nodes))
    given_weights = {}
    values = torch.ones(edges.size(1)) if weight is None else weight
    for (a, b), w in zip(edges.t().tolist(), values.tolist(), strict=True):
        given_weights.setdefault((a, b), []).append(w)
        given_weights.setdefault((b, a), []).append(w)
    pairs = [tuple(p) for p in index.t().tolist()]
    assert sorted(pairs) == sorted(given_weights)
    if weight is None:
        assert found is None
    else:
        for pair, w in zip(pairs, found.tolist(), strict=True):
            assert abs(w - sum(given_weights[pair]) / len(given_weights[pair])) < 1e-6


def test_side_by_side():
    graphs = sources()
    unifier = Unifier(5).fit(graphs)
    joined = join(graphs, unifier, None)
    assert joined.names == ["directed", "isolated nodes", "self-loops"]
    assert joined.num_ordinary == joined.adj.num_nodes == 12
    assert joined.adj.weight is None
    assert joined.coordinators is None
    assert joined.domain.tolist() == [0] * 4 + [1] * 5 + [2] * 3
    assert_close(joined.x, torch.cat([unifier.transform(g) for g in graphs]))
    blocks = [(dense(g.num_nodes, g.edge_index) + dense(g.num_nodes, g.edge_index).t()).clamp(max=1) for g in graphs]
    assert_close(as_dense(joined.adj), torch.block_diag(*blocks))


def test_weights_of_one_graph_are_ones_of_the_others():
    graphs = sources()
    graphs[0].edge_weight = weights(graphs[0].edge_index, torch.float32)
    joined = join(graphs, Unifier(5).fit(graphs), None)
    one_way = dense(4, graphs[0].edge_index, graphs[0].edge_weight)
    assert_close(as_dense(joined.adj)[:4, :4], one_way + one_way.t(), rtol=1e-6, atol=1e-7)
    others = as_dense(joined.adj)[4:, 4:]
    assert set(others.unique().tolist()) == {0.0, 1.0}


def test_with_coordinators():
    graphs = sources()
    unifier, coordinators = Unifier(5).fit(graphs), Coordinators(2)
    before = copy.deepcopy(graphs)
    joined = join(graphs, unifier, coordinators)
    assert coordinators.is_bound
    assert joined.coordinators is coordinators
    assert (joined.num_ordinary, joined.adj.num_nodes) == (12, 18)
    assert bool((joined.x[12:] == 0).all())  # their features are a parameter, gathered later
    assert bool((joined.x[:12] != 0).any())
    assert not joined.x.requires_grad
    matrix = as_dense(joined.adj)
    assert torch.equal(matrix > 0, (matrix > 0).t())
    assert joined.domain[12:].tolist() == [0, 0, 1, 1, 2, 2]
    degree = matrix[12:].sum(1)
    assert_close(degree, torch.full_like(degree, 2.0), rtol=1e-6, atol=1e-6)  # one vote of nodes, one of others
    for a, b in zip(graphs, before, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.edge_index, b.edge_index)
