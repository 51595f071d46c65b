"""GPF and GPF-plus: vectors added to the features of every node."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.prompts.base import SMALL, Prompt, checked_count, drawn

__all__ = ["GPF", "GPFPlus", "with_features"]


class GPF(Prompt):
    """``x_i + p``, one vector for all nodes (Fang et al., 2209.15240).

    p is 0 at first, so training begins at the backbone; the authors' code draws it at random. With more than one vector
    each node has its own mixture, ``x_i + sum_j softmax_j(a_j . x_i) p_j``: that is :class:`GPFPlus`. These are random
    at first, the p_j small.

    Args:
        k: number of basis vectors.

    Raises:
        ValueError: ``k`` below 1.
    """

    p: Tensor
    a: Tensor

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.k = checked_count("k", k)

    def make(self, in_channels: int, out_channels: int, *, layers: list[int], messages: list[int]) -> None:
        """One vector ``[F]``; of several, vectors p and scorers a, ``[k, F]`` each."""
        if self.k == 1:
            self.p = nn.Parameter(torch.zeros(in_channels))
        else:
            self.p = drawn(self.k, in_channels, length=SMALL)
            self.a = drawn(self.k, in_channels)

    def graph(self, data: Data) -> Data:
        """Add p, or each node's own mixture."""
        if self.k == 1:
            return with_features(data, data.x + self.p)
        return with_features(data, torch.addmm(data.x, torch.softmax(data.x @ self.a.t(), dim=1), self.p))


class GPFPlus(GPF):
    """``x_i + sum_j softmax_j(a_j . x_i) p_j`` (Fang et al., 2209.15240): :class:`GPF` of several vectors.

    Args:
        k: number of basis vectors.

    Raises:
        ValueError: ``k`` below 1.
    """

    def __init__(self, k: int = 5) -> None:
        super().__init__(k)


def with_features(data: Data, x: Tensor) -> Data:
    """A shallow copy of ``data`` with other features."""
    data = copy.copy(data)
    data.x = x
    return data
