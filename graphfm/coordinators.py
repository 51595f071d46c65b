"""Coordinators: learnable nodes that join many graphs into one (GCOPE, 2402.09834)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

__all__ = ["Coordinators", "vote_weights"]

_KINDS = ("learnable", "mean", "sum")
_BETWEEN = ("all", "none", "similarity")


class Coordinators(nn.Module):
    """Join graphs of equal feature width by extra nodes: every coordinator is tied both ways to all nodes of its graph.

    The coordinators are the last rows of the joined graph, ``per_domain`` a graph, graph by graph, so they are known by
    index. Their features are gathered from a parameter on every forward pass.

    A coordinator's degree is the size of its graph. Symmetric normalisation would drown such a hub (each message weighs
    ``1/sqrt(degree)``) and a sum would let it drown the rest. Here each *group* of edges into a coordinator counts as
    one edge (:func:`vote_weights`): all its nodes together one vote, all other coordinators one vote. Its weighted
    degree is then at most 2 whatever the size of the graph, and to a node it is one more neighbour.

    Args:
        per_domain: coordinators a graph, c >= 1.
        kind: ``"learnable"`` (drawn at unit norm, as unified features have), or fixed to the ``"mean"`` or ``"sum"``
            of the graph's features.
        between: edges between coordinators of different graphs: ``"all"``, ``"none"``, or by ``"similarity"`` (an edge
            where the mean features of the two graphs have a positive cosine, weighted by it).
        votes: weigh edges into coordinators as above; without, every edge counts as one, as in GCOPE's code.

    Raises:
        ValueError: an option that is not among those named.
    """

    def __init__(
        self, per_domain: int = 1, *, kind: str = "learnable", between: str = "all", votes: bool = True
    ) -> None:
        super().__init__()
        if per_domain < 1:
            raise ValueError(f"per_domain must be at least 1, got {per_domain}; pass coordinators=None for none.")
        if kind not in _KINDS:
            raise ValueError(f"kind must be one of {_KINDS}, got {kind!r}.")
        if between not in _BETWEEN:
            raise ValueError(f"between must be one of {_BETWEEN}, got {between!r}.")
        self.per_domain, self.kind, self.between, self.votes = per_domain, kind, between, votes
        self.features: Tensor | None
        self.register_buffer("features", None)

    @property
    def is_bound(self) -> bool:
        """Whether the features exist, i.e. the graphs were seen (or a checkpoint was read)."""
        return self.features is not None

    def bind(self, graphs: Sequence[Data]) -> Coordinators:
        """Make the features ``[len(graphs) * c, d]`` for these graphs; drawn from torch's global generator."""
        width = _common_width(graphs)
        if self.kind == "learnable":
            drawn = torch.randn(len(graphs) * self.per_domain, width) / width**0.5
            self.features = nn.Parameter(drawn)
            return self
        pool = torch.mean if self.kind == "mean" else torch.sum
        pooled = torch.stack([pool(g.x.detach(), 0) for g in graphs])
        self.features = pooled.repeat_interleave(self.per_domain, 0)
        return self

    def forward(self, graphs: Sequence[Data]) -> Data:
        """The joined graph: all nodes of all graphs, then the coordinators.

        Args:
            graphs: D graphs with features ``[N_g, d]`` and edges, undirected or not; weights are kept.

        Returns:
            ``Data`` with ``x`` ``[N + D c, d]`` (differentiable in the coordinators), ``edge_index``, ``edge_weight``
            (see :func:`vote_weights`), ``domain`` ``[N + D c]`` (graph of each node) and ``is_coordinator``.

        Raises:
            ValueError: no graphs, feature widths that differ, or another number of graphs than before.
        """
        if not self.is_bound:
            self.bind(graphs)
        features = self.features
        assert features is not None
        if features.size(0) != len(graphs) * self.per_domain:
            raise ValueError(
                f"graphs: these coordinators belong to {features.size(0) // self.per_domain} graphs, got {len(graphs)}."
            )
        if features.size(1) != _common_width(graphs):
            raise ValueError(f"graphs have {graphs[0].x.size(1)} features, the coordinators {features.size(1)}.")
        sizes = torch.tensor([g.num_nodes for g in graphs])
        offsets = torch.cumsum(sizes, 0) - sizes
        total, count = int(sizes.sum()), features.size(0)
        own_domain = torch.arange(len(graphs)).repeat_interleave(self.per_domain)
        domain = torch.cat([torch.arange(len(graphs)).repeat_interleave(sizes), own_domain])
        is_coordinator = torch.arange(total + count) >= total
        edges, weights = [], []
        for graph, offset in zip(graphs, offsets.tolist(), strict=True):
            edges.append(graph.edge_index + offset)
            given = graph.get("edge_weight")
            weights.append(torch.ones(graph.num_edges) if given is None else given.float())
        spokes = self._spokes(sizes, offsets, total)
        between, cosine = self._between(graphs, own_domain, total)
        edge_index = torch.cat([*edges, spokes, spokes.flip(0), between], dim=1)
        weight = torch.cat([*weights, torch.ones(2 * spokes.size(1)), cosine])
        return Data(
            x=torch.cat([*(g.x for g in graphs), features]),
            edge_index=edge_index,
            edge_weight=vote_weights(edge_index, is_coordinator, weight) if self.votes else weight,
            domain=domain,
            is_coordinator=is_coordinator,
        )

    @torch.no_grad()
    def carry(self, graph: Data) -> Data:
        """Join a graph that was not among the sources to their coordinators, by one coordinator of its own.

        The newcomer's features are the mean of the graph's, at the mean norm of the others; it is tied both ways to all
        nodes of the graph and, unless ``between="none"``, to every coordinator of the sources.

        Args:
            graph: ``x`` ``[N, d]`` and edges; weights are kept.

        Returns:
            ``Data`` like that of :meth:`forward`; rows of ``x``: the graph's, the newcomer, the sources' coordinators.

        Raises:
            ValueError: coordinators that were never bound, or another feature width.
        """
        if self.features is None:
            raise ValueError("these coordinators were never bound to graphs; pretrain with them first.")
        if graph.x.size(1) != self.features.size(1):
            raise ValueError(f"graph has {graph.x.size(1)} features, the coordinators {self.features.size(1)}.")
        features = self.features.detach().to(graph.x.device)
        newcomer = F.normalize(graph.x.mean(0, keepdim=True), dim=1) * features.norm(dim=1).mean()
        nodes, device = int(graph.num_nodes), graph.x.device
        node = torch.arange(nodes, device=device)
        spokes = torch.stack([node, torch.full_like(node, nodes)])
        others = torch.arange(features.size(0) if self.between != "none" else 0, device=device) + nodes + 1
        peers = torch.stack([others, torch.full_like(others, nodes)])
        edge_index = torch.cat([graph.edge_index, spokes, spokes.flip(0), peers, peers.flip(0)], dim=1)
        is_coordinator = torch.arange(nodes + 1 + features.size(0), device=device) >= nodes
        given = graph.get("edge_weight")
        own = torch.ones(graph.num_edges, device=device) if given is None else given.float()
        weight = torch.cat([own, torch.ones(edge_index.size(1) - graph.num_edges, device=device)])
        return Data(
            x=torch.cat([graph.x, newcomer, features]),
            edge_index=edge_index,
            edge_weight=vote_weights(edge_index, is_coordinator, weight) if self.votes else weight,
            is_coordinator=is_coordinator,
        )

    def _spokes(self, sizes: Tensor, offsets: Tensor, total: int) -> Tensor:
        node = torch.arange(total).repeat_interleave(self.per_domain)
        first = total + torch.arange(len(sizes)) * self.per_domain
        hub = first.repeat_interleave(sizes).repeat_interleave(self.per_domain)
        return torch.stack([node, hub + torch.arange(self.per_domain).repeat(total)])

    def _between(self, graphs: Sequence[Data], own_domain: Tensor, total: int) -> tuple[Tensor, Tensor]:
        if self.between == "none":
            return torch.empty(2, 0, dtype=torch.long), torch.empty(0)
        weight = (own_domain[:, None] != own_domain[None, :]).float()
        if self.between == "similarity":
            mean = F.normalize(torch.stack([g.x.detach().mean(0) for g in graphs]), dim=1)
            weight = weight * (mean @ mean.t()).clamp(min=0)[own_domain][:, own_domain]
        pair = torch.nonzero(weight > 0).t()
        return pair + total, weight[pair[0], pair[1]]

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"per_domain={self.per_domain}, kind={self.kind!r}, between={self.between!r}, votes={self.votes}"


def vote_weights(edge_index: Tensor, is_coordinator: Tensor, weight: Tensor | None = None) -> Tensor:
    """Edge weights under which a hub counts as much as any other node, ``[E]``.

    Into a coordinator c, the edges from ordinary nodes share one vote, ``w_e / sum w``, and so do the edges from other
    coordinators; all other edges keep their weight. With these weights every normalisation downstream sees a hub of
    weighted in-degree at most 2, whether it joins ten nodes or a million.

    Args:
        edge_index: ``[2, E]`` sources and targets.
        is_coordinator: ``[N]`` bool.
        weight: ``[E]`` non-negative weights; ones when not given. A weight of 0 means that the edge is not there.
    """
    source, target = edge_index[0], edge_index[1]
    if weight is None:
        weight = torch.ones(source.numel(), device=source.device)
    group = 2 * target + is_coordinator[source].long()
    total = weight.new_zeros(2 * is_coordinator.numel()).index_add_(0, group, weight)
    share = weight / total.clamp(min=torch.finfo(weight.dtype).tiny).index_select(0, group)
    return torch.where(is_coordinator[target], share, weight)


def _common_width(graphs: Sequence[Data]) -> int:
    if not graphs:
        raise ValueError("graphs is empty; give at least one graph.")
    widths = {int(g.x.size(1)) for g in graphs}
    if len(widths) > 1:
        raise ValueError(f"graphs must share one feature width, got {sorted(widths)}; unify them first (Unifier).")
    return widths.pop()
