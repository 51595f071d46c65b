"""Masked graph modelling: hide edges and attributes together and rebuild both."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.objectives.cosine import scaled_cosine_error
from graphfm.objectives.fields import adjacency, chosen, ordinary
from graphfm.objectives.links import LinkDecoder, hide_edges, non_edges

__all__ = ["MaskedGraph"]


class MaskedGraph(nn.Module):
    """Rebuild hidden edges and hidden features from one embedding of what is left.

    ``bce(edges, non-edges) + w * scaled cosine error(features)``: the label-free pretraining that GRePO-LTV
    (2506.11037) speaks of, with MaskGAE's edges (2205.10053) and GraphMAE's token and error (2205.10803); rates and
    decoders are not in the paper and are our choice. Non-edges join nodes of the same graph, domain and, if there is
    ``node_type``, of the types that the hidden edge joins, so that neither domains nor types give them away.
    Coordinators pass messages; they are neither masked nor are their edges.

    Args:
        edges: share of the edges to hide, in (0, 1).
        nodes: share of the nodes to hide the features of, in (0, 1].
        weight: w of the feature term, not negative.
        gamma: exponent of the scaled cosine error, at least 1.
    """

    crosses: ClassVar[str] = "both"
    needs_edges: ClassVar[bool] = True  # in every source

    def __init__(self, edges: float = 0.4, nodes: float = 0.4, weight: float = 1.0, gamma: float = 2.0) -> None:
        super().__init__()
        if not 0 < edges < 1:
            raise ValueError(f"edges must lie in (0, 1), got {edges!r}.")
        if not 0 < nodes <= 1:
            raise ValueError(f"nodes must lie in (0, 1], got {nodes!r}.")
        if not weight >= 0:
            raise ValueError(f"weight must not be negative, got {weight!r}.")
        if not gamma >= 1:
            raise ValueError(f"gamma must be at least 1, got {gamma!r}.")
        self.edges, self.nodes, self.weight, self.gamma = edges, nodes, weight, gamma
        self.token: nn.Parameter | None = None
        self.features: nn.Sequential | None = None
        self.links: LinkDecoder | None = None

    def bind(self, in_channels: int, out_channels: int) -> MaskedGraph:
        """Make token and decoders for a backbone from ``in_channels`` to ``out_channels``."""
        self.token = nn.Parameter(torch.zeros(1, in_channels))
        self.features = nn.Sequential(
            nn.Linear(out_channels, out_channels), nn.ReLU(), nn.Linear(out_channels, in_channels)
        )
        self.links = LinkDecoder(out_channels)
        return self

    def forward(self, backbone: nn.Module, batch: Data) -> Tensor:
        """The loss ``[]`` on ``x`` and ``edge_index``; reads also ``edge_weight``, ``batch``, ``ptr``,
        ``is_coordinator`` and ``node_type``. A batch without edges to hide has the feature term alone.
        """
        if self.token is None or self.features is None or self.links is None:
            raise RuntimeError("MaskedGraph has no decoders yet; call bind(in_channels, out_channels) first.")
        x, adj = batch.x, adjacency(batch)
        rest, pairs = hide_edges(batch, adj, self.edges)
        hidden = chosen(torch.rand(x.size(0), device=x.device), ordinary(batch), self.nodes)
        h = backbone(torch.where(hidden.unsqueeze(1), self.token, x), rest)
        rows = torch.nonzero(hidden).flatten()
        rebuilt = self.features(h.index_select(0, rows))
        error = scaled_cosine_error(rebuilt, x.detach().index_select(0, rows), self.gamma)
        return self.links.loss(h, pairs, non_edges(batch, adj, pairs)) + self.weight * error
