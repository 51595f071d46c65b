"""Dropout that draws 16 random bits an element on the CPU, where drawing is what dropout costs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["dropout"]

_LEVELS = 2**16


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """``torch.nn.functional.dropout``, some three times as fast on the CPU.

    The rate is rounded to 1/65536, and the kept elements are scaled by what the rounded rate leaves, so the mean is
    exact. Draws from torch's global generator, but not the same numbers as torch's own.

    Args:
        x: any shape.
        p: rate in [0, 1).
        training: without it ``x`` is returned as it is.
    """
    if not training or p == 0 or x.device.type != "cpu" or p >= 1:
        return F.dropout(x, p, training)
    dropped = round(p * _LEVELS)
    count = x.numel()
    bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
    keep = (bits >= dropped - _LEVELS // 2).view(x.shape)
    return x * keep.to(x.dtype).mul_(_LEVELS / (_LEVELS - dropped))
