"""Use our backbone and adjacency in an ordinary PyTorch Geometric training loop.

python examples/03_our_layers_in_plain_pyg.py

A backbone takes PyG's edge_index like any PyG model. Given an Adjacency instead, it normalises the graph once and
multiplies by it from then on, which is what makes it fast on a CPU.
"""

import time

import torch
from torch.nn import functional as F
from torch_geometric.nn import GCN as PyGGCN

import graphfm
from graphfm.backbones import GCN
from graphfm.nn import Adjacency


def train(model: torch.nn.Module, x: torch.Tensor, edges: object, y: torch.Tensor, rows: torch.Tensor) -> float:
    """100 steps of ordinary training; returns the seconds they took."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    started = time.perf_counter()
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(x, edges)[rows], y[rows]).backward()
        optimizer.step()
    return time.perf_counter() - started


@torch.no_grad()
def accuracy(model: torch.nn.Module, x: torch.Tensor, edges: object, y: torch.Tensor, rows: torch.Tensor) -> float:
    """Share of ``rows`` that are classified rightly."""
    return float((model.eval()(x, edges)[rows].argmax(1) == y[rows]).float().mean())


def main() -> None:
    """Train the same network three ways on the Debian package graph."""
    data = graphfm.load("debian")
    split = graphfm.few_shot(data.y, shots=20, seed=0)
    classes = int(data.y.max()) + 1
    adjacency = Adjacency.from_edges(data.edge_index, data.num_nodes)

    torch.manual_seed(0)
    pyg = PyGGCN(data.num_features, 64, 2, classes)
    ours, fast = GCN(data.num_features, 64, 2, classes), GCN(data.num_features, 64, 2, classes)
    ours.load_state_dict(pyg.state_dict())  # the parameters have the same names
    fast.load_state_dict(pyg.state_dict())

    for name, model, edges in (
        ("PyG's GCN, edge_index", pyg, data.edge_index),
        ("our GCN, edge_index", ours, data.edge_index),
        ("our GCN, Adjacency", fast, adjacency),
    ):
        seconds = train(model, data.x, edges, data.y, split.train)
        print(f"{name:<22} {seconds:5.2f} s   accuracy {accuracy(model, data.x, edges, data.y, split.test):.3f}")


if __name__ == "__main__":
    main()
