"""What objectives read from a batch, be it many small graphs or one whole graph."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.nn import Adjacency

__all__ = ["Kin", "adjacency", "chosen", "graph_of", "ordinary", "reweighted"]


def adjacency(batch: Data) -> Adjacency:
    """The edges of ``batch`` with their weights, if any, and each node's graph; -1 for a node that a view dropped.

    Sampled neighbourhoods bring an adjacency, ``adj``, that keeps the normalisation of the whole graph: it is taken, if
    ``edge_index`` was not cut since.
    """
    graph, keep, given = batch.get("batch"), batch.get("keep"), batch.get("adj")
    if isinstance(given, Adjacency) and keep is None and (graph is None) == (given.batch is None):
        if batch.edge_index is None or batch.edge_index.size(1) == given.num_edges:
            return given
    if graph is not None and keep is not None:
        graph = graph.masked_fill(keep == 0, -1)
    return Adjacency.from_edges(batch.edge_index, int(batch.num_nodes), batch.get("edge_weight"), batch=graph)


def reweighted(adj: Adjacency, factor: Tensor) -> Adjacency:
    """``adj`` with its weights times ``factor`` ``[E]``, in its own order; a factor of 0 takes an edge out."""
    return adj.with_weight(factor if adj.weight is None else adj.weight * factor)


def ordinary(batch: Data) -> Tensor:
    """``[N]`` bool: rows that are no coordinators; all of them where the batch names none."""
    given = batch.get("is_coordinator")
    return torch.ones(int(batch.num_nodes), dtype=torch.bool, device=batch.x.device) if given is None else ~given


def graph_of(batch: Data) -> tuple[Tensor, int]:
    """``[N]`` the graph of each row, and the number of graphs; a batch without ``batch`` is one graph."""
    given, ptr = batch.get("batch"), batch.get("ptr")
    if given is None:
        return torch.zeros(int(batch.num_nodes), dtype=torch.long, device=batch.x.device), 1
    if ptr is not None:
        return given, ptr.numel() - 1
    return given, int(given.max()) + 1 if given.numel() else 1


def chosen(luck: Tensor, candidate: Tensor, rate: float) -> Tensor:
    """Candidates whose ``luck`` in [0, 1) is below ``rate``, and in any case the one of least luck.

    Args:
        luck: ``[M]`` uniform numbers.
        candidate: ``[M]`` bool.
        rate: share to choose.

    Returns:
        ``[M]`` bool; all false only where there is no candidate.
    """
    if luck.numel() == 0:
        return candidate
    luck = luck.masked_fill(~candidate, torch.inf)
    return candidate & ((luck < rate) | (luck == luck.amin()))


class Kin:
    """Nodes in groups whose members may stand in for one another: same graph, domain, type, ordinary or not.

    With ``node_type`` ``[N]`` (PyG's ``to_homogeneous`` leaves it) a user stands in for a user and an item for an item.
    A graph that coordinators join holds nodes of several domains; one of another domain would be told by that alone.

    Args:
        batch: the nodes.
        far: a node of another graph may stand in, in a batch that tells domains.
    """

    def __init__(self, batch: Data, *, far: bool = False) -> None:
        domain = batch.get("domain")
        group, count = graph_of(batch) if domain is None or not far else (torch.zeros_like(domain), 1)
        for kind in (domain, (~ordinary(batch)).long(), batch.get("node_type")):
            if kind is not None and kind.numel():
                kinds = int(kind.max()) + 1
                group, count = group * kinds + kind, count * kinds
        self.group = group
        self.members = torch.argsort(group, stable=True)
        size = torch.bincount(group, minlength=count)
        self.size = size.index_select(0, group)
        self.first = (torch.cumsum(size, 0) - size).index_select(0, group)

    def draw(self, nodes: Tensor) -> Tensor:
        """For each of ``nodes`` ``[M]`` a random member of its group, itself included: ``[M]``."""
        luck = torch.rand(nodes.numel(), device=nodes.device, dtype=torch.float64)
        place = self.first.index_select(0, nodes) + (luck * self.size.index_select(0, nodes)).long()
        return self.members.index_select(0, place)

    def shuffle(self) -> Tensor:
        """A random permutation ``[N]`` of the nodes that keeps every node in its group."""
        luck = torch.rand(self.group.numel(), device=self.group.device, dtype=torch.float64)
        order = torch.argsort(luck)
        order = order[torch.argsort(self.group[order], stable=True)]
        return torch.empty_like(order).index_copy_(0, self.members, order)
