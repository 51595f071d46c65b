"""The min-norm combination of gradients: for all parameters, with lower bounds, or for the representation alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from graphfm.pareto.combiner import GradientCombiner, check_losses, check_vector
from graphfm.pareto.facts import Combined, combined_facts
from graphfm.pareto.gradients import flat, gramian_of, own_edges, own_parts, take_gradient, weighted
from graphfm.pareto.minnorm import bounded_min_norm, min_norm

__all__ = ["MGDA", "MGDAUB", "KnownGradients", "row_lengths"]

_NOTHING = 1e-12  # of the longest gradient


def row_lengths(gramian: Tensor) -> Tensor:
    """``[K]`` lengths of the gradients, 0 for those below 1e-12 of the longest: they have no direction left."""
    length = gramian.diagonal().clamp(min=0).sqrt()
    return torch.where(length > _NOTHING * length.max(), length, 0.0)


class MGDA(GradientCombiner):
    """The shortest vector in the hull of the gradients (Désidéri 2012; 1810.04650), solved exactly in float64.

    With ``normalise`` each gradient is first brought to the mean length of all: otherwise the hull's shortest vector
    lies near the shortest gradient, and the others hardly count. The weights are those of the losses:
    the step is ``sum_k w_k g_k`` with ``w_k = v_k mean|g| / |g_k|``, v on the simplex. (The code of 1810.04650
    normalises to find v, then applies v to the gradients as they are, which may raise a loss.)

    Without bounds the step raises no loss, to first order. With them (PE-LTR) it may: a loss then keeps at least its
    share of the step, whatever the others say. Gradients of length 0 are left out; their losses weigh 0.

    Args:
        lower: least share of each gradient, or of every one; with ``normalise`` of the normalised ones. Sum <= 1.
        normalise: whether to bring the gradients to one length.
    """

    def __init__(self, lower: float | Sequence[float] = 0.0, normalise: bool = True) -> None:
        super().__init__()
        self.lower = float(lower) if isinstance(lower, int | float) else tuple(float(v) for v in lower)
        self.normalise = normalise
        values = (self.lower,) if isinstance(self.lower, float) else self.lower
        if not all(v >= 0 for v in values) or not sum(values) <= 1:
            raise ValueError(f"lower bounds must be >= 0 and sum to at most 1, got {lower}.")

    def bind(self, num_losses: int) -> MGDA:
        """Check the bounds against the number of losses."""
        super().bind(num_losses)
        self._bounds(num_losses)
        return self

    def weights(self, losses: Tensor, gramian: Tensor | None = None) -> Tensor:
        """``[K]`` in float64 from the inner products ``gramian`` ``[K, K]``; the losses are not read.

        Raises:
            ValueError: no gramian, or one of another shape; bounds that do not fit K.
        """
        inner = checked_gramian(losses, gramian).numpy()  # K numbers: what numpy spends on a call is a tenth of torch's
        bounds = self._bounds(len(inner))
        length = np.sqrt(np.maximum(inner.diagonal(), 0.0))
        alive = (length > _NOTHING * length.max()).nonzero()[0]
        if not len(alive):
            return torch.full((len(inner),), 1 / len(inner), dtype=torch.float64)
        unit = length[alive]
        size = unit.mean() / unit if self.normalise else np.ones_like(unit)
        part = inner[alive[:, None], alive] * size[:, None] * size
        share = bounded_min_norm(part, np.array(bounds)[alive]) if any(bounds) else min_norm(part)
        weights = np.zeros(len(inner))
        weights[alive] = share * size
        return torch.from_numpy(weights)

    def _bounds(self, num_losses: int) -> list[float]:
        values = [self.lower] * num_losses if isinstance(self.lower, float) else list(self.lower)
        check_vector("lower", values, num_losses)
        if sum(values) > 1 + 1e-12:
            raise ValueError(f"lower={self.lower} for each of {num_losses} losses sums to more than 1.")
        return values


class KnownGradients(Protocol):
    """Gradients of K losses for a representation ``[...]`` that are known without going back through the heads."""

    def gramian(self) -> Tensor:
        """Their inner products ``[K, K]`` in float64 on the CPU."""

    def combined(self, weights: Tensor) -> Tensor:
        """The gradient ``[...]`` of ``sum_k w_k l_k``; each head's parameters take the gradient of their own loss."""


class MGDAUB(MGDA):
    """MGDA on the shared representation (1810.04650, section 3.3): each loss goes back through its own head only.

    With ``z = trunk(x)`` the min-norm problem is solved for ``dl_k / dz``, an upper bound of that for the parameters,
    and the combined gradient goes through the trunk once: the price of a plain sum. That no loss is raised holds for a
    step in z, not always for one in the parameters. The facts are those in z.

    Args:
        lower: see :class:`MGDA`.
        normalise: see :class:`MGDA`.
    """

    def backward(
        self,
        losses: Tensor,
        shared: Iterable[Tensor] | None = None,
        features: Tensor | Sequence[Tensor] | None = None,
        *,
        measure: bool = True,
        known: KnownGradients | None = None,
    ) -> Combined:
        """Add the gradients to ``.grad``: combined for what lies before ``features``, each loss's own behind them.

        Args:
            losses: ``[K]``.
            shared: not used.
            features: the representation, or several tensors that are it together; all losses act through it.
            measure: give the facts.
            known: the gradients for ``features``, one tensor, where they are known: nothing goes back through the
                heads then, and ``losses`` need no graph.

        Raises:
            ValueError: no features, or a parameter both before and behind them.
            FloatingPointError: a gradient that is not finite.
        """
        if known is None:
            check_losses(losses)
        gates = [features] if isinstance(features, Tensor) else list(features or ())
        if not gates or not all(z.requires_grad for z in gates):
            raise ValueError("MGDAUB reads the gradients of the shared representation; give features= with a gradient.")
        if known is not None:
            gramian = known.gramian()
            weights = self.weights(losses.detach(), gramian)
            gates[0].backward(known.combined(weights))
            return combined_facts(gramian.numpy(), weights) if measure else Combined(weights)
        rows = self._rows(losses, gates)
        gramian = gramian_of(rows, exact=rows[0].dtype != torch.float32)
        weights = self.weights(losses.detach(), gramian)
        combined = weighted(rows, weights).split([z.numel() for z in gates])
        torch.autograd.backward(gates, [part.view_as(z) for part, z in zip(combined, gates, strict=True)])
        return combined_facts(gramian.numpy(), weights) if measure else Combined(weights)

    def _rows(self, losses: Tensor, gates: list[Tensor]) -> list[Tensor]:
        """K gradients of the representation ``[P]``; the heads take theirs on the way."""
        one, rows = torch.ones_like(losses[0]), []
        for edge, own, is_needed in zip(own_edges(losses), *own_parts(losses, gates), strict=True):
            inputs = [*gates, *own]
            found: Sequence[Tensor | None] = [None] * len(inputs)
            if edge is not None:
                found = torch.autograd.grad([edge], inputs, [one], retain_graph=is_needed, allow_unused=True)
            rows.append(flat(found[: len(gates)], gates))
            for leaf, grad in zip(own, found[len(gates) :], strict=True):
                if grad is not None:
                    take_gradient(leaf, grad)
        return rows


def checked_gramian(losses: Tensor, gramian: Tensor | None) -> Tensor:
    """``gramian`` in float64 on the CPU.

    Raises:
        ValueError: none, another shape than ``[K, K]``, or numbers that are not finite.
    """
    size = losses.numel()
    if gramian is None or tuple(gramian.shape) != (size, size):
        got = None if gramian is None else list(gramian.shape)
        raise ValueError(f"gramian must be [{size}, {size}], the inner products of the gradients; got {got}.")
    found = gramian.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(found).all()):
        raise ValueError("gramian is not finite; the gradients are NaN, infinite or beyond 1e154.")
    return found
