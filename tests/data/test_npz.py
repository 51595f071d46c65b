"""A user's own npz files: what is read, and what is said where it cannot be."""

import pickle

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array
from torch_geometric.data import Batch, Data

from graphfm.data import load, save_npz


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
        ({"edge_index": EDGE.astype(float)}, "'edge_index' must hold whole numbers"),
        ({"edge_index": np.array("a")}, "'edge_index' must hold whole numbers"),
        (
            {"edge_index": EDGE, "x": np.ones((2, 1), complex)},
            r"real numbers \[nodes, features\], got complex128",
        ),
        ({"edge_index": EDGE, "x": np.array(["a", "b"])}, "'x' must hold real numbers"),
        ({"edge_index": EDGE, "x": np.ones(3)}, "'x' must hold real numbers"),
        ({"edge_index": EDGE, "edge_weight": np.array(2.0)}, "'edge_weight' must hold real numbers"),
        ({"edge_index": EDGE, "train_mask": np.array(True)}, "'train_mask' must hold booleans"),
        ({"edge_index": EDGE, "num_nodes": np.array(1.5)}, "'num_nodes' must hold one whole number"),
        ({"edge_index": EDGE, "when": np.ones(1, "M8[s]")}, "'when' has type datetime64"),
        ({"edge_index": EDGE, "_store": np.ones(1)}, "'_store' cannot become an attribute"),
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
    wide = Data(x=data.x, edge_index=data.edge_index, edge_weight=data.edge_weight[:, None])
    with pytest.raises(ValueError, match=r"'edge_weight' must hold real numbers \[edges\]"):
        save_npz(wide, tmp_path / "g.npz")
    data.thing = {"a": 1}
    with pytest.raises(ValueError, match=r"data\.thing is a dict"):
        save_npz(data, tmp_path / "g.npz")


def test_nodes_are_counted_by_labels_else_by_edges(tmp_path):
    np.savez(tmp_path / "g.npz", edge_index=EDGE + 1)
    assert load(tmp_path / "g.npz").num_nodes == 2
    np.savez(tmp_path / "g.npz", edge_index=EDGE + 1, y=np.zeros(5, int))
    assert load(tmp_path / "g.npz").num_nodes == 5
