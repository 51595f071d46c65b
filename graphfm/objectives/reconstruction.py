"""The feature-reconstruction term that GCOPE adds to a contrastive loss."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["FeatureDecoder"]


class FeatureDecoder(nn.Module):
    """Linear-ReLU-Linear from node embeddings back to the unified features (GCOPE, 2402.09834, eq. 6).

    Args:
        in_channels: embedding width D.
        out_channels: feature width d.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_channels, in_channels), nn.ReLU(), nn.Linear(in_channels, out_channels)
        )

    def loss(self, h: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        """Mean squared error over the kept rows: ``h`` ``[N, D]``, ``x`` ``[N, d]``, ``keep`` ``[N]`` of 0 and 1.

        Coordinators are to be left out of ``keep``: they could lower the loss by becoming constant.
        """
        error = (self.layers(h) - x).square().mean(1)
        return (error * keep).sum() / keep.sum().clamp(min=1)
