"""Subgraphs in bulk: random walks, the graphs they induce, ego graphs. No loop over nodes or graphs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.nn import Adjacency
from graphfm.nn.adjacency import neighbours

__all__ = ["Subgraphs", "ego_nets", "induced_subgraphs", "k_hop_nodes", "random_walks"]

_CHUNK = 250_000  # pairs looked up at once: bounds memory at some 15 MB


@dataclasses.dataclass(frozen=True)
class Subgraphs:
    """Many small graphs cut from a big one, end to end.

    Attributes:
        node: ``[T]`` node of the big graph that each row stands for.
        ptr: ``[S + 1]`` first row of each subgraph.
        edge_index: ``[2, K]`` sources and targets, counted from the first row of their subgraph, sorted by subgraph,
            then target, then source.
        edge: ``[K]`` place of each edge in the big graph's :class:`~graphfm.nn.Adjacency`.
        edge_ptr: ``[S + 1]`` first edge of each subgraph.
    """

    node: Tensor
    ptr: Tensor
    edge_index: Tensor
    edge: Tensor
    edge_ptr: Tensor

    def __len__(self) -> int:
        return self.ptr.numel() - 1

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Rows ``[M]`` of the chosen subgraphs, and which of the chosen each belongs to."""
        return neighbours(self.ptr, index)

    def take(self, index: Tensor) -> Data:
        """The chosen subgraphs ``[B]`` as one batch.

        Returns:
            ``Data`` with ``node`` (rows of the big graph), ``batch``, ``ptr``, ``edge_index`` (sorted by target),
            ``edge`` and ``num_graphs``; features are gathered by the caller.
        """
        rows, batch = self.rows(index)
        edges, owner = neighbours(self.edge_ptr, index)
        size = self.ptr.index_select(0, index + 1) - self.ptr.index_select(0, index)
        ptr = torch.cat([size.new_zeros(1), torch.cumsum(size, 0)])
        return Data(
            node=self.node.index_select(0, rows),
            batch=batch,
            ptr=ptr,
            edge_index=self.edge_index.index_select(1, edges) + ptr.index_select(0, owner),
            edge=self.edge.index_select(0, edges),
            num_nodes=rows.numel(),
            num_graphs=index.numel(),
        )

    def select(self, keep: Tensor) -> Subgraphs:
        """Only the subgraphs of the mask ``[S]``."""
        index = torch.nonzero(keep).flatten()
        rows, owner = self.rows(index)
        edges, edge_owner = neighbours(self.edge_ptr, index)
        count = torch.arange(index.numel() + 1)
        return Subgraphs(
            self.node[rows],
            torch.searchsorted(owner, count),
            self.edge_index[:, edges],
            self.edge[edges],
            torch.searchsorted(edge_owner, count),
        )


def random_walks(
    adj: Adjacency,
    start: Tensor,
    length: int,
    generator: torch.Generator | None = None,
    *,
    hubs_from: int | None = None,
    hop: float = 0.0,
) -> Tensor:
    """Uniform random walks over the neighbours of ``adj``, all at once.

    Args:
        adj: the graph; a step goes from a target to one of its sources, which on undirected graphs is any neighbour.
        start: ``[S]`` first nodes.
        length: steps.
        generator: of the draw.
        hubs_from: nodes from this index on are hubs (coordinators); their edges among themselves are the last of their
            sorted rows.
        hop: probability that a walk that stands on a hub goes on to another hub; uniform over all neighbours, it would
            almost never: a hub has thousands of nodes and a handful of other hubs.

    Returns:
        ``[S, length + 1]`` nodes; a walk that has nowhere to go stays.
    """
    walk = torch.empty(start.numel(), length + 1, dtype=torch.long)
    walk[:, 0] = at = start
    first, count = adj.rowptr[:-1], adj.rowptr.diff()
    peers = torch.zeros_like(count)
    if hubs_from is not None:
        own = int(adj.rowptr[hubs_from])  # edges into hubs come last
        peers.index_add_(0, adj.row[own:], (adj.col[own:] >= hubs_from).long())
    for step in range(length):
        draw = torch.rand(start.numel(), 2, generator=generator, dtype=torch.float64)
        degree, others = count[at], peers[at]
        pick = (draw[:, 0] * degree).long()
        if hubs_from is not None:
            jump = (others > 0) & (draw[:, 1] < hop)
            inside = (draw[:, 0] * (degree - others)).long()
            pick = torch.where(others > 0, inside, pick)
            pick = torch.where(jump, degree - others + (draw[:, 0] * others).long(), pick)
            degree = torch.where((others > 0) & ~jump, degree - others, degree)
        place = (first[at] + pick).clamp(max=max(adj.num_edges - 1, 0))
        at = torch.where(degree > 0, adj.col[place], at) if adj.num_edges else at
        walk[:, step + 1] = at
    return walk


def induced_subgraphs(adj: Adjacency, members: Tensor) -> Subgraphs:
    """The graphs induced by sets of nodes.

    Args:
        adj: the big graph.
        members: ``[S, L]`` nodes of each set; repeats count once, negative entries are padding.

    Returns:
        S subgraphs with their nodes in ascending order.
    """
    ordered = members.sort(dim=1).values
    fresh = ordered >= 0
    fresh[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    size = fresh.sum(1)
    return _induce(adj, ordered[fresh], size)


def _induce(adj: Adjacency, node: Tensor, size: Tensor) -> Subgraphs:
    """Find the edges inside each set by looking all pairs of a set up among the sorted edges of the graph."""
    zero = size.new_zeros(1)
    ptr = torch.cat([zero, torch.cumsum(size, 0)])
    pair_ptr = torch.cat([zero, torch.cumsum(size * size, 0)])
    keys = adj.row * adj.num_nodes + adj.col
    has_repeats = bool((keys[1:] == keys[:-1]).any())
    parts = []
    cuts = torch.searchsorted(pair_ptr, torch.arange(0, int(pair_ptr[-1]) + _CHUNK, _CHUNK))
    bounds = cuts.clamp_(max=size.numel()).unique().tolist()
    for low, high in itertools.pairwise(bounds):
        parts.append(_lookup(keys, has_repeats, adj.num_nodes, node, ptr, size, low, high))
    if not parts:
        empty = torch.empty(0, dtype=torch.long)
        return Subgraphs(node, ptr, torch.empty(2, 0, dtype=torch.long), empty, torch.zeros_like(ptr))
    owner, source, target, edge = (torch.cat(p) for p in zip(*parts, strict=True))
    edge_ptr = torch.searchsorted(owner, torch.arange(size.numel() + 1))
    return Subgraphs(node, ptr, torch.stack([source, target]), edge, edge_ptr)


def _lookup(
    keys: Tensor, has_repeats: bool, num_nodes: int, node: Tensor, ptr: Tensor, size: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sizes = size[low:high]
    owner = torch.repeat_interleave(torch.arange(low, high), sizes * sizes)
    begin = torch.cumsum(sizes * sizes, 0) - sizes * sizes
    pair = torch.arange(owner.numel()) - begin[owner - low]
    target = torch.div(pair, size[owner], rounding_mode="floor")
    source = pair - target * size[owner]
    first = ptr[owner]
    query = node[first + target] * num_nodes + node[first + source]
    place = torch.searchsorted(keys, query).clamp_(max=max(keys.numel() - 1, 0))
    hit = torch.nonzero(keys[place] == query).flatten() if keys.numel() else query.new_zeros(0)
    place = place[hit]
    if has_repeats:  # multi-edges lie side by side: take them all
        copies = torch.searchsorted(keys, query[hit], right=True) - place
        hit = torch.repeat_interleave(hit, copies)
        nth = torch.arange(hit.numel()) - torch.repeat_interleave(torch.cumsum(copies, 0) - copies, copies)
        place = torch.repeat_interleave(place, copies) + nth
    return owner[hit], source[hit], target[hit], place


def k_hop_nodes(adj: Adjacency, seeds: Tensor, hops: int) -> Tensor:
    """All nodes from which a message reaches ``seeds`` within ``hops`` steps, the seeds included, ascending."""
    seen = torch.zeros(adj.num_nodes, dtype=torch.bool, device=adj.device)
    seen[seeds] = True
    frontier = torch.unique(seeds)
    for _ in range(hops):
        edges, _ = neighbours(adj.rowptr, frontier)
        reached = torch.unique(adj.col[edges])
        frontier = reached[~seen[reached]]
        seen[frontier] = True
    return torch.nonzero(seen).flatten()


def ego_nets(
    adj: Adjacency,
    centres: Tensor,
    *,
    hops: int = 2,
    max_hops: int = 5,
    at_least: int = 10,
    at_most: int = 30,
    generator: torch.Generator | None = None,
    luck: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Members of the ego net of each centre, ``[S, at_most]``, padded with -1; the centre comes first.

    The neighbourhood of ``hops`` steps; where it holds fewer than ``at_least`` nodes it grows step by step to
    ``max_hops``; where it holds more than ``at_most``, a random choice is kept. Nothing but structure is looked at.
    ``luck(centre, node)``, numbers in [0, 1) for ``[M]`` pairs, chooses in the place of ``generator``: the least stay.
    """
    count = centres.numel()
    owner = torch.arange(count)
    reached = owner * adj.num_nodes + centres  # sorted keys (set, node) of everything reached
    frontier = reached
    for step in range(max_hops):
        size = torch.bincount(torch.div(reached, adj.num_nodes, rounding_mode="floor"), minlength=count)
        grows = (size < at_least) if step >= hops else torch.ones(count, dtype=torch.bool)
        who = torch.div(frontier, adj.num_nodes, rounding_mode="floor")
        frontier, who = frontier[grows[who]], who[grows[who]]
        edges, index = neighbours(adj.rowptr, frontier - who * adj.num_nodes)
        candidates = torch.unique(who[index] * adj.num_nodes + adj.col[edges])
        place = torch.searchsorted(reached, candidates).clamp_(max=reached.numel() - 1)
        frontier = candidates[reached[place] != candidates]
        if frontier.numel() == 0:
            break
        reached = torch.cat([reached, frontier]).sort().values
    who = torch.div(reached, adj.num_nodes, rounding_mode="floor")
    node = reached - who * adj.num_nodes
    if luck is None:
        drawn = torch.rand(who.numel(), generator=generator, dtype=torch.float64)
    else:
        drawn = luck(centres[who], node).double()
    return _padded_choice(who, node, centres, at_most, drawn)


def _padded_choice(who: Tensor, node: Tensor, centres: Tensor, at_most: int, luck: Tensor) -> Tensor:
    luck = luck.masked_fill(node == centres[who], -1.0)  # the centre always stays
    order = torch.argsort(who + (luck + 1) / 2.000001, stable=True)
    who, node = who[order], node[order]
    size = torch.bincount(who, minlength=centres.numel())
    rank = torch.arange(who.numel()) - (torch.cumsum(size, 0) - size)[who]
    members = torch.full((centres.numel(), at_most), -1, dtype=torch.long)
    keep = rank < at_most
    members[who[keep], rank[keep]] = node[keep]
    return members
