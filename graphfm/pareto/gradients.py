"""Gradients of several losses: one backward pass a loss, each loss on its own graph where it has one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

__all__ = [
    "flat",
    "gramian_of",
    "needed_later",
    "own_edges",
    "own_parts",
    "rows_and_own_gradients",
    "rows_of",
    "take_gradient",
    "walk",
    "weighted",
]

_BLOCK = 1 << 16  # columns that are looked at at a time: they stay in the cache
_TINY = 1e-20
_SUM = 1 << 10  # of these, columns whose products may be summed in float32


def own_edges(losses: Tensor) -> list[GradientEdge | None]:
    """Where the backward pass of each of the losses ``[K]`` begins; ``None`` for one that depends on nothing.

    Losses put together by ``torch.stack`` are taken apart again: through the stack, a backward pass from one of them
    would run through the graphs of all others as well, with zeros.
    """
    node = losses.grad_fn
    while node is not None and node.name() == "ViewBackward0":  # a reshape(-1) in between
        node = node.next_functions[0][0]
    if node is not None and node.name() == "StackBackward0" and len(node.next_functions) == losses.numel():
        return [None if fn is None else GradientEdge(fn, place) for fn, place in node.next_functions]
    return [get_gradient_edge(loss) if loss.requires_grad else None for loss in losses.unbind()]


def rows_of(losses: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """K times ``[P]``: the gradient of each loss for all inputs, one after the other; the graph is kept.

    Args:
        losses: ``[K]``.
        inputs: tensors that the losses may depend on, P numbers in all.
    """
    rows = []
    for edge in own_edges(losses):
        found: Sequence[Tensor | None] = [None] * len(inputs)
        if edge is not None:
            found = torch.autograd.grad([edge], inputs, [_one(losses)], retain_graph=True, allow_unused=True)
        rows.append(flat(found, inputs))
    return rows


def rows_and_own_gradients(losses: Tensor, shared: Sequence[Tensor]) -> tuple[list[Tensor], list[bool]]:
    """The gradient rows of ``shared``; every other leaf gets the gradient of its own losses added to its ``.grad``.

    Args:
        losses: ``[K]``; their graph is used up.
        shared: parameters, P numbers in all; their ``.grad`` is left as it was.

    Returns:
        K times ``[P]``, and for each parameter whether any loss reached it.
    """
    before = [p.grad for p in shared]
    rows, reached = [], [False] * len(shared)
    edges = own_edges(losses)
    keep = needed_later([walk([] if edge is None else [edge])[1] for edge in edges])
    try:
        for edge, is_needed in zip(edges, keep, strict=True):
            for p in shared:
                p.grad = None
            if edge is not None:
                torch.autograd.backward([edge], [_one(losses)], retain_graph=is_needed)
            reached = [r or p.grad is not None for r, p in zip(reached, shared, strict=True)]
            rows.append(flat([p.grad for p in shared], shared))
    finally:
        for p, grad in zip(shared, before, strict=True):
            p.grad = grad
    return rows, reached


def walk(edges: Sequence[GradientEdge], stop: Collection[GradientEdge] = ()) -> tuple[list[Tensor], set[Any]]:
    """Leaves and inner nodes of the graph that ``edges`` lead to by a way that does not go through ``stop``."""
    todo: list[tuple[Any, int]] = [(edge.node, edge.output_nr) for edge in edges]
    barred = {(edge.node, edge.output_nr) for edge in stop}
    leaves: dict[Any, Tensor] = {}
    inner: set[Any] = set()
    while todo:
        place = todo.pop()
        node = place[0]
        if node is None or node in inner or node in leaves or place in barred:
            continue
        if hasattr(node, "variable"):
            leaves[node] = node.variable
        else:
            inner.add(node)
            todo.extend(node.next_functions)
    return list(leaves.values()), inner


def needed_later(parts: Sequence[set[Any]]) -> list[bool]:
    """For each part of a graph whether a later one has a node of it, so that its buffers must be kept.

    What nobody needs is freed at once: steps that allocate anew for every loss spend their time in page faults.
    """
    later: set[Any] = set()
    found = []
    for part in reversed(parts):
        found.append(not later.isdisjoint(part))
        later |= part
    return found[::-1]


def own_parts(losses: Tensor, features: Sequence[Tensor]) -> tuple[list[list[Tensor]], list[bool]]:
    """For each loss the leaves that it reaches past ``features``, its own head, and whether a later loss needs that.

    Raises:
        ValueError: a leaf that is reached past ``features`` and through them, so that its gradient has no one place.
    """
    gates = [get_gradient_edge(z) for z in features]
    beyond = {id(leaf) for leaf in walk(gates)[0]}
    known: dict[Any, tuple[list[Tensor], set[Any]]] = {None: ([], set())}
    parts = []
    for edge in own_edges(losses):
        node = None if edge is None else edge.node
        if edge is not None and node not in known:  # losses that are rows of one tensor begin at one node
            known[node] = walk([edge], gates)
        parts.append(known[node])
    both = [leaf for leaves, _ in parts for leaf in leaves if id(leaf) in beyond]
    if both:
        raise ValueError(
            f"a parameter {list(both[0].shape)} lies both before and behind features: a loss reaches it past them as "
            "well. Give all tensors through which the shared part acts, or use MGDA(...) with shared=."
        )
    return [leaves for leaves, _ in parts], needed_later([inner for _, inner in parts])


def take_gradient(tensor: Tensor, grad: Tensor) -> None:
    """Add to ``.grad``."""
    tensor.grad = grad if tensor.grad is None else tensor.grad + grad


def gramian_of(rows: Sequence[Tensor], *, exact: bool = True) -> Tensor:
    """``[K, K]`` inner products of K rows ``[P]`` in float64 on the CPU.

    Args:
        rows: gradients.
        exact: products and sums in float64. Otherwise those of 1,024 columns at a time are in the rows' own type, which
            is right to 1e-8 of ``|g_i| |g_j|`` in float32 and four times as fast.

    Raises:
        FloatingPointError: rows that are not finite, by number.
    """
    total = rows[0].new_zeros((len(rows), len(rows)), dtype=torch.float64)
    for parts in zip(*(row.split(_BLOCK) for row in rows), strict=True):
        total += _inner(torch.stack(parts), exact)
    total = total.cpu()
    if not exact and not bool(((total.diagonal() > _TINY) & torch.isfinite(total.diagonal())).all()):
        return gramian_of(rows)  # beyond what squares in float32 can hold, or nearly
    bad = (~torch.isfinite(total.diagonal())).nonzero().flatten().tolist()
    if bad:
        raise FloatingPointError(f"the gradient of loss {', '.join(map(str, bad))} (counted from 0) is not finite.")
    return total


def _inner(block: Tensor, exact: bool) -> Tensor:
    if exact or block.size(1) % _SUM:
        block = block.double()
        return block @ block.t()
    parts = block.unflatten(1, (-1, _SUM)).transpose(0, 1)
    return (parts @ parts.transpose(1, 2)).sum(0, dtype=torch.float64)


def weighted(rows: Sequence[Tensor], weights: Tensor) -> Tensor:
    """``sum_k w_k g_k``: ``[P]`` from K rows ``[P]``."""
    factors = weights.tolist()
    total = rows[0] * factors[0]
    for row, factor in zip(rows[1:], factors[1:], strict=True):
        total.add_(row, alpha=factor)
    return total


def _one(losses: Tensor) -> Tensor:
    return torch.ones((), dtype=losses.dtype, device=losses.device)


def flat(grads: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    """One row ``[P]`` of gradients; ``None`` is 0."""
    parts = [(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in zip(grads, like, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
