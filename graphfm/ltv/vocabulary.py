"""Names of items as numbers of rows in an embedding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["Vocabulary"]


class Vocabulary:
    """Numbers from 1 on for names that are known, 0 for all others.

    Args:
        names: ``[I]`` text or whole numbers, in any order.
    """

    def __init__(self, names: np.ndarray) -> None:
        self.names = np.unique(_plain(names))

    def __len__(self) -> int:
        return len(self.names) + 1

    def codes(self, names: np.ndarray) -> np.ndarray:
        """int64 ``[N]`` for names ``[N]``.

        Raises:
            ValueError: text in the place of whole numbers, or the other way round: all would be unknown.
        """
        wanted = _plain(names)
        if wanted.dtype.kind != self.names.dtype.kind:
            kinds = {"i": "whole numbers", "U": "text"}
            raise ValueError(
                f"items are {kinds[wanted.dtype.kind]} in this log and were {kinds[self.names.dtype.kind]} in the one "
                "that the model was fitted on; read the column alike."
            )
        place = np.minimum(np.searchsorted(self.names, wanted), max(len(self.names) - 1, 0))
        return np.where(self.names[place] == wanted, place + 1, 0) if len(self.names) else np.zeros_like(place)

    def tensor(self) -> Tensor:
        """int64 ``[I]`` of numbers, or uint8 ``[I, W]`` of text in UTF-8: what a file keeps."""
        if self.names.dtype.kind == "i":
            return torch.from_numpy(self.names)
        text = np.char.encode(self.names, "utf-8")
        return torch.from_numpy(np.frombuffer(text.tobytes(), dtype=np.uint8).reshape(len(text), -1).copy())

    @classmethod
    def from_tensor(cls, stored: Tensor) -> Vocabulary:
        """The inverse of :meth:`tensor`."""
        if stored.dtype == torch.long:
            return cls(stored.numpy())
        text = np.ascontiguousarray(stored.numpy()).view(f"S{stored.size(1)}").reshape(-1)
        return cls(np.char.decode(text, "utf-8"))


def _plain(names: np.ndarray) -> np.ndarray:
    names = np.asarray(names)
    return names.astype(np.int64) if names.dtype.kind in "iu" else names.astype(np.str_)
