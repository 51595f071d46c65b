"""OFA's network: graph convolutions with a map for each relation, and one answer a class node."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphfm.backbones.sage import SAGELayer
from graphfm.graphllm.enhancers.ego_prompts import RELATIONS, Prompts
from graphfm.nn import Adjacency, dropout

__all__ = ["OFANetwork", "RelationalLayer"]


class RelationalLayer(nn.Module):
    """``W_0 x_i + b + sum_r W_r mean_{j in N_r(i)} x_j`` (R-GCN, 1703.06103, eq. 2, with c_ir the number of N_r(i)).

    Made of one :class:`~graphfm.backbones.sage.SAGELayer` a relation, whose own-row maps add up to W_0.
    """

    def __init__(self, in_channels: int, out_channels: int, relations: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SAGELayer(in_channels, out_channels) for _ in range(relations))

    def forward(self, x: Tensor, relations: tuple[Adjacency, ...]) -> Tensor:
        """``[T, in] -> [T, out]``."""
        return torch.stack([layer(x, adj) for layer, adj in zip(self.layers, relations, strict=True)]).sum(0)


class OFANetwork(nn.Module):
    """Text vectors to one width, relational layers with residuals, a binary answer at every class node.

    Args:
        in_channels: width of the text vectors.
        hidden: width inside.
        layers: relational layers; neighbours at distance h reach a class node if there are at least h + 2.
        rate: dropout.
    """

    def __init__(self, in_channels: int, hidden: int, layers: int, rate: float) -> None:
        super().__init__()
        self.enter = nn.Linear(in_channels, hidden)
        self.layers = nn.ModuleList(RelationalLayer(hidden, hidden, len(RELATIONS)) for _ in range(layers))
        self.answer = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.rate = rate

    def forward(self, vectors: Tensor, batch: Prompts) -> Tensor:
        """``vectors`` ``[N + 1 + C, D]`` (nodes, prompt, classes) to logits ``[B, C]``."""
        # Mapped before rows are gathered: a node stands in many prompts.
        x = self.enter(vectors).index_select(0, batch.row)
        for layer in self.layers:
            x = x + dropout(layer(x, batch.relations).relu(), self.rate, self.training)
        return self.answer(x[batch.answer]).squeeze(-1)
