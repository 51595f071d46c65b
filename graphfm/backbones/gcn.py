"""GCN: graph convolution with the symmetrically normalised adjacency."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear

from graphfm.nn import Adjacency, as_adjacency, dropout

__all__ = ["GCN", "GCNLayer"]


class GCNLayer(nn.Module):
    """``A_hat X W^T + b`` with ``A_hat = D^-1/2 (A + I) D^-1/2`` (Kipf & Welling, 1609.02907, eq. 2).

    Parameter names are those of PyG's ``GCNConv``, so a state dict loads either way. The product is taken on the
    narrower side of W.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin = Linear(in_channels, out_channels, bias=False, weight_initializer="glorot")
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def reset_parameters(self) -> None:
        """Draw the weight anew, zero the bias."""
        self.lin.reset_parameters()
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, adj: Adjacency) -> Tensor:
        """``[N, in] -> [N, out]``."""
        adj = adj.gcn(x.dtype)
        if self.lin.out_channels <= self.lin.in_channels:
            return adj.matmul(self.lin(x)) + self.bias
        return self.lin(adj.matmul(x)) + self.bias


class GCN(nn.Module):
    """A stack of :class:`GCNLayer` with ReLU and dropout between.

    Args:
        in_channels: feature width F.
        hidden_channels: width of the hidden layers.
        num_layers: number of layers, at least 1.
        out_channels: output width D; ``hidden_channels`` when not given.
        dropout: rate between layers.

    Raises:
        ValueError: fewer than one layer.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int = 2,
        out_channels: int | None = None,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}.")
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.out_channels = hidden_channels if out_channels is None else out_channels
        self.num_layers = self.num_hops = num_layers
        self.dropout = dropout
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), self.out_channels]
        self.convs = nn.ModuleList(GCNLayer(a, b) for a, b in itertools.pairwise(widths))

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for conv in cast(Iterable[GCNLayer], self.convs):
            conv.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor | Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """``x`` ``[N, F]`` over ``edge_index`` ``[2, E]`` (weights ``[E]``) or an Adjacency, to ``[N, D]``."""
        adj = as_adjacency(edge_index, x.size(0), edge_weight)
        for conv in self.convs[:-1]:
            x = dropout(conv(x, adj).relu(), self.dropout, self.training)
        return self.convs[-1](x, adj)
