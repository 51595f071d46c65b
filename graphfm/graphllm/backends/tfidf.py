"""An encoder without a model: TF-IDF, then a truncated SVD."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from graphfm.data.tag import text_features
from graphfm.graphllm.backends.base import Counts, check_texts

__all__ = ["TfidfEncoder"]


@dataclasses.dataclass(frozen=True)
class TfidfEncoder:
    """Latent semantic analysis (Deerwester et al., 1990) of exactly the texts it is given.

    It is transductive: words are weighed and directions chosen on the texts of one call, test nodes among them (never
    their labels), so that rows of two calls cannot be compared. To compare nodes with class descriptions, or two
    graphs, encode all texts in one call. For the same reason its rows are never cached one by one. The same texts give
    the same numbers.

    Args:
        size: D; columns beyond the rank of the texts are zero.
        seed: of the randomised SVD.
    """

    size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}.")

    @property
    def name(self) -> str:
        """Class and settings."""
        return f"tfidf-svd-{self.size}-{self.seed}"

    @property
    def dim(self) -> int:
        """``size``."""
        return self.size

    @property
    def transductive(self) -> bool:
        """True: vectors of two calls cannot be compared."""
        return True

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``[N, D]``; a text without words gives zeros.

        Raises:
            TypeError: something that is no string.
        """
        found = check_texts(texts)
        if not any(text.strip() for text in found):
            return torch.zeros(len(found), self.size)
        return torch.from_numpy(text_features(found, self.size, self.seed))

    def count(self, texts: Sequence[str]) -> Counts:
        """Nothing is ever cut."""
        found = check_texts(texts)
        return Counts(len(found), empty=sum(not text.strip() for text in found))
