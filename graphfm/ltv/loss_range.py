"""From what to what the likelihood of each horizon can go, so that horizons can be compared."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphfm.ltv.heads import MonotoneHead, ZILNHead
from graphfm.pareto import LossRange
from graphfm.rng import isolated_rng

Head = type[MonotoneHead] | type[ZILNHead]

__all__ = ["constant_losses", "unreachable_losses", "widest_range"]


@torch.no_grad()
def constant_losses(head: Head, value: Tensor, other: Tensor | None = None, non_payers: float = 1.0) -> Tensor:
    """Mean loss ``[K]`` of one distribution for all, fitted to ``value`` ``[N, K]``: what a model starts from.

    Args:
        head: kind of head.
        value: labels to fit.
        other: labels ``[M, K]`` to judge by; ``value`` where it is not given.
        non_payers: share of them that it is judged by, see :mod:`graphfm.ltv.subsample`: the mean over draws.
    """
    with isolated_rng(0):  # what is drawn is put to 0 at once
        same = head(1, value.size(1)).to(value)
    same.linear.weight.zero_()
    same.start_at(value)
    judged = value if other is None else other
    told = same(judged.new_zeros(len(judged), 1)).shifted(-math.log(non_payers))
    return _mean(told.loss(judged), judged, non_payers)


def unreachable_losses(value: Tensor, floor: float = 0.05, non_payers: float = 1.0) -> Tensor:
    """What no ZILN with sigma of at least ``floor`` goes below, ``[K]``: who pays is known, and how much exactly."""
    paid = value > 0
    density = math.log(floor) + 0.5 * math.log(2 * math.pi)
    return _mean(torch.where(paid, torch.where(paid, value, 1.0).log() + density, 0.0), value, non_payers)


def _mean(losses: Tensor, value: Tensor, non_payers: float) -> Tensor:
    """Mean of ``[N, K]`` over all who pay and a share of the others, ``[K]``."""
    weight = torch.where(value > 0, 1.0, non_payers)
    return (losses * weight).sum(dim=0) / weight.sum(dim=0)


def widest_range(head: Head, value: Tensor, non_payers: float = 1.0) -> LossRange:
    """From what nothing reaches to what the constant reaches; see :class:`graphfm.pareto.LossRange`.

    Safe, and wide: normalised losses then lie near 1, so preferences bend the result little. The sweep measures a
    narrower one (:func:`graphfm.ltv.sweep.measured_range`).
    """
    ideal = unreachable_losses(value, non_payers=non_payers)
    reference = constant_losses(head, value, non_payers=non_payers)
    # Where nobody pays both are nearly 0.
    reference = torch.maximum(reference, ideal + 1e-6)
    return LossRange(tuple(ideal.tolist()), tuple(reference.tolist()))
