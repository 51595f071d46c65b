"""Who stands around a node: one hop away, two hops, near by personalised PageRank. For all nodes of a batch at once."""

from __future__ import annotations

import torch
from torch import Tensor

from graphfm.nn import Adjacency

__all__ = ["RELATIONS", "chosen", "pagerank", "relations", "rings"]

RELATIONS = ("hop1", "hop2", "near")


def relations(adj: Adjacency, roots: Tensor, at_most: int, *, restart: float = 0.15, steps: int = 30) -> list[Tensor]:
    """Nodes one hop and two hops away, and near, each ``[B, at_most]``, the nearest by PageRank first; N for nobody.

    A node is in no relation to itself. What it costs a root is a column of N numbers, and ``steps`` products.

    Args:
        adj: the graph, undirected; weights count in PageRank alone.
        roots: ``[B]`` nodes.
        at_most: nodes a relation.
        restart: of PageRank.
        steps: of PageRank.
    """
    rank = pagerank(adj, roots, restart, steps)
    one, two = rings(adj, roots, 2)
    near = rank > 0
    near[roots, torch.arange(len(roots), device=near.device)] = False
    return [chosen(members, rank, at_most) for members in (one, two, near)]


def pagerank(adj: Adjacency, roots: Tensor, restart: float, steps: int) -> Tensor:
    """``p <- restart e + (1 - restart) A D^-1 p``, a column for each root, ``[N, B]``, after ``steps``."""
    weight = adj.values(torch.float32)
    degree = weight.new_zeros(adj.num_nodes).index_add(0, adj.col.long(), weight)
    walk = adj.with_weight(weight / degree[adj.col.long()].clamp(min=1e-12))
    start = weight.new_zeros(adj.num_nodes, len(roots))
    start[roots, torch.arange(len(roots), device=start.device)] = 1.0
    rank = start
    for _ in range(steps):
        rank = restart * start + (1 - restart) * walk.matmul(rank)
    return rank


def rings(adj: Adjacency, roots: Tensor, depth: int) -> list[Tensor]:
    """Which nodes are exactly 1, 2, ..., ``depth`` steps from each root: masks ``[N, B]``."""
    plain = adj.with_weight(None)
    seen = torch.zeros(adj.num_nodes, len(roots), dtype=torch.bool, device=adj.device)
    seen[roots, torch.arange(len(roots), device=adj.device)] = True
    found, last = [], seen
    for _ in range(depth):
        last = (plain.matmul(last.float()) > 0) & ~seen
        seen = seen | last
        found.append(last)
    return found


def chosen(members: Tensor, order: Tensor, at_most: int) -> Tensor:
    """The ``at_most`` members ``[N, B]`` that are highest in ``order`` ``[N, B]``: ``[B, at_most]``, N for nobody."""
    nobody, width = members.size(0), min(at_most, members.size(0))
    height, node = order.masked_fill(~members, -torch.inf).topk(width, dim=0)
    node = node.masked_fill(height == -torch.inf, nobody).t()
    return torch.nn.functional.pad(node, (0, at_most - width), value=nobody)
