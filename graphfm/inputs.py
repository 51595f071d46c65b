"""A target graph as a backbone sees it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphfm.data.subgraphs import k_hop_nodes
from graphfm.nn import Adjacency

if TYPE_CHECKING:
    from graphfm.tokens import TokenPrompts

__all__ = ["Inputs"]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A target graph as a backbone sees it.

    Attributes:
        x: ``[N, d]`` unified features.
        adj: undirected edges among the N nodes.
        carried: the graph joined to the sources' coordinators (:meth:`graphfm.Coordinators.carry`), or ``None``.
        prompts: what carries the sources' tokens to the graph, or ``None``.
    """

    x: Tensor
    adj: Adjacency
    carried: tuple[Tensor, Adjacency] | None = None
    prompts: TokenPrompts | None = None

    def embed(self, backbone: nn.Module) -> Tensor:
        """Embeddings ``[N, D]`` of the nodes; those of coordinators are dropped."""
        if self.prompts is not None:
            return self.prompts(backbone, self.x, self.adj)
        if self.carried is None:
            return backbone(self.x, self.adj)
        return backbone(*self.carried)[: self.x.size(0)]

    def near(self, nodes: Tensor, hops: int | None) -> tuple[Inputs, Tensor]:
        """The part of the graph that can reach ``nodes`` in ``hops`` steps, and their places in it.

        Messages from farther away do not arrive, and the normalisation is the whole graph's, so embeddings of
        ``nodes`` are those of the whole graph at a fraction of the work. All of it where ``hops`` is not known.
        """
        if hops is None or self.carried is not None:
            return self, nodes
        kept = k_hop_nodes(self.adj, nodes, hops)
        if kept.numel() > 0.5 * self.x.size(0):
            return self, nodes
        return Inputs(self.x[kept], self.adj.induced(kept), prompts=self.prompts), torch.searchsorted(kept, nodes)
