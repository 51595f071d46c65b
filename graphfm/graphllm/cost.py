"""What a cell costs: seconds, and the most memory it took."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from graphfm.results import peak_memory

__all__ = ["Cost", "measured"]


class Cost:
    """Filled when the block ends.

    Attributes:
        seconds: wall-clock time.
        memory: peak bytes: of the device (CUDA), else of the process while the block ran (Linux), else so far. What
            earlier work gave back to the allocator alone is given back to the system first (glibc).
    """

    seconds = 0.0
    memory = 0


@contextlib.contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Measure the block, also one that fails."""
    cost, on_device = Cost(), device.type == "cuda"
    if on_device:
        torch.cuda.reset_peak_memory_stats(device)
    if not on_device:
        _give_back()
    forgot = not on_device and _forget_peak()
    started = time.perf_counter()
    try:
        yield cost
    finally:
        if on_device:
            torch.cuda.synchronize(device)
        cost.seconds = time.perf_counter() - started
        cost.memory = _peak() if forgot else peak_memory(device)


def _give_back() -> None:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _forget_peak() -> bool:
    """Set the kernel's high-water mark of this process back to what it holds now; False where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _peak() > 0


def _peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
