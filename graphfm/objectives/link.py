"""Link prediction: held-out edges against pairs of nodes without one."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.objectives.fields import adjacency
from graphfm.objectives.links import LinkDecoder, hide_edges, non_edges

__all__ = ["LinkPrediction"]


class LinkPrediction(nn.Module):
    """Hide a share of the edges, embed what is left, and tell hidden edges from sampled non-edges.

    Binary cross-entropy on a decoder of the product of two embeddings (as MaskGAE has it, 2205.10053); as many
    non-edges as hidden edges, drawn within the same graph and domain, never a true edge. Both directions are hidden
    together. Coordinators pass messages; their edges are no targets.

    Args:
        hide: share of the edges held out, drawn anew on every pass, in (0, 1).
    """

    crosses: ClassVar[str] = "structure"
    needs_edges: ClassVar[bool] = True  # in every source

    def __init__(self, hide: float = 0.5) -> None:
        super().__init__()
        if not 0 < hide < 1:
            raise ValueError(f"hide must lie in (0, 1), got {hide!r}.")
        self.hide = hide
        self.decoder: LinkDecoder | None = None

    def bind(self, in_channels: int, out_channels: int) -> LinkPrediction:
        """Make the decoder for a backbone from ``in_channels`` to ``out_channels``."""
        self.decoder = LinkDecoder(out_channels)
        return self

    def forward(self, backbone: nn.Module, batch: Data) -> Tensor:
        """The loss ``[]`` on ``x`` and ``edge_index``; reads also ``edge_weight``, ``batch``, ``ptr``,
        ``is_coordinator`` and ``node_type``. A batch without edges to hide has the loss 0.
        """
        if self.decoder is None:
            raise RuntimeError("LinkPrediction has no decoder yet; call bind(in_channels, out_channels) first.")
        adj = adjacency(batch)
        rest, pairs = hide_edges(batch, adj, self.hide)
        return self.decoder.loss(backbone(batch.x, rest), pairs, non_edges(batch, adj, pairs))
