"""Backbones that were not written for this package: what they are handed, and how their weights are drawn anew."""

from __future__ import annotations

import copy
import inspect
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn.models.basic_gnn import BasicGNN

from graphfm.nn import Adjacency, as_adjacency

__all__ = ["EdgeIndexBackbone", "as_backbone", "bare_backbone", "redraw"]

_log = logging.getLogger(__name__)


class EdgeIndexBackbone(nn.Module):
    """A network with PyG's ``forward(x, edge_index[, edge_weight])`` behind the contract of our backbones.

    An :class:`~graphfm.nn.Adjacency` is handed on as ``edge_index`` and, if the network reads weights, as
    ``edge_weight``. To a network that does not, all edges are alike, except that those of weight 0 are left out (an
    augmented view marks its dropped edges so): a coordinator is then an ordinary hub to it.

    Args:
        network: with integer ``in_channels`` and ``out_channels``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.in_channels, self.out_channels = network.in_channels, network.out_channels
        layers = network.num_layers if isinstance(network, BasicGNN) else None
        self.num_hops = getattr(network, "num_hops", layers)
        self.reads_weights = _reads_weights(network)

    def forward(self, x: Tensor, edge_index: Tensor | Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """``x`` ``[N, F]`` over ``edge_index`` ``[2, E]`` (weights ``[E]``) or an Adjacency, to ``[N, D]``."""
        adj = as_adjacency(edge_index, x.size(0), edge_weight)
        if adj.weight is None:
            return self.network(x, adj.edge_index)
        if self.reads_weights:
            return self.network(x, adj.edge_index, edge_weight=adj.values(x.dtype))
        return self.network(x, adj.edge_index[:, adj.weight != 0])


def as_backbone(network: nn.Module) -> nn.Module:
    """``network`` itself if it takes an :class:`~graphfm.nn.Adjacency`, else the same behind an adapter.

    Which of the two is found by trying it, on a copy, on a graph of two nodes.

    Raises:
        ValueError: no integer ``in_channels`` and ``out_channels``, or a forward that fails on both forms.
    """
    if isinstance(network, EdgeIndexBackbone):
        return network
    for name in ("in_channels", "out_channels"):
        value = getattr(network, name, None)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"backbone must have a positive integer attribute {name}; {type(network).__name__} has {value!r}."
            )
    failed = _try(network)
    if failed is None:
        return network
    adapted = EdgeIndexBackbone(network)
    failed_too = _try(adapted)
    if failed_too is not None:
        raise ValueError(
            f"backbone: {type(network).__name__} works neither as forward(x, Adjacency) ({failed}) nor as "
            f"forward(x, edge_index) ({failed_too}); give it one of these and [N, out_channels] as its result."
        )
    if not adapted.reads_weights:
        _log.warning("backbone %s reads no edge_weight: weighted edges count alike", type(network).__name__)
    return adapted


def bare_backbone(backbone: nn.Module) -> nn.Module:
    """The user's own network, without the adapter."""
    return backbone.network if isinstance(backbone, EdgeIndexBackbone) else backbone


def redraw(module: nn.Module, name: str) -> None:
    """Draw all weights anew: by ``reset_parameters``, or that of every part where the whole has none.

    Raises:
        ValueError: a part with parameters and no such method.
    """
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if callable(reset):
        reset()
        return
    if next(module.parameters(recurse=False), None) is not None:
        raise ValueError(
            f"{name}: {type(module).__name__} has parameters of its own but no reset_parameters(), so they cannot be "
            "drawn from seed; add that method, or pass warm_start=True to begin with its weights as they are."
        )
    for key, child in module.named_children():
        redraw(child, f"{name}.{key}")


def _reads_weights(network: nn.Module) -> bool:
    parameters = inspect.signature(network.forward).parameters
    return "edge_weight" in parameters and getattr(network, "supports_edge_weight", True)


@torch.no_grad()
def _try(network: Any) -> str | None:
    """Run a copy on two nodes and one weighted edge each way; what went wrong, or ``None``."""
    network = copy.deepcopy(network).cpu().eval()
    adj = Adjacency.from_edges(torch.tensor([[0, 1], [1, 0]]), 2, torch.ones(2))
    with torch.random.fork_rng(devices=[]):
        try:
            out = network(torch.zeros(2, network.in_channels), adj)
        except Exception as error:  # whatever a stranger's forward raises
            return f"{type(error).__name__}: {error}"
    if not isinstance(out, Tensor) or out.shape != (2, network.out_channels):
        got = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        return f"gave {got} for 2 nodes, not [2, {network.out_channels}]"
    return None
