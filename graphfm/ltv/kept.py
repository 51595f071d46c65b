"""Methods that are a few numbers, in folders: one JSON, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from graphfm.bundle import CheckpointError, read_bundle, write_bundle

__all__ = ["load_numbers", "save_numbers"]

_STEM = "numbers"


def save_numbers(folder: str | os.PathLike[str], method: object, numbers: dict[str, Any]) -> Path:
    """Write what a fitted method knows, under the name of its class.

    Raises:
        OSError: the folder cannot be written; what was there before stays whole.
    """
    write_bundle(folder, _STEM, {"kind": type(method).__name__, **numbers}, {})
    return Path(folder)


def load_numbers(folder: str | os.PathLike[str], kind: type) -> dict[str, Any]:
    """What :func:`save_numbers` wrote of a class.

    Raises:
        CheckpointError: nothing there, or something else.
    """
    numbers, _ = read_bundle(folder, _STEM)
    if numbers.get("kind") != kind.__name__:
        raise CheckpointError(f"{folder} holds a {numbers.get('kind')}, no {kind.__name__}.")
    return numbers
