"""Where to compute, checked before anything is computed."""

from __future__ import annotations

import torch

__all__ = ["as_device"]


def as_device(device: torch.device | str | None) -> torch.device:
    """``device`` as torch has it; the CPU for ``None``.

    Raises:
        ValueError: no such kind of device, or CUDA where there is none.
    """
    try:
        found = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be like 'cpu', 'cuda' or 'cuda:1', got {device!r}.") from error
    if found.type == "cuda" and (not torch.cuda.is_available() or (found.index or 0) >= torch.cuda.device_count()):
        raise ValueError(
            f"device is {device!r}, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA device(s); "
            "use device='cpu' or install a CUDA build of torch."
        )
    return found
