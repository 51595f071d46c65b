"""A user's own tables: what is read, and what is said where it cannot be."""

import numpy as np
import pytest

from graphfm.data import load
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
