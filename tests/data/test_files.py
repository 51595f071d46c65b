"""A user's own files: what is read, and what is said where it cannot be."""

import pickle

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array
from torch_geometric.data import Batch, Data

from graphfm.data import load, save_npz
from graphfm.data.files import encode_labels


def write(folder, **tables):
    for name, lines in tables.items():
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def tables(tmp_path):
    nodes = ["id,label,height,text,width", "a,red,1,one,0.5", 'b,,2,"two, three",1.5', "c,blue,-3,é,2e3"]
    return write(tmp_path, nodes=nodes, edges=["source,target,weight", "a,b,0.5", "b,a,2", "c,c,1", "a,b,4"])


def test_csv(tables):
    data = load(tables)
    assert data.x.tolist() == [[1, 0.5], [2, 1.5], [-3, 2000]]
    assert data.feature_name == ["height", "width"]
    assert data.edge_index.tolist() == [[0, 1, 2, 0], [1, 0, 2, 1]]
    assert data.edge_weight.tolist() == [0.5, 2, 1, 4]
    assert data.y.tolist() == [1, -1, 0]
    assert data.label_text == ["blue", "red"]
    assert data.text == ["one", "two, three", "é"]
    assert data.node_name == ["a", "b", "c"]
    assert data.name == tables.name


def test_the_table_itself_and_other_names(tables):
    (tables / "edges.csv").rename(tables / "my_edges.csv")
    (tables / "nodes.csv").rename(tables / "my_nodes.csv")
    data = load(str(tables / "my_edges.csv"))
    assert data.num_nodes == 3
    assert data.name == "my_edges"


def test_edges_alone(tmp_path):
    data = load(write(tmp_path, edges=["target,source", "x,y", "z,x"]))
    assert data.node_name == ["y", "x", "z"]
    assert data.edge_index.tolist() == [[0, 1], [1, 2]]
    assert data.x is None
    assert data.num_nodes == 3


def test_text_becomes_features_where_there_are_no_numbers(tmp_path):
    folder = write(tmp_path, edges=["source,target", "1,2"], nodes=["id,text", "1,green tea", "2,black tea", "3,green"])
    data = load(folder)
    assert data.x.shape == (3, 128)
    assert data.num_nodes == 3


@pytest.mark.parametrize(
    ("table", "lines", "words"),
    [
        ("edges", ["from,target", "a,b"], r"edges\.csv: column 'source' is missing.*'from'"),
        ("edges", ["source,target", "a,z"], r"edges\.csv, line 2, column 'target': id 'z' is not in .*nodes\.csv"),
        ("edges", ["source,target,weight", "a,b,heavy"], r"line 2, column 'weight': 'heavy' is no number"),
        ("edges", ["source,target", "a,b,c"], r"line 2: 3 fields, .* 2 columns"),
        ("edges", ["source,target,weight", "a,b,nan"], "NaN or infinite"),
        ("edges", [], r"column 'source' is missing"),
        ("nodes", ["name", "a"], r"nodes\.csv: column 'id' is missing"),
        ("nodes", ["id", "a", "b", "a"], r"line 4, column 'id': 'a' appears twice"),
        ("nodes", ["id,f", "a,1", "b,", "c,2"], r"line 3, column 'f': '' is no number"),
        ("nodes", ["id,f,f", "a,1,2"], "appears twice"),
    ],
)
def test_csv_errors(tables, table, lines, words):
    write(tables, **{table: lines})
    with pytest.raises(ValueError, match=words):
        load(tables)


def test_bytes_that_are_no_text(tables):
    (tables / "nodes.csv").write_bytes(b"id\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"nodes\.csv cannot be read as UTF-8"):
        load(tables)


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        (["3", "", "1"], [3, -1, 1], []),
        ([2.0, None, float("nan")], [2, -1, -1], []),
        (["b", "a", "", "b"], [1, 0, -1, 1], ["a", "b"]),
        (["0.5", "1"], [0, 1], ["0.5", "1"]),
        ([np.int64(4), True], [0, 1], ["4", "True"]),
    ],
)
def test_labels(labels, numbers, names):
    y, known = encode_labels(labels)
    assert y.tolist() == numbers
    assert known == names


def full(sparse):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 40, generator=generator)
    return Data(
        x=x * (torch.rand(6, 40, generator=generator) < 0.05) if sparse else x,
        edge_index=torch.tensor([[0, 1, 5], [1, 0, 5]]),
        edge_weight=torch.tensor([0.1, 0.2, 0.3]),
        edge_attr=torch.randn(3, 2, generator=generator),
        y=torch.tensor([0, 1, 0, 1, -1, 1]),
        train_mask=torch.eye(6, dtype=torch.bool)[:, :2],
        text=["", "a", "é\0", "x" * 1000, "\n", "z"],
        label_text=["no", "yes"],
        name="mine",
        year=2020,
    )


@pytest.mark.parametrize("sparse", [True, False])
def test_npz_round_trip(tmp_path, sparse):
    data = full(sparse)
    save_npz(data, tmp_path / "g.npz")
    back = load(tmp_path / "g.npz")
    assert set(back.keys()) == set(data.keys())
    for key, value in data.to_dict().items():
        assert torch.equal(back[key], value) if torch.is_tensor(value) else back[key] == value, key
    assert ("x_indptr" in np.load(tmp_path / "g.npz")) is sparse


def test_npz_without_features_keeps_isolated_nodes(tmp_path):
    save_npz(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=9), tmp_path / "g.npz")
    back = load(str(tmp_path / "g.npz"))
    assert back.num_nodes == 9
    assert back.name == "g"


def test_npz_written_by_hand(tmp_path):
    x = random_array((5, 7), density=0.3, format="csr", dtype=np.float64, rng=np.random.default_rng(0))
    parts = {"x_data": x.data, "x_indices": x.indices, "x_indptr": x.indptr, "x_shape": np.array(x.shape)}
    path = tmp_path / "hand.npz"
    np.savez(path, **parts, edge_index=np.zeros((2, 1), np.int32), y=np.array(["b", "a", "", "a", "b"]))
    data = load(path)
    assert np.allclose(data.x.numpy(), csr_array(x).toarray())
    assert data.edge_index.dtype == torch.int64
    assert data.y.tolist() == [1, 0, -1, 0, 1]
    assert data.label_text == ["a", "b"]


EDGE = np.zeros((2, 1), np.int64)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.ones((2, 2))}, r"g\.npz: array 'edge_index' \[2, edges\] is missing; it holds \['x'\]"),
        ({"edge_index": EDGE, "x": np.ones((1, 1)), "y": np.ones(3, int)}, r"y has 3 entries"),
        ({"edge_index": EDGE + 4, "x": np.ones((2, 1))}, r"has nodes 0\.\.1"),
        ({"edge_index": EDGE.astype(float), "x": np.ones((2, 1))}, "'edge_index' must hold integers"),
        ({"edge_index": EDGE, "x_data": np.ones(2)}, "only x_data are there"),
        ({"edge_index": EDGE, "x": np.ones((2, 1)), "train_mask": np.ones(3, bool)}, "train_mask has 3 entries"),
        ({"edge_index": EDGE, "y": np.array([{"a": 1}], dtype=object)}, "array 'y' holds pickled Python objects"),
        ({"edge_index": EDGE, "x": np.array([[np.nan], [1]])}, "NaN or infinite"),
        ({"edge_index": EDGE, "x": np.ones((1, 1)), "t_utf8": np.ones(1, np.uint8)}, "'t_offsets' beside it"),
        (
            {
                "edge_index": EDGE,
                "x_data": np.ones(2),
                "x_indices": np.array([0, 9]),
                "x_indptr": np.array([0, 1, 2]),
                "x_shape": np.array([2, 2]),
            },
            "do not fit together",
        ),
    ],
)
def test_npz_errors(tmp_path, arrays, words):
    np.savez(tmp_path / "g.npz", **arrays)
    with pytest.raises(ValueError, match=words):
        load(tmp_path / "g.npz")


@pytest.mark.parametrize("keep", [0, 10, 300, -30])
def test_a_truncated_npz_is_named(tmp_path, keep):
    path = tmp_path / "cut.npz"
    save_npz(full(False), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cut\.npz cannot be read"):
        load(path)


def test_a_bare_array_is_no_graph(tmp_path):
    with (tmp_path / "g.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match="one bare array"):
        load(tmp_path / "g.npz")


def test_nothing_is_unpickled(tmp_path):
    ran = tmp_path / "ran"

    class Bad:
        def __reduce__(self):
            return ran.write_text, ("",)

    path = tmp_path / "bad.npz"
    path.write_bytes(pickle.dumps(Bad()))
    with pytest.raises(ValueError, match=r"bad\.npz"):
        load(path)
    np.savez(path, edge_index=np.array([[Bad()]], dtype=object))
    with pytest.raises(ValueError, match="refused"):
        load(path)
    assert not ran.exists()


def test_what_cannot_be_saved(tmp_path):
    data = full(False)
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        save_npz(data, tmp_path / "g.pt")
    with pytest.raises(ValueError, match="DataBatch"):
        save_npz(Batch.from_data_list([Data(x=torch.ones(1, 1), edge_index=torch.empty(2, 0).long())]), "g.npz")
    data.thing = {"a": 1}
    with pytest.raises(ValueError, match=r"data\.thing is a dict"):
        save_npz(data, tmp_path / "g.npz")


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="is no file"):
        load("none.npz")
    with pytest.raises(ValueError, match=r"neither edges\.csv"):
        load(tmp_path)
    (tmp_path / "g.xyz").touch()
    with pytest.raises(ValueError, match=r"'\.xyz' is not known"):
        load(tmp_path / "g.xyz")
