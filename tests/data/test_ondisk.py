import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from contracts import HARD, adjacency, hard, weights
from torch_geometric.data import Data

from graphfm.backbones import GCN
from graphfm.data.batches import Neighbourhoods
from graphfm.data.checks import check_graph
from graphfm.data.load import load
from graphfm.data.ondisk import open_graph
from graphfm.data.writer import GraphWriter, write_graph
from graphfm.nn.sampled import Degrees


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def same_arrays(found, expected):
    assert torch.equal(found.rowptr, expected.rowptr)
    assert torch.equal(found.col, expected.col)
    assert (found.weight is None) is (expected.weight is None)
    if expected.weight is not None:
        assert torch.equal(found.weight, expected.weight)


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_what_is_written_is_what_an_adjacency_holds(name, weighted, chunk, tmp_path):
    nodes, edge_index = hard(name)
    weight = weights(edge_index) if weighted else None
    with GraphWriter(tmp_path / "g", nodes, chunk_edges=chunk) as writer:
        writer.add_edges(edge_index[:, :2], None if weight is None else weight[:2])
        writer.add_edges(edge_index[:, 2:], None if weight is None else weight[2:])
    data, expected = open_graph(tmp_path / "g"), adjacency(nodes, edge_index, weight)
    same_arrays(data.adj, expected)
    degrees = Degrees.of(expected)
    everyone = torch.arange(nodes)
    found, wanted = data.degrees.at(data.adj, everyone), degrees.at(expected, everyone)
    for part in ("total", "loop", "plain"):
        assert torch.equal(getattr(found, part), getattr(wanted, part))
    assert os.listdir(tmp_path) == ["g"]


@pytest.mark.parametrize("weighted", [False, True])
def test_many_runs_and_a_hub_larger_than_a_chunk(weighted, tmp_path):
    nodes, edges = 300, 5000
    edge_index = torch.randint(nodes, (2, edges), generator=random())
    edge_index[1, torch.rand(edges, generator=random(1)) < 0.3] = 7
    weight = torch.rand(edges, generator=random(2)) if weighted else None
    with GraphWriter(tmp_path / "g", nodes, chunk_edges=137) as writer:
        for low in range(0, edges, 331):
            piece = slice(low, low + 331)
            writer.add_edges(edge_index[:, piece], None if weight is None else weight[piece])
    same_arrays(open_graph(tmp_path / "g").adj, adjacency(nodes, edge_index, weight))


def some_graph(nodes=40, weighted=True):
    return Data(
        x=torch.randn(nodes, 3, generator=random()),
        y=torch.arange(nodes),
        flag=torch.arange(nodes) % 3 == 0,
        cube=torch.rand(nodes, 2, 2, dtype=torch.float64, generator=random()),
        edge_index=torch.randint(nodes, (2, 300), generator=random()),
        edge_weight=torch.rand(300, generator=random()) if weighted else None,
    )


def test_node_arrays_come_back(tmp_path):
    data = some_graph()
    write_graph(data, tmp_path / "g")
    found = open_graph(tmp_path / "g")
    for key in ("x", "y", "flag", "cube"):
        assert torch.equal(found[key], data[key])
        assert found[key].dtype == data[key].dtype
    assert found.num_nodes == 40
    with GraphWriter(tmp_path / "h", 40) as writer:
        for low in range(0, 40, 7):
            writer.add_nodes(x=data.x[low : low + 7], y=data.y[low : low + 7].clone())
    assert torch.equal(open_graph(tmp_path / "h").x, data.x)
    assert open_graph(tmp_path / "h").adj.num_edges == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_batches_from_disk_are_those_from_memory(weighted, tmp_path):
    data = some_graph(weighted=weighted)
    write_graph(data, tmp_path / "g")
    data.adj = adjacency(40, data.edge_index, data.edge_weight)
    data.adj.order = None  # count edges by their place in the arrays, as on disk
    net = GCN(3, 4, 2).eval()
    for options in ({}, {"replace": True}, {"weighted": True}) if weighted else ({}, {"replace": True}):
        loaders = (Neighbourhoods(d, [3, 2], 8, **options) for d in (data, open_graph(tmp_path / "g")))
        for one, other in zip(*loaders, strict=True):
            assert torch.equal(one.n_id, other.n_id)
            assert torch.equal(one.e_id, other.e_id)
            assert torch.equal(one.x, other.x)
            assert torch.equal(net(one.x, one.adj), net(other.x, other.adj))
            other.x.add_(1.0)  # a batch is a copy: the file stays as it is
    assert torch.equal(open_graph(tmp_path / "g").x, data.x)


@pytest.mark.parametrize("name", ["x", "col", "rowptr", "weight"])
@pytest.mark.parametrize("left", [0.5, 0.999, 0.0])
def test_a_truncated_map_is_named_with_its_sizes(name, left, tmp_path):
    write_graph(some_graph(), tmp_path / "g")
    path = tmp_path / "g" / f"{name}.npy"
    size = path.stat().st_size
    os.truncate(path, int(size * left))
    with pytest.raises(ValueError, match=rf"{name}\.npy has {int(size * left)} bytes, {size} are expected: it was cut"):
        open_graph(tmp_path / "g")


def test_a_file_of_the_right_length_but_other_content(tmp_path):
    write_graph(some_graph(), tmp_path / "g")
    path = tmp_path / "g" / "x.npy"
    size = path.stat().st_size
    path.write_bytes(b"\0" * size)
    with pytest.raises(ValueError, match=r"x\.npy cannot be read as a \.npy file"):
        open_graph(tmp_path / "g")
    np.save(path, np.zeros((40, 3), dtype=np.int32))
    with pytest.raises(ValueError, match=r"x\.npy holds <i4 \[40, 3\], <f4 \[40, 3\] is expected"):
        open_graph(tmp_path / "g")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"x\.npy"):
        open_graph(tmp_path / "g")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:40], "is no JSON, or cut short"),
        (lambda text: "[]", "does not describe a graph"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "has version 2; this package reads version 1"),
        (lambda text: text.replace('"num_edges": 300', '"num_edges": 299'), "does not match its checksum"),
        (lambda text: text.replace('"x"', '"../x"'), "does not match its checksum"),
    ],
)
def test_a_damaged_header_is_refused(change, message, tmp_path):
    write_graph(some_graph(), tmp_path / "g")
    path = tmp_path / "g" / "graph.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        open_graph(tmp_path / "g")


def test_no_graph_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no graph is here"):
        open_graph(tmp_path)


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), GraphWriter(tmp_path / "g", 5) as writer:
        writer.add_edges(torch.tensor([[1], [2]]))
        raise KeyError
    with (
        pytest.raises(ValueError, match="x has 2 rows, the graph has 5 nodes"),
        GraphWriter(tmp_path / "g", 5) as writer,
    ):
        writer.add_nodes(x=torch.zeros(2, 1))
    assert os.listdir(tmp_path) == []


def test_what_is_there_is_not_overwritten(tmp_path):
    write_graph(some_graph(), tmp_path / "g")
    with pytest.raises(FileExistsError, match="something is here already"):
        GraphWriter(tmp_path / "g", 5)
    with pytest.raises(FileExistsError, match="something is here already"), GraphWriter(tmp_path / "h", 5) as writer:
        (tmp_path / "h").mkdir()
        writer.add_edges(torch.tensor([[1], [2]]))
    assert sorted(os.listdir(tmp_path)) == ["g", "h"]
    assert torch.equal(open_graph(tmp_path / "g").x, some_graph().x)


@pytest.mark.parametrize(
    ("edges", "weight", "message"),
    [
        (torch.tensor([[0], [5]]), None, r"edge_index holds 0..5, but the graph has nodes 0..4"),
        (torch.tensor([[-1], [0]]), None, r"edge_index holds -1..0"),
        (torch.tensor([0, 1]), None, r"edge_index must be integers \[2, edges\]"),
        (torch.tensor([[0.0], [1.0]]), None, "edge_index must be integers"),
        (torch.tensor([[0], [1]]), torch.ones(2), r"edge_weight must be float32 or float64 \[1\]"),
        (torch.tensor([[0], [1]]), torch.tensor([torch.nan]), "edge_weight holds NaN"),
    ],
)
def test_bad_edges_are_refused(edges, weight, message, tmp_path):
    with pytest.raises(ValueError, match=message), GraphWriter(tmp_path / "g", 5) as writer:
        writer.add_edges(edges, weight)


def test_other_bad_input_is_refused(tmp_path):
    edge = torch.tensor([[0], [1]])
    with pytest.raises(ValueError, match="with all edges or with none"), GraphWriter(tmp_path / "g", 5) as writer:
        writer.add_edges(edge)
        writer.add_edges(edge, torch.ones(1))
    with pytest.raises(ValueError, match="'col' cannot be a node array"), GraphWriter(tmp_path / "g", 5) as writer:
        writer.add_nodes(col=torch.zeros(5))
    for rows in (torch.zeros(2, 2), torch.zeros(2, 1, dtype=torch.long), torch.zeros(4, 1)):
        with pytest.raises(ValueError, match="do not go on 2 rows"), GraphWriter(tmp_path / "g", 5) as writer:
            writer.add_nodes(x=torch.zeros(2, 1))
            writer.add_nodes(x=rows)
    with pytest.raises(ValueError, match="num_nodes must lie in"):
        GraphWriter(tmp_path / "g", 0)
    weight = torch.ones(1)
    with pytest.raises(ValueError, match=r"edge_weight is torch\.float64, that of the edges before was torch\.float32"):
        with GraphWriter(tmp_path / "g", 5) as writer:
            writer.add_edges(edge, weight)
            writer.add_edges(edge, weight.double())
    for bad in (torch.eye(5).to_sparse(), torch.eye(5).bfloat16()):
        with pytest.raises(ValueError, match=r"give it as x\.to_dense\(\)\.float\(\)"):
            write_graph(Data(x=bad, edge_index=edge), tmp_path / "g")
    with pytest.raises(ValueError, match="edge_index is missing"):
        write_graph(Data(x=torch.eye(5)), tmp_path / "g")
    with pytest.raises(ValueError, match="data is empty: it has no nodes"):
        write_graph(Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=0), tmp_path / "g")
    assert not list(tmp_path.iterdir())


def test_it_loads_by_its_path_and_is_not_taken_for_a_whole_graph(tmp_path):
    data = Data(x=torch.eye(5), edge_index=torch.tensor([[0, 1], [1, 2]]))
    write_graph(data, tmp_path / "g")
    found = load(tmp_path / "g")
    assert torch.equal(found.adj.edge_index, data.edge_index)
    assert torch.equal(found.x, data.x)
    with pytest.raises(ValueError, match=r"graphs\[0\] is a graph on disk, .*Neighbourhoods"):
        check_graph(found, "graphs[0]")


READER = """
import resource, sys
import torch
from graphfm.data.batches import Neighbourhoods
from graphfm.data.ondisk import open_graph

torch.set_num_threads(1)
status = dict(line.split(":") for line in open("/proc/self/status").read().splitlines())
limit = int(status["VmData"].split()[0]) * 1024 + (30 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
data = open_graph(sys.argv[1])
batch = Neighbourhoods(data, [2], 50).batch(0)
assert batch.x.shape == (batch.num_nodes, 25)
try:
    data.x.clone()
except RuntimeError:
    print("a batch fits, a copy does not")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits private memory as Linux counts it")
def test_a_batch_needs_no_memory_for_the_rest(tmp_path):
    """100 MB of features, 30 MB more private memory than at the start: a batch fits, a copy does not.

    In a process of its own: here, memory that other tests gave back to the allocator would make room for a copy.
    """
    nodes = 1_000_000
    with GraphWriter(tmp_path / "g", nodes) as writer:
        writer.add_edges(torch.randint(nodes, (2, 1000), generator=random()))
        for _ in range(10):
            writer.add_nodes(x=torch.zeros(nodes // 10, 25))
    command = [sys.executable, "-c", READER, str(tmp_path / "g")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "a batch fits, a copy does not", done.stderr
