"""networkx and DGL, there and back."""

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData

from graphfm.data import from_dgl, from_networkx, to_dgl, to_networkx


def columns(data, weight=True):
    """Sorted (source, target, weight): the edges as a multiset."""
    weights = data.edge_weight.tolist() if weight and "edge_weight" in data else [1.0] * data.num_edges
    return sorted(zip(*data.edge_index.tolist(), weights, strict=True))


def small():
    """Nodes a, b, c and an isolated d; an edge each way, a self-loop."""
    graph = nx.DiGraph()
    for i, name in enumerate("abcd"):
        graph.add_node(name, size=float(i), pair=[i, -i], kind="odd" if i % 2 else "even")
    graph.add_weighted_edges_from([("a", "b", 0.5), ("b", "a", 2.0), ("c", "c", 3.0)])
    return graph


def test_attributes_become_tensors():
    data = from_networkx(small(), features=["size", "pair"], label="kind", weight="weight")
    assert data.x.tolist() == [[0, 0, 0], [1, 1, -1], [2, 2, -2], [3, 3, -3]]
    assert data.y.tolist() == [0, 1, 0, 1]
    assert data.label_text == ["even", "odd"]
    assert data.node_name == ["a", "b", "c", "d"]
    assert columns(data) == [(0, 1, 0.5), (1, 0, 2.0), (2, 2, 3.0)]


def test_an_undirected_edge_is_two_columns_and_a_loop_one():
    graph = nx.Graph([(0, 1), (2, 2)])
    graph.add_node(3)
    data = from_networkx(graph)
    assert columns(data) == [(0, 1, 1.0), (1, 0, 1.0), (2, 2, 1.0)]
    assert data.num_nodes == 4


@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph])
@settings(max_examples=25, deadline=None)
@given(edges=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 3)), min_size=1, max_size=12))
def test_round_trip_of_networkx(kind, edges):
    graph = kind()
    graph.add_nodes_from(range(7))
    for source, target, weight in edges:
        graph.add_edge(source, target, weight=weight / 2)
    back = to_networkx(from_networkx(graph, weight="weight"), directed=graph.is_directed())
    assert back.is_directed() == graph.is_directed()

    def ends(g):
        found = [(u, v, w) if g.is_directed() else (min(u, v), max(u, v), w) for u, v, w in g.edges(data="weight")]
        return sorted(found)

    assert list(back.nodes) == list(range(7))
    assert ends(back) == ends(graph)


def test_round_trip_of_data():
    edges = torch.tensor([[0, 1, 1, 2, 2, 2, 0], [1, 0, 2, 1, 2, 2, 1]])
    data = Data(
        x=torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
        edge_index=edges,
        edge_weight=torch.tensor([1.0, 1.0, 0.5, 0.5, 2.0, 3.0, 7.0]),
        y=torch.tensor([0, 1, -1, 1]),
        label_text=["no", "yes"],
    )
    graph = to_networkx(data)
    assert isinstance(graph, nx.MultiDiGraph)
    assert [graph.nodes[i]["label"] for i in range(4)] == ["no", "yes", "", "yes"]
    back = from_networkx(graph, features="x", label="label", weight="weight")
    assert torch.equal(back.x, data.x)
    assert torch.equal(back.y, data.y)
    assert back.label_text == data.label_text
    assert columns(back) == columns(data)


def test_direction_is_found_by_the_weights_too():
    both = torch.tensor([[0, 1], [1, 0]])
    assert not to_networkx(Data(edge_index=both, num_nodes=2)).is_directed()
    uneven = Data(edge_index=both, num_nodes=2, edge_weight=torch.tensor([1.0, 2.0]))
    assert to_networkx(uneven).is_directed()
    with pytest.raises(ValueError, match="directed=False"):
        to_networkx(uneven, directed=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"features": "height"}, "'height' of node 'a' is missing"),
        ({"features": "kind"}, "'kind' of node 'a' is 'even'"),
        ({"features": []}, "names no attribute"),
        ({"label": "height"}, "no node has the attribute 'height'"),
        ({"weight": "height"}, r"'height' of edge \('a', 'b'\) is missing"),
    ],
)
def test_errors_name_the_attribute(arguments, words):
    with pytest.raises(ValueError, match=words):
        from_networkx(small(), **arguments)


def test_uneven_features_and_no_nodes():
    graph = small()
    graph.nodes["b"]["pair"] = [1, 2, 3]
    with pytest.raises(ValueError, match=r"'pair' has \[2, 3\] numbers"):
        from_networkx(graph, features="pair")
    with pytest.raises(ValueError, match="empty"):
        from_networkx(nx.Graph())


def test_labels_that_are_numbers_stay():
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, {0: 4.0, 1: 2.0}, "y")
    data = from_networkx(graph, label="y")
    assert data.y.tolist() == [4, 2, -1]
    assert "label_text" not in data


class TestDGL:
    @pytest.fixture(autouse=True)
    def dgl(self):
        self.dgl = pytest.importorskip("dgl", reason="DGL is not installed (extra 'dgl')", exc_type=ImportError)

    def test_round_trip(self):
        data = Data(
            x=torch.randn(5, 3),
            edge_index=torch.tensor([[0, 0, 1, 2, 0], [1, 1, 0, 2, 3]]),
            edge_weight=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]),
            edge_attr=torch.randn(5, 2),
            y=torch.arange(5),
            train_mask=torch.tensor([True, False, False, False, True]),
        )
        graph = to_dgl(data)
        assert graph.num_nodes() == 5
        assert torch.equal(graph.ndata["feat"], data.x)
        back = from_dgl(graph)
        for key in ("x", "edge_index", "edge_weight", "edge_attr", "y", "train_mask"):
            assert torch.equal(back[key], data[key]), key
        assert back.num_nodes == 5

    def test_isolated_nodes_without_data(self):
        back = from_dgl(self.dgl.graph(([0], [1]), num_nodes=6))
        assert back.num_nodes == 6
        assert to_dgl(back).num_nodes() == 6

    def test_types_are_kept(self):
        data = HeteroData()
        data["author"].x = torch.randn(3, 2)
        data["paper"].num_nodes = 4
        data["author", "writes", "paper"].edge_index = torch.tensor([[0, 1, 1], [0, 0, 2]])
        data["author", "writes", "paper"].edge_weight = torch.tensor([1.0, 2.0, 3.0])
        data["paper", "cites", "paper"].edge_index = torch.tensor([[0, 0], [1, 1]])
        back = from_dgl(to_dgl(data))
        assert set(back.node_types) == {"author", "paper"}
        assert set(back.edge_types) == set(data.edge_types)
        assert back["paper"].num_nodes == 4
        assert torch.equal(back["author"].x, data["author"].x)
        for kind in data.edge_types:
            assert torch.equal(back[kind].edge_index, data[kind].edge_index)
        writes = ("author", "writes", "paper")
        assert torch.equal(back[writes].edge_weight, data[writes].edge_weight)

    def test_own_names(self):
        graph = self.dgl.graph(([0], [1]))
        graph.ndata["h"] = torch.ones(2, 3)
        graph.edata["w"] = torch.tensor([0.5])
        data = from_dgl(graph, features="h", weight="w")
        assert data.x.shape == (2, 3)
        assert data.edge_weight.tolist() == [0.5]
        with pytest.raises(ValueError, match="label names 'c'"):
            from_dgl(graph, label="c")

    def test_wrong_types(self):
        with pytest.raises(ValueError, match=r"dgl\.DGLGraph, got Graph"):
            from_dgl(nx.Graph())
        with pytest.raises(ValueError, match="Data or HeteroData, got Graph"):
            to_dgl(nx.Graph())


def test_without_dgl_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dgl", None)
    with pytest.raises(ImportError, match=r"graphfm\[dgl\]"):
        to_dgl(Data(x=torch.ones(1, 1), edge_index=torch.empty(2, 0, dtype=torch.long)))


def test_inputs_are_not_edited():
    data = from_networkx(small(), weight="weight")
    before = data.clone()
    to_networkx(data)
    assert data.keys() == before.keys()
    assert torch.equal(data.edge_index, before.edge_index)
    assert torch.equal(data.edge_weight, before.edge_weight)
