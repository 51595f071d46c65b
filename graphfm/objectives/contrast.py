"""NT-Xent, the contrastive loss between two views."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["nt_xent"]


def nt_xent(a: Tensor, b: Tensor, temperature: float = 0.5, *, positive_in_denominator: bool = False) -> Tensor:
    """``mean_i -log(exp(s_ii / T) / sum_j exp(s_ij / T))`` with cosine similarity s between views a and b.

    The form of GraphCL's code by default: one direction (a against b), the positive left out of the denominator. With
    ``positive_in_denominator`` the sum runs over all j, as in SimCLR (2002.05709, eq. 1) for one direction.

    Args:
        a: ``[B, D]`` embeddings of the first views.
        b: ``[B, D]`` embeddings of the second views.
        temperature: T > 0.
        positive_in_denominator: which form.

    Returns:
        A scalar; 0 for fewer than two graphs, which have nothing to be told apart from.
    """
    if a.size(0) < 2:
        return a.sum() * 0.0
    similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).t() / temperature
    positive = similarity.diagonal()
    if not positive_in_denominator:
        similarity = similarity.masked_fill(torch.eye(a.size(0), dtype=torch.bool, device=a.device), -torch.inf)
    return (torch.logsumexp(similarity, dim=1) - positive).mean()
