"""Heads that turn a customer's representation into a ZILN for each horizon."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphfm.ltv.ziln import ZILN

__all__ = ["MonotoneHead", "ZILNHead"]

_SMALLEST = 1e-4  # step of a rising parameter at the start


class ZILNHead(nn.Module):
    """Three numbers for each horizon, free of one another (1912.07753, section 3).

    Args:
        in_features: D.
        horizons: K.
        floor: lower bound of sigma: the likelihood of a point would grow without end.
        cap: upper bound of sigma, since the mean grows with exp(sigma^2 / 2). In between sigma is softplus, bent.
    """

    def __init__(self, in_features: int, horizons: int, *, floor: float = 0.05, cap: float = 3.0) -> None:
        super().__init__()
        _check(in_features, horizons, floor, cap)
        self.horizons, self.floor, self.cap = horizons, floor, cap
        self.linear = nn.Linear(in_features, 3 * horizons)

    def forward(self, h: Tensor) -> ZILN:
        """From ``[N, D]`` to distributions ``[N, K]``."""
        return self.read(self.linear(h))

    def read(self, raw: Tensor, dim: int = -1) -> ZILN:
        """What the linear map's ``3 K`` numbers, which lie along ``dim``, mean."""
        logit, mu, scale = raw.chunk(3, dim=dim)
        return ZILN(logit, mu, _bounded(scale, self.floor, self.cap))

    def pull(self, raw: Tensor, slopes: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """From the slopes of each horizon's loss in its own three numbers to those in ``raw``.

        Args:
            raw: ``[3 K, N]``.
            slopes: in logit, mu and sigma, ``[K, N]`` each.

        Returns:
            ``[K, 3 K, N]``.
        """
        logit, mu, sigma = slopes
        own = torch.stack([logit, mu, sigma * _bounded_slope(raw.chunk(3)[2], self.floor, self.cap)])
        found = raw.new_zeros(self.horizons, *raw.shape)
        parts = found.unflatten(1, (3, self.horizons))
        for k in range(self.horizons):
            parts[k, :, k] = own[:, k]
        return found

    @torch.no_grad()
    def start_at(self, value: Tensor) -> None:
        """Set the biases to what fits all customers alike, so that training starts at the mean and not at e^0.

        Args:
            value: labels ``[N, K]``.
        """
        logit, mu, sigma = _moments(value, self.horizons)
        self.linear.bias.copy_(torch.cat([logit, mu, _unbounded(sigma, self.floor, self.cap)]))


class MonotoneHead(nn.Module):
    """ZILNs that do not fall: more days are never worth less, by construction.

    The first horizon has its logit and mu; the others add softplus steps. Sigma is one for all horizons. Then
    P(y_k > v) = sigmoid(logit_k) Phi((mu_k - log v) / sigma) does not fall with k for any v, which says all at once:
    neither P(pay) nor the mean nor any quantile does. With a sigma for each horizon two lognormals would cross.

    Args:
        in_features: D.
        horizons: K.
        floor: lower bound of sigma.
        cap: upper bound of sigma.
    """

    def __init__(self, in_features: int, horizons: int, *, floor: float = 0.05, cap: float = 3.0) -> None:
        super().__init__()
        _check(in_features, horizons, floor, cap)
        self.horizons, self.floor, self.cap = horizons, floor, cap
        self.linear = nn.Linear(in_features, 2 * horizons + 1)

    def forward(self, h: Tensor) -> ZILN:
        """From ``[N, D]`` to distributions ``[N, K]``."""
        return self.read(self.linear(h))

    def read(self, raw: Tensor, dim: int = -1) -> ZILN:
        """What the linear map's ``2 K + 1`` numbers, which lie along ``dim``, mean."""
        logit, mu, scale = raw.split([self.horizons, self.horizons, 1], dim=dim)
        sigma = _bounded(scale, self.floor, self.cap).expand_as(mu)
        return ZILN(_rising(logit, dim), _rising(mu, dim), sigma, rising=True)

    def pull(self, raw: Tensor, slopes: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """From the slopes of each horizon's loss in its own three numbers to those in ``raw``.

        Args:
            raw: ``[2 K + 1, N]``.
            slopes: in logit, mu and sigma, ``[K, N]`` each.

        Returns:
            ``[K, 2 K + 1, N]``.
        """
        logit, mu, sigma = slopes
        steps = raw[:-1].sigmoid()
        steps[0], steps[self.horizons] = 1.0, 1.0
        found = raw.new_zeros(self.horizons, *raw.shape)
        for k in range(self.horizons):  # whose logit and mu are sums of the steps up to its own
            torch.mul(steps[: k + 1], logit[k], out=found[k, : k + 1])
            low = self.horizons
            torch.mul(steps[low : low + k + 1], mu[k], out=found[k, low : low + k + 1])
        torch.mul(sigma, _bounded_slope(raw[-1], self.floor, self.cap), out=found[:, -1])
        return found

    @torch.no_grad()
    def start_at(self, value: Tensor) -> None:
        """Set the biases to what fits all customers alike, as near as rising parameters come to it.

        Args:
            value: labels ``[N, K]``.
        """
        logit, mu, sigma = _moments(value, self.horizons)
        scale = _unbounded(sigma.mean().reshape(1), self.floor, self.cap)
        self.linear.bias.copy_(torch.cat([_steps(logit), _steps(mu), scale]))


def _rising(values: Tensor, dim: int) -> Tensor:
    """First entry along ``dim``, then softplus steps on it."""
    first, rest = values.split([1, values.size(dim) - 1], dim=dim)
    return torch.cat([first, F.softplus(rest)], dim=dim).cumsum(dim=dim)


def _steps(values: Tensor) -> Tensor:
    """What ``_rising`` makes ``values`` of, where they rise."""
    rise = values.cummax(dim=-1).values.diff().clamp(min=_SMALLEST)
    return torch.cat([values[:1], rise + torch.log(-torch.expm1(-rise))])


def _bounded(scale: Tensor, floor: float, cap: float) -> Tensor:
    return floor + (cap - floor) * torch.tanh(F.softplus(scale) / (cap - floor))


def _bounded_slope(scale: Tensor, floor: float, cap: float) -> Tensor:
    """The derivative of ``_bounded``."""
    return (1 - torch.tanh(F.softplus(scale) / (cap - floor)) ** 2) * scale.sigmoid()


def _unbounded(sigma: Tensor, floor: float, cap: float) -> Tensor:
    room = cap - floor
    soft = room * torch.atanh(((sigma - floor) / room).clamp(0.01, 0.99))
    return soft + torch.log(-torch.expm1(-soft))


def _moments(value: Tensor, horizons: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logit of the payers' share, mean and deviation of log value of payers, ``[K]`` each."""
    if value.dim() != 2 or value.size(1) != horizons or not len(value):
        raise ValueError(f"value must be [N, {horizons}], got {list(value.shape)}.")
    paid = value > 0
    count = paid.sum(dim=0)
    logs = torch.where(paid, value, 1.0).log()
    mu = logs.sum(dim=0) / count.clamp(min=1)
    variance = (paid * (logs - mu) ** 2).sum(dim=0) / count.clamp(min=1)
    # Half a payer and half a non-payer more keep the logit finite where nobody pays.
    logit = torch.logit((count + 0.5) / (len(value) + 1))
    known = count > 1
    return logit, mu, torch.where(known, variance.sqrt(), 1.0)


def _check(in_features: int, horizons: int, floor: float, cap: float) -> None:
    if in_features < 1 or horizons < 1:
        raise ValueError(f"in_features and horizons must be at least 1, got {in_features} and {horizons}.")
    if not 0 < floor < cap:
        raise ValueError(f"floor and cap must obey 0 < floor < cap, got {floor} and {cap}.")
