"""Zero-inflated lognormal: most pay nothing, the others a lognormal amount (1912.07753)."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ZILN"]

_LARGEST = 60.0  # exponents stop here: e^60 is finite in float32, and worth more than there is


@dataclasses.dataclass(frozen=True)
class ZILN:
    """P(y > 0) = sigmoid(logit); log y ~ N(mu, sigma^2) for those who pay.

    Attributes:
        logit: ``[..., K]``, K horizons.
        mu: ``[..., K]``.
        sigma: ``[..., K]``, above 0.
        rising: that logit and mu do not fall over the horizons and sigma is the same for all. The probability to pay,
            the mean and every quantile then do not fall either; what rounding could do about it is mended.
    """

    logit: Tensor
    mu: Tensor
    sigma: Tensor
    rising: bool = False

    def loss(self, value: Tensor) -> Tensor:
        """Negative log-likelihood of each entry, ``[..., K]``; the parts are one likelihood and need no weights.

        Args:
            value: ``[..., K]``, at least 0.

        Raises:
            ValueError: another shape, or values below 0 or not finite.
        """
        if value.shape != self.logit.shape:
            raise ValueError(f"value must be {list(self.logit.shape)}, got {list(value.shape)}.")
        if not bool(((value >= 0) & torch.isfinite(value)).all()):
            raise ValueError("value must be finite and at least 0; clip what returns outweigh.")
        paid = value > 0
        logs = torch.where(paid, value, 1.0).log()
        amount = logs + self.sigma.log() + 0.5 * math.log(2 * math.pi) + 0.5 * ((logs - self.mu) / self.sigma) ** 2
        # softplus(z) - z [y > 0] is the cross-entropy; amounts of those who pay nothing get no gradient.
        return F.softplus(self.logit) - torch.where(paid, self.logit - amount, 0.0)

    def slopes(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Derivatives of :meth:`loss` in logit, mu and sigma, ``[..., K]`` each.

        Args:
            value: ``[..., K]``, as :meth:`loss` has it.
        """
        paid = value > 0
        off = torch.where(paid, (torch.where(paid, value, 1.0).log() - self.mu) / self.sigma, 0.0)
        pays = paid.to(off)
        return self.logit.sigmoid() - pays, -off / self.sigma, (pays - off * off) / self.sigma

    def shifted(self, by: float) -> ZILN:
        """The same with ``by`` added to the logit: how it looks where payers are e^by times as frequent."""
        return dataclasses.replace(self, logit=self.logit + by) if by else self

    def pay(self) -> Tensor:
        """Probability to pay, ``[..., K]``."""
        return self._risen(self.logit.sigmoid())

    def mean(self) -> Tensor:
        """Expected value sigmoid(logit) exp(mu + sigma^2 / 2), ``[..., K]``."""
        return self._risen(torch.exp((F.logsigmoid(self.logit) + self.mu + self.sigma**2 / 2).clamp(max=_LARGEST)))

    def quantile(self, share: float) -> Tensor:
        """The value that a share of such customers stays at or below, ``[..., K]``.

        Args:
            share: in (0, 1).

        Raises:
            ValueError: another share.
        """
        if not 0 < share < 1:
            raise ValueError(f"share must lie between 0 and 1, got {share}.")
        # Of those who pay, 1 - (1 - share) / P(pay) stay below; the complement keeps its digits where few pay.
        above = (1 - share) / self.logit.sigmoid()
        amount = self.mu - self.sigma * torch.special.ndtri(above.clamp(max=1.0))
        return self._risen(torch.where(above < 1, torch.exp(amount.clamp(max=_LARGEST)), 0.0))

    def _risen(self, values: Tensor) -> Tensor:
        # Lanes of one instruction and the rest of an array may round differently.
        return values.cummax(dim=-1).values if self.rising else values
