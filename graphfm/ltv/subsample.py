"""Learning from all who pay and a share of those who do not, while P(pay) stays that of everybody."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

__all__ = ["Subsample", "draw"]


@dataclasses.dataclass(frozen=True)
class Subsample:
    """Who is learnt from, horizon by horizon.

    For a horizon everybody who pays within it is in, and of the others a share s, drawn without a look at their
    features x. Within the sample P(y > 0 | x) is then p / (p + s (1 - p)): the odds of everybody divided by s, so the
    logit of everybody less log s. A likelihood with that logit is the sample's own, and its parameters are those of
    everybody (Prentice and Pyke, Biometrika 1979, where only the intercept differs). Amounts are of payers alone, who
    are all in. Weights 1 / s for those drawn would do as well, with more variance and no change of the logit.

    Attributes:
        members: ``[M]`` those who are in at one horizon at least.
        weight: ``[N, K]``: 0 for who is out, else what makes a sum over the ``members`` M times the mean over those
            who are in at that horizon.
        shift: -log s, what is added to the logit while learning.
    """

    members: Tensor
    weight: Tensor
    shift: float


def draw(value: Tensor, share: float) -> Subsample:
    """Draw a subsample with torch's own generator.

    One number u decides for all horizons of a member (in where u <= s), so that who never pays is in or out as a whole.

    Args:
        value: ``[N, K]``, N >= 1.
        share: s in (0, 1]; somebody is in whatever it is.
    """
    u = torch.rand(len(value), device=value.device)
    inside = (value > 0) | (u <= u.min().clamp(min=share)).unsqueeze(1)
    members = inside.any(dim=1).nonzero().flatten()
    weight = inside * (len(members) / inside.sum(dim=0).clamp(min=1))
    return Subsample(members, weight, -math.log(share))
