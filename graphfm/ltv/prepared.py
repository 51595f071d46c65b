"""What a run of training reads, apart from its settings."""

from __future__ import annotations

import dataclasses
import hashlib

from graphfm.ltv.columns import Columns
from graphfm.ltv.pretraining import PurchaseEncoder
from graphfm.ltv.supervised import Labelled
from graphfm.ltv.vocabulary import Vocabulary

__all__ = ["Prepared"]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """All that training reads, made once for several runs.

    Attributes:
        data: to learn from.
        val: to stop and to choose by, or ``None``.
        encoder: of users and items, or ``None``.
        vocabulary: of items, or ``None``.
        columns: of the tasks.
    """

    data: Labelled
    val: Labelled | None
    encoder: PurchaseEncoder | None
    vocabulary: Vocabulary | None
    columns: Columns

    def fingerprint(self) -> str:
        """A hash of the features and labels to learn from: what tells two training logs apart."""
        found = hashlib.sha256()
        for part in (*self.data.inputs.tables, *self.data.inputs.index, self.data.value):
            found.update(f"{tuple(part.shape)} {part.dtype}".encode())
            found.update(part.contiguous().numpy().tobytes())
        return found.hexdigest()
