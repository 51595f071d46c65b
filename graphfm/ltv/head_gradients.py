"""Each horizon's gradient for what the head reads, in closed form: no backward pass through the head."""

from __future__ import annotations

import torch
from torch import Tensor

from graphfm.ltv.heads import MonotoneHead, ZILNHead
from graphfm.pareto.gradients import take_gradient

__all__ = ["HeadGradients"]

_SUM = 1024  # members whose products may be summed in float32
_TINY = 1e-20


class HeadGradients:
    """Losses of a batch, and their gradients, as :class:`graphfm.pareto.MGDAUB` asks for them.

    A head is a linear map to a few numbers ``[O]`` a member, W, and what those mean. The slopes ``J_k`` ``[O, B]`` of
    loss k in them are known, and its gradient for the representation is ``W^T J_k``. So the inner products are
    ``sum_ij (W W^T)_ij (J_k J_l^T)_ij``, the combined gradient is ``W^T sum_k w_k J_k``, and the head's own parameters
    need ``sum_k J_k`` alone: K losses cost about what one does.

    Args:
        head: whose parameters get the gradient of their losses.
        h: representation ``[B, D]``.
        value: labels ``[B, K]``.
        weight: of each entry ``[B, K]``; a loss is the weighted sum. ``None``: the mean.
        shift: added to the logits, see :class:`graphfm.ltv.subsample.Subsample`.

    Attributes:
        losses: ``[K]``, without a graph.
    """

    @torch.no_grad()
    def __init__(
        self,
        head: MonotoneHead | ZILNHead,
        h: Tensor,
        value: Tensor,
        weight: Tensor | None = None,
        shift: float = 0.0,
    ) -> None:
        self.linear, self.h = head.linear, h.detach()
        # Members lie along the last dimension, where loops are long; the few numbers of each along the first.
        raw = torch.addmm(self.linear.bias.unsqueeze(1), self.linear.weight, self.h.t())
        told, wanted = head.read(raw, dim=0).shifted(shift), value.t().contiguous()
        size = 1 / len(value) if weight is None else weight.t().contiguous()
        self.losses = (told.loss(wanted) * size).sum(dim=1)
        logit, mu, sigma = told.slopes(wanted)
        self.rows = head.pull(raw, (logit.mul_(size), mu.mul_(size), sigma.mul_(size)))

    @torch.no_grad()
    def gramian(self) -> Tensor:
        """Inner products ``[K, K]`` of the gradients for the representation, float64 on the CPU.

        Raises:
            FloatingPointError: a gradient that is not finite.
        """
        found = self._products(self.rows)
        own = found.diagonal()
        if self.rows.dtype != torch.float64 and not bool(((own > _TINY) & (own < torch.inf)).all()):
            found = self._products(self.rows.double())  # beyond what squares in float32 can hold, or nearly
        if not bool(torch.isfinite(found).all()):
            bad = (~torch.isfinite(found.diagonal())).nonzero().flatten().tolist()
            raise FloatingPointError(f"the gradient of loss {', '.join(map(str, bad))} (counted from 0) is not finite.")
        return found

    def _products(self, rows: Tensor) -> Tensor:
        shape, known = rows.shape[:2], self.linear.weight.double()
        product = sum((part @ part.t()).double() for part in rows.flatten(0, 1).split(_SUM, dim=1))
        blocks = product.unflatten(1, shape).unflatten(0, shape)
        found: Tensor = (blocks * (known @ known.t())[:, None]).sum(dim=(1, 3)).cpu()
        return found

    @torch.no_grad()
    def combined(self, weights: Tensor) -> Tensor:
        """The gradient ``[B, D]`` of ``sum_k w_k l_k`` for the representation; the head takes its losses' own."""
        own = self.rows.sum(dim=0)
        take_gradient(self.linear.weight, own @ self.h)
        take_gradient(self.linear.bias, own.sum(dim=1))
        weighed = weights.to(self.rows) @ self.rows.flatten(1)
        return weighed.view_as(own).t() @ self.linear.weight
