"""Cluster nodes: k-means on what a pretrained backbone makes of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.baselines.clusters import ClusterFloor, check_clusters, cluster_floor, kmeans
from graphfm.data.checks import check_graph, check_labels
from graphfm.device import as_device
from graphfm.methods import Recipe
from graphfm.metrics import clustering_scores
from graphfm.pretrained import Pretrained
from graphfm.readout import Readout
from graphfm.results import Result
from graphfm.tasks.grid import Cell, Grid, check_methods, model_cells
from graphfm.tasks.network import own_network, read_graph

__all__ = ["CLUSTER_METHODS", "cluster", "evaluate_clustering"]

CLUSTER_METHODS = ("embedding", "readout")


@torch.no_grad()
def cluster(
    pretrained: Pretrained,
    data: Data,
    clusters: int,
    *,
    method: str = "readout",
    seed: int,
    restarts: int = 10,
    device: torch.device | str | None = None,
) -> Tensor:
    """Cluster numbers ``[N]`` by k-means on rows of the frozen backbone; no label is read.

    Args:
        pretrained: what :func:`graphfm.pretrain` returned.
        data: the target graph.
        clusters: how many.
        method: ``"embedding"`` (the rows of the backbone, centred, of unit length) or ``"readout"`` (those, the
            unified features, and the averages of both over 1 and 2 steps: :class:`graphfm.readout.Readout`).
        seed: of the starts of k-means.
        restarts: starts, of which the best by inertia is kept.
        device: where the backbone runs.

    Raises:
        ValueError: a bad graph or option, or more clusters than nodes.
    """
    if method not in CLUSTER_METHODS:
        raise ValueError(f"method must be one of {CLUSTER_METHODS}, got {method!r}.")
    check_graph(data, "data", features=False)
    check_clusters(clusters, int(data.num_nodes))
    where = as_device(device)
    inputs = read_graph(data, pretrained.unifier.projection(data), where)
    network = own_network(pretrained, Recipe(method), None, inputs, where)
    hops, skip = (2, inputs.x.size(1)) if method == "readout" else (0, 0)
    readout = Readout(cast(int, network.out_channels), hops, skip).to(where)
    h = inputs.embed(network)
    readout.calibrate(h, inputs.x, inputs.adj)
    return kmeans(readout(h, inputs.x, inputs.adj), clusters, seed, restarts)


def evaluate_clustering(
    pretrained: Pretrained | None,
    data: Data,
    *,
    methods: Sequence[str] = CLUSTER_METHODS,
    seeds: Sequence[int] = tuple(range(5)),
    clusters: int | None = None,
    restarts: int = 10,
    baselines: bool = True,
    device: torch.device | str | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> list[Result]:
    """Clustering of the nodes of ``data`` against its classes; labels are read by the score alone.

    Results have ``task="clustering"`` and the metrics of :func:`graphfm.metrics.clustering_scores`; ``nmi`` comes first
    in reports. A seed is one draw of the starts, so the spread over seeds is that of k-means, not of the data.

    Args:
        pretrained: the model, or ``None`` for the rules alone.
        data: the target graph with class labels; nodes without one are clustered and not scored.
        methods: of :func:`cluster`.
        seeds: of the starts.
        clusters: how many; the number of classes if left out.
        restarts: starts a seed.
        baselines: measure the rules (:func:`graphfm.baselines.clusters.cluster_floor`) and, beside a model, the same
            backbone with random weights (``untrained ...``).
        device: where models run; the rules run on the CPU.
        out: file of JSON lines; cells are appended as they come, and those that it holds are not run again.
        progress: show a progress bar.

    Raises:
        ValueError: bad data or options, or more clusters than nodes.
    """
    check_graph(data, "data", features=False)
    y = check_labels(data.y)
    if y.numel() != int(data.num_nodes):
        raise ValueError(
            f"data.y has {y.numel()} labels for {int(data.num_nodes)} nodes; clustering is scored by the classes of "
            "nodes. Use evaluate_graphs (task graph) for a collection of graphs."
        )
    known = y >= 0
    count = int(y[known].unique().numel()) if clusters is None else clusters
    check_clusters(count, y.numel())
    check_methods(pretrained, methods, CLUSTER_METHODS)

    def run(model: Pretrained, method: str, problem: Data, seed: int) -> Tensor:
        return cluster(model, problem, count, method=method, seed=seed, restarts=restarts, device=device)

    def score(problem: Data, assigned: Tensor) -> dict[str, float]:
        return clustering_scores(assigned[known], y[known])

    cells: list[Cell[Data]] = []
    if baselines:
        cells += [Cell(rule.name, {"group": "floor"}, _rule_runner(rule, count)) for rule in cluster_floor()]
    controls = {f"untrained {method}": method for method in methods} if baselines else {}
    cells += model_cells(pretrained, methods, controls, run)
    settings = {"protocol": "honest", "clusters": count, "restarts": restarts}
    name = str(data.get("name", "data"))
    unlabelled = Data(**{k: v for k, v in data.to_dict().items() if k != "y"})
    grid = Grid("clustering", name, lambda seed: unlabelled, score, settings, device, out, progress)
    return grid.measure(cells, seeds)


def _rule_runner(rule: ClusterFloor, clusters: int) -> Callable[[Data, int], Tensor]:
    return lambda data, seed: rule.fit_predict(data, clusters, seed)
