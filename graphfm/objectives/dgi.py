"""DGI: tell a graph's nodes from those of a corrupted copy by the graph's summary."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.objectives.fields import Kin, adjacency, graph_of, ordinary

__all__ = ["DGI"]


class DGI(nn.Module):
    """Deep Graph Infomax (Velickovic et al., 1809.10341, eq. 1-4).

    ``-mean_i [log D(h_i, s) + log(1 - D(h~_i, s))] / 2`` with the summary ``s = sigmoid(mean_i h_i)``, the bilinear
    discriminator ``D(h, s) = sigmoid(h . W s)`` and h~ from features shuffled over the nodes. In a batch of graphs each
    has its own summary. Features are shuffled among the nodes of a ``domain``, where the batch tells it, and else
    within each graph: rows of another domain would be told apart by that alone, while the few nodes of a walk are so
    alike that little but their degrees would tell. Coordinators pass messages but are neither shuffled nor counted.
    """

    crosses: ClassVar[str] = "both"

    def __init__(self) -> None:
        super().__init__()
        self.discriminator: nn.Linear | None = None

    def bind(self, in_channels: int, out_channels: int) -> DGI:
        """Make the discriminator for a backbone from ``in_channels`` to ``out_channels``."""
        self.discriminator = nn.Linear(out_channels, out_channels, bias=False)
        nn.init.xavier_uniform_(self.discriminator.weight)
        return self

    def forward(self, backbone: nn.Module, batch: Data) -> Tensor:
        """The loss ``[]`` on ``x`` and ``edge_index``; may read ``edge_weight``, ``ptr``, ``is_coordinator``."""
        if self.discriminator is None:
            raise RuntimeError("DGI has no discriminator yet; call bind(in_channels, out_channels) first.")
        adj = adjacency(batch)
        true = backbone(batch.x, adj)
        false = backbone(batch.x.index_select(0, Kin(batch, far=True).shuffle()), adj)
        keep = ordinary(batch).to(true.dtype)
        graph, count = graph_of(batch)
        size = keep.new_zeros(count).index_add_(0, graph, keep).clamp_(min=1).unsqueeze(1)
        total = true.new_zeros(count, true.size(1)).index_add(0, graph, true * keep.unsqueeze(1))
        wanted = self.discriminator((total / size).sigmoid()).index_select(0, graph)
        error = F.softplus(-(true * wanted).sum(1)) + F.softplus((false * wanted).sum(1))
        return (error * keep).sum() / (2 * keep.sum()).clamp(min=1)
