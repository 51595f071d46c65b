"""FAGCN: signed attention that passes low and high frequencies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch_geometric.nn.dense.linear import Linear

from graphfm.backbones.stack import Norm, Stack, reset
from graphfm.nn import Adjacency, as_adjacency, dropout, pair_scores
from graphfm.nn.spmm import csr_product, sampled_product

__all__ = ["FAGCN", "FALayer"]


class _SignedProduct(torch.autograd.Function):
    """``out_i = sum_e keep_e tanh(l_source + r_target) norm_e x_source``, one pass forward and one back.

    Written by hand because gathering scores per edge through autograd costs more than both sparse products.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, left: Tensor, right: Tensor, norm: Tensor, keep: Tensor | None, adj: Adjacency
    ) -> Tensor:
        alpha = (left.index_select(0, adj.col) + right.index_select(0, adj.row)).tanh_()
        scale = norm if keep is None else norm * keep
        weight = alpha * scale
        ctx.adj = adj
        ctx.save_for_backward(x, alpha, scale, weight, keep)
        return csr_product(adj.rowptr, adj.col, weight, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None, None, None]:
        adj: Adjacency = ctx.adj
        x, alpha, scale, weight, keep = ctx.saved_tensors
        rowptr, col, order = adj.transpose
        grad_x = csr_product(rowptr, col, weight.index_select(0, order), grad) if ctx.needs_input_grad[0] else None
        inner = sampled_product(adj.rowptr, adj.col, grad, x)
        score = inner * scale * (1 - alpha * alpha)
        zeros = x.new_zeros(adj.num_nodes)
        grad_left, grad_right = zeros.index_add(0, adj.col, score), zeros.index_add(0, adj.row, score)
        grad_norm = None
        if ctx.needs_input_grad[3]:
            grad_norm = inner * alpha if keep is None else inner * alpha * keep
        return grad_x, grad_left, grad_right, grad_norm, None, None


def _signed_weights(both: Tensor, adj: Adjacency, keep: Tensor | None) -> Tensor:
    """What :class:`_SignedProduct` multiplies each edge's source by, ``[E, 1]``."""
    weight = pair_scores(both[:, :1], both[:, 1:], adj).tanh() * adj.values(both.dtype).unsqueeze(1)
    return weight if keep is None else weight * keep.unsqueeze(1)


class FALayer(nn.Module):
    """``eps x_0 + sum_j tanh(a_l . x_j + a_r . x_i) x_j / sqrt(d_i d_j)`` (Bo et al., 2101.00797, eq. 5-6).

    The normalised adjacency holds self-loops, as PyG's ``FAConv`` has it and unlike the paper; parameter names are
    PyG's. Dropout acts on the attention.
    """

    def __init__(self, channels: int, *, eps: float = 0.1, dropout: float = 0.0) -> None:
        super().__init__()
        self.channels, self.eps, self.dropout = channels, eps, dropout
        self.att_l = Linear(channels, 1, bias=False)
        self.att_r = Linear(channels, 1, bias=False)

    def reset_parameters(self) -> None:
        """Draw both attention vectors anew."""
        self.att_l.reset_parameters()
        self.att_r.reset_parameters()

    def forward(self, x: Tensor, x_0: Tensor, adj: Adjacency) -> Tensor:
        """``[N, D]`` with the initial embedding ``x_0`` ``[N, D]``, to ``[N, D]``."""
        adj = adj.gcn(x.dtype)
        both = x @ torch.cat([self.att_l.weight, self.att_r.weight]).t()
        keep = None
        if self.training and self.dropout > 0:
            keep = dropout(x.new_ones(adj.num_edges), self.dropout, True)
        out = _SignedProduct.apply(x, both[:, 0], both[:, 1], adj.values(x.dtype), keep, adj)
        heard = getattr(adj, "heard", None)  # of an adjacency that brings a prompt along
        if heard is not None:
            out = heard(out, x, lambda: _signed_weights(both, adj, keep))
        return torch.add(out, x_0, alpha=self.eps)


class FAGCN(Stack):
    """Linear and ReLU, signed-attention layers with a share of the first embedding kept, Linear.

    The backbone of GCOPE (2402.09834): two layers, eps 0.1, dropout 0.2.

    Args:
        in_channels: feature width F.
        hidden_channels: width of the layers.
        num_layers: number of :class:`FALayer`.
        out_channels: output width D; ``hidden_channels`` when not given.
        eps: share of the first embedding added in every layer.
        dropout: rate on the input, the first embedding and the attention.
        residual: see :class:`~graphfm.backbones.stack.Stack`.
        norm: see there; after every layer. Objectives that score nodes or pairs one by one (DGI, BGRL, LinkPrediction,
            MaskedGraph) collapse without: when drawn, nodes differ by a few percent of the norm of their embedding.
        jk: see there; joins the outputs of the layers for the last linear map.

    Raises:
        ValueError: a size below 1, a rate outside its range, an unknown ``norm`` or ``jk``.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int = 2,
        out_channels: int | None = None,
        *,
        eps: float = 0.1,
        dropout: float = 0.2,
        residual: bool = False,
        norm: Norm = None,
        jk: str | None = None,
    ) -> None:
        super().__init__(
            in_channels, hidden_channels, num_layers, out_channels, dropout=dropout, residual=residual, norm=norm, jk=jk
        )
        self.eps = eps
        self.lin_in = nn.Linear(in_channels, hidden_channels)
        layers: list[nn.Module] = [FALayer(hidden_channels, eps=eps, dropout=dropout) for _ in range(num_layers)]
        self.build_between(layers, [hidden_channels] * (num_layers + 1), joined=True)
        self.lin_out = nn.Linear(self.joined_channels, self.out_channels)

    def reset_parameters(self) -> None:
        """Draw all weights anew, both linear maps first: a seed gives what it always gave."""
        for part in (self.lin_in, self.lin_out, *(p for p in self.children() if not isinstance(p, nn.Linear))):
            reset(part)

    def between(self, h: Tensor) -> Tensor:
        """Nothing: the layer itself is not linear."""
        return h

    def forward(self, x: Tensor, edge_index: Tensor | Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """``x`` ``[N, F]`` over ``edge_index`` ``[2, E]`` (weights ``[E]``) or an Adjacency, to ``[N, D]``."""
        adj = as_adjacency(edge_index, x.size(0), edge_weight)
        first = dropout(self.lin_in(x).relu(), self.dropout, self.training)
        return self.lin_out(self.run(first, lambda conv, h: conv(h, first, adj)))
