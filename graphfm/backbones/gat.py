"""GAT: softmax attention over neighbours, several heads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import glorot

from graphfm.nn import Adjacency, as_adjacency, dropout, segment_softmax

__all__ = ["GAT", "GATLayer"]


class GATLayer(nn.Module):
    """``sum_j softmax_j(leaky_relu(a_src . W x_j + a_dst . W x_i)) W x_j`` a head (Velickovic et al., 1710.10903).

    Self-loops are added once. Edge weights w enter as multiplicities, ``softmax(score + log w)``: an edge of weight 2
    counts as two edges, one of weight 0 not at all; they must not be negative. Parameter names are those of PyG's
    ``GATConv``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        *,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.out_channels, self.concat = heads, out_channels, concat
        self.negative_slope, self.dropout = negative_slope, dropout
        self.lin = Linear(in_channels, heads * out_channels, bias=False, weight_initializer="glorot")
        self.att_src = nn.Parameter(torch.empty(1, heads, out_channels))
        self.att_dst = nn.Parameter(torch.empty(1, heads, out_channels))
        self.bias = nn.Parameter(torch.zeros(heads * out_channels if concat else out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and attention vectors anew, zero the bias."""
        self.lin.reset_parameters()
        glorot(self.att_src)
        glorot(self.att_dst)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, adj: Adjacency) -> Tensor:
        """``[N, in] -> [N, heads * out]`` (``[N, out]``, the mean of the heads, without ``concat``)."""
        adj, weighted = adj.with_self_loops(x.dtype), adj.weight is not None
        h = self.lin(x).view(-1, self.heads, self.out_channels)
        source, target = (h * self.att_src).sum(-1), (h * self.att_dst).sum(-1)
        score = source.index_select(0, adj.col) + target.index_select(0, adj.row)
        score = F.leaky_relu(score, self.negative_slope)
        attention = segment_softmax(score, adj, adj.weight if weighted else None)
        attention = dropout(attention, self.dropout, self.training)
        out = adj.matmul(h, attention)
        return (out.flatten(1) if self.concat else out.mean(1)) + self.bias


class GAT(nn.Module):
    """A stack of :class:`GATLayer` with ELU and dropout between; the last layer averages its heads.

    Args:
        in_channels: feature width F.
        hidden_channels: width of the hidden layers, all heads together.
        num_layers: number of layers, at least 1.
        out_channels: output width D; ``hidden_channels`` when not given.
        heads: heads a layer; must divide ``hidden_channels``.
        dropout: rate between layers and on the attention.

    Raises:
        ValueError: fewer than one layer; heads that do not divide the width.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int = 2,
        out_channels: int | None = None,
        *,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}.")
        if heads < 1 or hidden_channels % heads:
            raise ValueError(f"heads must divide hidden_channels ({hidden_channels}), got {heads}.")
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.out_channels = hidden_channels if out_channels is None else out_channels
        self.num_layers = self.num_hops = num_layers
        self.heads, self.dropout = heads, dropout
        hidden = [
            GATLayer(in_channels if i == 0 else hidden_channels, hidden_channels // heads, heads, dropout=dropout)
            for i in range(num_layers - 1)
        ]
        last_in = in_channels if num_layers == 1 else hidden_channels
        last = GATLayer(last_in, self.out_channels, heads, concat=False, dropout=dropout)
        self.convs = nn.ModuleList([*hidden, last])

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for conv in cast(Iterable[GATLayer], self.convs):
            conv.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor | Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """``x`` ``[N, F]`` over ``edge_index`` ``[2, E]`` (weights ``[E]``) or an Adjacency, to ``[N, D]``."""
        adj = as_adjacency(edge_index, x.size(0), edge_weight)
        for conv in self.convs[:-1]:
            x = dropout(F.elu(conv(x, adj)), self.dropout, self.training)
        return self.convs[-1](x, adj)
