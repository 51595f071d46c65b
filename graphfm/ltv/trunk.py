"""What all horizons share: from features and embeddings to one representation."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

__all__ = ["Trunk"]

_UNKNOWN = 0.1  # share of members in training whose item is taken as unknown, so that unknown ones have a row that fits


class Trunk(nn.Module):
    """``layers`` times Linear, LayerNorm (on wish none), ReLU, dropout.

    Args:
        in_features: F.
        width: of the layers, D.
        layers: at least 1.
        dropout: rate.
        items: rows of an embedding of items; 0: none.
        item_width: its width.
        norm: whether there are LayerNorms.
    """

    def __init__(
        self,
        in_features: int,
        width: int = 64,
        layers: int = 2,
        dropout: float = 0.1,
        items: int = 0,
        item_width: int = 16,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.items = nn.Embedding(items, item_width) if items else None
        if self.items is not None:
            nn.init.normal_(self.items.weight, std=0.1)  # beside features of deviation 1, items start nearly alike
        widths = [in_features + (item_width if items else 0), *[width] * layers]
        parts: list[nn.Module] = []
        for low, high in itertools.pairwise(widths):
            parts += [nn.Linear(low, high), *([nn.LayerNorm(high)] if norm else []), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """From ``[B, F]``, and items ``[B]`` where it embeds them, to ``[B, D]``."""
        if self.items is not None and code is not None:
            if self.training:
                code = code.masked_fill(torch.rand(code.shape, device=code.device) < _UNKNOWN, 0)
            x = torch.cat([x, self.items(code)], dim=1)
        return self.layers(x)
