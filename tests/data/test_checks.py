"""Every complaint about a graph or its labels names the argument and what came."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from graphfm.data.checks import check_graph, check_labels

EDGES = torch.tensor([[0, 1, 2], [1, 2, 3]])


def graph(**changes):
    return Data(**({"x": torch.ones(4, 3), "edge_index": EDGES} | changes))


def spoiled(value):
    x = torch.ones(4, 3)
    x[1, 2] = value
    return x


BAD = {
    "no features": (graph(x=None, num_nodes=4), r"g\.x is missing.*structural_features\(g\)"),
    "vector of features": (graph(x=torch.ones(4)), r"g\.x must have two dimensions.*\[4\]"),
    "rows": (graph(num_nodes=5), r"g\.x has 4 rows, g has 5 nodes"),
    "NaN": (graph(x=spoiled(float("nan"))), r"g\.x holds 1 NaN or infinite.*nan_to_num"),
    "infinity": (graph(x=spoiled(float("inf"))), r"g\.x holds 1 NaN or infinite"),
    "sparse NaN": (graph(x=spoiled(float("nan")).to_sparse_csr()), r"g\.x holds 1 NaN"),
    "no edges given": (graph(edge_index=None), r"g\.edge_index is missing.*\[2, 0\]"),
    "edge shape": (graph(edge_index=torch.zeros(3, 2).long()), r"g\.edge_index must be an integer.*\[3, 2\]"),
    "edge type": (graph(edge_index=EDGES.float()), r"g\.edge_index must be an integer.*float32"),
    "edge out of range": (graph(edge_index=EDGES + 1), r"g\.edge_index holds 1\.\.4, but g has nodes 0\.\.3"),
    "negative edge": (graph(edge_index=EDGES - 1), r"g\.edge_index holds -1\.\.2"),
    "number of weights": (graph(edge_weight=torch.ones(2)), r"g\.edge_weight has 2 entries for 3 edges"),
    "weights in a column": (graph(edge_weight=torch.ones(3, 1)), r"g: 'edge_weight' must hold.*\[3, 1\]"),
    "NaN weights": (graph(edge_weight=torch.tensor([1.0, float("nan"), 1.0])), r"g\.edge_weight holds NaN"),
    "labels": (graph(y=torch.zeros(3).long()), r"g\.y has 3 entries, g has 4 nodes"),
    "numpy features": (graph(x=np.ones((4, 3))), r"g\.x must be a torch tensor, got ndarray; use torch\.as_tensor"),
    "listed edges": (graph(edge_index=[[0], [1]], num_nodes=4), r"g\.edge_index must be a torch tensor, got list"),
    "empty": (Data(x=torch.empty(0, 3), edge_index=torch.empty(2, 0).long()), "g is empty"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_graphs(case):
    data, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        check_graph(data, "g")


@pytest.mark.parametrize("thing", [None, torch.ones(3), {"x": 1}], ids=["None", "tensor", "dict"])
def test_what_is_no_graph(thing):
    with pytest.raises(TypeError, match=r"g must be a torch_geometric\.data\.Data, got"):
        check_graph(thing, "g")


@pytest.mark.parametrize(
    "data",
    [
        graph(),
        graph(edge_index=torch.empty(2, 0).long()),
        graph(edge_index=EDGES.int(), edge_weight=torch.ones(3), y=torch.zeros(4)),
        graph(x=torch.eye(4).to_sparse_csr()),
        graph(x=torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 2.0], (4, 3))),  # not coalesced
        graph(x=torch.ones(4, 3, dtype=torch.long)),
    ],
    ids=["plain", "no edges", "int32 and weights", "CSR features", "COO features", "integer features"],
)
def test_good_graphs_come_back_as_they_are(data):
    assert check_graph(data) is data
    assert check_graph(Data(edge_index=EDGES, num_nodes=4), features=False).x is None


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "y is missing.*-1 where unknown"),
        ([0, 1], "y must be a torch tensor, got list"),
        (torch.zeros(2, 3), r"y must have shape \[nodes\], got \[2, 3\]"),
        (torch.tensor([0.5, 1.0]), "y must hold class numbers"),
        (torch.tensor([0.0, float("inf")]), "y must hold class numbers"),
        (torch.tensor([1, 1, 1]), r"y holds 1 class\(es\)"),
        (torch.tensor([-1, -1, 0]), r"y holds 1 class\(es\)"),
        (torch.tensor([-1, -1]), r"y holds 0 class\(es\)"),
    ],
    ids=["none", "list", "matrix", "fractions", "infinity", "one class", "one known class", "nothing known"],
)
def test_bad_labels(y, message):
    with pytest.raises(ValueError, match=message):
        check_labels(y, "y")


def test_good_labels_become_integers():
    assert check_labels(torch.tensor([0.0, float("nan"), 2.0])).tolist() == [0, -1, 2]
    assert check_labels(torch.tensor([[1], [0]])).tolist() == [1, 0]
    assert check_labels(torch.tensor([True, False])).dtype == torch.int64
    assert check_labels(torch.tensor([0, 3], dtype=torch.uint8)).tolist() == [0, 3]
