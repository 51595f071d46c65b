"""The list of names, and the description of a graph."""

import dataclasses
import subprocess
import sys

import networkx as nx
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import homophily

from graphfm.data import catalogue, describe, from_networkx


def test_entries(monkeypatch):
    monkeypatch.delenv("GRAPHFM_DATA", raising=False)
    entries = {entry.name: entry for entry in catalogue()}
    assert len(entries) == len(catalogue())
    assert {"debian", "cora", "mutag", "ogbn-arxiv", "tag/cora", "imdb-binary", "cs"} <= set(entries)
    assert {entry.where for entry in entries.values()} == {"embedded", "download", "root"}
    assert all((entry.where == "root") == (entry.kind in ("tag", "glbench")) for entry in entries.values())
    assert entries["debian"].text
    assert entries["ogbn-products"].extra == "ogb"
    assert entries["cora"].kind == "planetoid"
    with pytest.raises(dataclasses.FrozenInstanceError):
        entries["cora"].name = "other"


def test_what_lies_in_the_root_is_local(tmp_path):
    for folder in ("Planetoid/Cora/raw", "TUDataset/DD/raw", "tag/mine"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tag" / "mine" / "graph.npz").touch()
    where = {entry.name: entry.where for entry in catalogue(tmp_path)}
    assert [name for name, place in where.items() if place == "local"] == ["cora", "tu:DD", "tag/mine"]


def test_a_root_that_is_none(monkeypatch):
    monkeypatch.setenv("GRAPHFM_DATA", "/nowhere")
    with pytest.raises(FileNotFoundError, match="GRAPHFM_DATA names '/nowhere'"):
        catalogue()


def test_names_come_without_torch():
    code = (
        "import sys, graphfm.data; from graphfm.data import catalogue, load; import graphfm.data.load;"
        "assert graphfm.data.load is load and callable(load) and callable(graphfm.data.catalogue);"
        "catalogue(); assert not {'torch', 'torch_geometric', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    import graphfm.data

    for name in graphfm.data.__all__:
        assert getattr(graphfm.data, name) is not None
    assert set(graphfm.data.__all__) <= set(dir(graphfm.data))
    with pytest.raises(AttributeError, match="nothing"):
        _ = graphfm.data.nothing


def test_describe_against_networkx():
    graph = nx.karate_club_graph()
    graph.add_node(34, club="Officer")
    graph.add_edge(0, 0)
    data = from_networkx(graph, label="club")
    found = describe(data)
    assert found["nodes"] == graph.number_of_nodes()
    assert found["edges"] == 2 * (graph.number_of_edges() - 1) + 1
    assert found["self_loops"] == nx.number_of_selfloops(graph)
    assert found["isolated"] == nx.number_of_isolates(graph) == 1
    assert found["undirected"]
    assert found["classes"] == 2
    assert found["class_counts"] == {"Mr. Hi": 17, "Officer": 18}
    assert found["homophily"] == pytest.approx(homophily(data.edge_index, data.y, method="edge"))
    assert found["mean_degree"] == pytest.approx(found["edges"] / 35)
    assert found["features"] == 0
    assert not found["text"]


def test_unlabelled_nodes_take_no_part():
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    data = Data(x=torch.ones(3, 1), edge_index=edges, y=torch.tensor([1.0, 1.0, float("nan")]), text=["", "", ""])
    found = describe(data)
    assert found["homophily"] == 1.0
    assert found["class_counts"] == {"0": 0, "1": 2}
    assert found["classes"] == 1
    assert not found["undirected"]
    assert found["text"]


def test_numbers_are_no_classes():
    data = Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [1]]), y=torch.tensor([0.5, 1.5]))
    assert describe(data)["classes"] == 0
    assert describe(data)["homophily"] is None


def test_batches_and_graphs_without_edges():
    graph = Data(x=torch.ones(2, 3), edge_index=torch.empty(2, 0, dtype=torch.long), y=torch.tensor([1]))
    found = describe(Batch.from_data_list([graph, graph, graph]))
    assert (found["graphs"], found["nodes"], found["isolated"], found["homophily"]) == (3, 6, 6, None)
    assert found["class_counts"] == {"0": 0, "1": 3}
    assert describe(Data(x=torch.ones(2, 3), edge_index=None))["edges"] == 0
