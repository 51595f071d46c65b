"""A first stage that is kept, so that other settings of what comes after it need not go through it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Stage"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Weights and random state at the end of a stage: to go on from them gives the bits of going through it.

    Attributes:
        weights: of each module.
        random: state of torch's generator on the CPU.
        on_device: of that on the device, if it is CUDA.
    """

    weights: tuple[dict[str, Tensor], ...]
    random: Tensor
    on_device: Tensor | None

    @classmethod
    def of(cls, modules: Sequence[nn.Module], device: torch.device) -> Stage:
        """What ``modules`` and torch's generators are now."""
        weights = tuple({key: value.clone() for key, value in module.state_dict().items()} for module in modules)
        on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(weights, torch.get_rng_state(), on_device)

    def restore(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        """Bring ``modules`` and torch's generators to what they were."""
        for module, weights in zip(modules, self.weights, strict=True):
            module.load_state_dict(weights)
        torch.set_rng_state(self.random)
        if self.on_device is not None:
            torch.cuda.set_rng_state(self.on_device, device)
