"""How a prompt gets at messages, in our backbones, which lay none out, and in those of PyG, which do.

A message is a row of a layer's input in our GCN, GraphSAGE, GIN, GPS and SGC; its image under the layer's weight in GAT
and GATv2; a row of what is passed on in FAGCN, GPRGNN and BWGNN, which have no weights between. In PyG's GCN and GAT it
is the image, in its GIN and SAGE the input. Self-loops that a layer adds carry messages like other edges.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from graphfm.nn import Adjacency
from graphfm.prompts.base import Prompt

__all__ = ["MessageAdjacency", "call", "heard", "is_pyg", "layer_inputs", "layer_widths", "message_widths"]


class MessageAdjacency(Adjacency):
    """An adjacency whose products bring along what a listener has to add; its arrays and forms are those of ``base``.

    ``sum_e w_e (x_j + q_e) = A x + sum_e w_e q_e``: the second term is made from vectors shared by many edges, so
    nothing of the features' width is laid out for every edge.

    Args:
        base: the adjacency.
        listen: from ``(x [N, w], form of base, weight [E, H])`` to what is added ``[N, w]``.
    """

    def __init__(self, base: Adjacency, listen: Callable[[Tensor, Adjacency, Tensor], Tensor]) -> None:
        super().__init__(base.rowptr, base.col, base.weight, base.num_nodes, base.order, base.batch)
        self.base, self.listen = base, listen

    @property
    def row(self) -> Tensor:
        """``[E]`` target of each edge."""
        return self.base.row

    @property
    def transpose(self) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`~graphfm.nn.Adjacency`."""
        return self.base.transpose

    def kept(self, name: str, make: Callable[[Adjacency], Tensor]) -> Tensor:
        """See :class:`~graphfm.nn.Adjacency`."""
        return self.base.kept(name, make)

    def matmul(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """``A @ x`` and what the listener adds."""
        used = self.values(x.dtype) if weight is None else weight
        return self.base.matmul(x, weight) + self.listen(x, self.base, used.unsqueeze(1) if used.dim() == 1 else used)

    def heard(self, out: Tensor, x: Tensor, weight: Callable[[], Tensor]) -> Tensor:
        """``out`` ``[N, ...]``, the sum of ``x`` under ``weight()`` ``[E, H]``, and what the listener adds."""
        return out + self.listen(x.flatten(1), self.base, weight()).view_as(out)

    def _form(
        self, name: str, dtype: torch.dtype | None, make: Callable[[Adjacency, torch.dtype], Adjacency]
    ) -> Adjacency:
        return MessageAdjacency(self.base._form(name, dtype, make), self.listen)


def is_pyg(backbone: nn.Module) -> bool:
    """Whether messages are passed by PyG's layers."""
    return any(_is_layer(module) for module in backbone.modules())


def _is_layer(module: nn.Module) -> bool:
    return hasattr(module, "register_message_forward_pre_hook")


def call(backbone: nn.Module, x: Tensor, adj: Adjacency) -> Tensor:
    """Embeddings of ``x`` ``[N, F]`` by a network that takes an Adjacency, or by one of PyG's as it is."""
    if not is_pyg(backbone) or hasattr(backbone, "reads_weights"):
        return backbone(x, adj)
    if adj.weight is None:
        return backbone(x, adj.edge_index)
    return backbone(x, adj.edge_index, edge_weight=adj.values(x.dtype))


@contextlib.contextmanager
def heard(backbone: nn.Module, prompt: Prompt, adj: Adjacency) -> Iterator[Adjacency]:
    """The adjacency to call ``backbone`` with so that ``prompt`` acts on its messages, once."""
    place = -1

    def listen(x: Tensor, form: Adjacency, weight: Tensor) -> Tensor:
        nonlocal place
        place += 1
        return prompt.arriving(place, x, form, weight)

    if not is_pyg(backbone):
        yield MessageAdjacency(adj, listen)
        return
    handles = _hooked(backbone, prompt.message)
    try:
        yield adj
    finally:
        for handle in handles:
            handle.remove()


def _hooked(backbone: nn.Module, act: Callable[[int, Tensor, Tensor], Tensor]) -> list[Any]:
    """Let ``act(place, x_j [E, w], x_i [E, w])`` give the messages of PyG's layers, in the order of their calls."""
    place, target = -1, torch.empty(0)

    def before(layer: Any, given: tuple[Any, ...]) -> None:
        nonlocal place, target
        place, (edge_index, _, arguments) = place + 1, given
        x = arguments["x"]
        x = x if isinstance(x, Tensor) else (x[0] if x[1] is None else x[1])
        target = x.index_select(0, edge_index[1])

    def message(layer: Any, given: tuple[dict[str, Any]]) -> tuple[dict[str, Any]]:
        x_j = given[0]["x_j"]
        x_i = target if target.shape == x_j.shape else x_j
        changed = act(place, x_j.flatten(1), x_i.flatten(1)).view_as(x_j)
        return ({**given[0], "x_j": changed},)

    layers: list[Any] = [module for module in backbone.modules() if _is_layer(module)]
    handles = [layer.register_propagate_forward_pre_hook(before) for layer in layers]
    return handles + [layer.register_message_forward_pre_hook(message) for layer in layers]


class _Widths(Prompt):
    """Adds nothing and remembers the width of the messages."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    def message(self, layer: int, x_j: Tensor, x_i: Tensor) -> Tensor:
        """Look."""
        self.found.append(x_j.size(1))
        return x_j

    def arriving(self, layer: int, x: Tensor, adj: Adjacency, weight: Tensor) -> Tensor:
        """Look."""
        self.found.append(x.size(1))
        return torch.zeros_like(x)


@torch.no_grad()
def message_widths(backbone: nn.Module) -> list[int]:
    """Width of the messages of each product with the adjacency, found on a copy and a graph of two nodes."""
    network, adj = _tried(backbone)
    seen = _Widths()
    with torch.random.fork_rng(devices=[]), heard(network, seen, adj) as told:
        call(network, torch.zeros(2, network.in_channels), told)
    return seen.found


def layer_inputs(backbone: nn.Module) -> list[nn.Module]:
    """The layers after the first of a backbone that keeps them in ``convs``; none of one that does not."""
    convs = getattr(getattr(backbone, "network", backbone), "convs", None)
    return list(convs)[1:] if isinstance(convs, nn.ModuleList) else []


@torch.no_grad()
def layer_widths(backbone: nn.Module) -> list[int]:
    """Width of what goes into each layer but the first, found on a copy and a graph of two nodes."""
    network, adj = _tried(backbone)
    found: list[int] = []
    for layer in layer_inputs(network):
        layer.register_forward_pre_hook(lambda module, given: found.append(given[0].size(1)))
    with torch.random.fork_rng(devices=[]):
        call(network, torch.zeros(2, network.in_channels), adj)
    return found


def _tried(backbone: nn.Module) -> tuple[Any, Adjacency]:
    network: Any = copy.deepcopy(backbone).cpu().float().eval()
    return network, Adjacency.from_edges(torch.tensor([[0, 1], [1, 0]]), 2)
