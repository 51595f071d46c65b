"""Zero-shot without training: text vectors averaged over the graph, compared with the classes' texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.graphllm.method import ZeroShot
from graphfm.graphllm.texts import adjacency, class_texts, encode_together, node_texts
from graphfm.nn import Adjacency

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import TextEncoder

__all__ = ["TextCosine", "TextPropagation", "spread"]


def spread(adj: Adjacency, x: Tensor, rounds: int) -> Tensor:
    """``S^rounds x`` with ``S = D^-1/2 (A + I) D^-1/2``, ``[N, D]``."""
    for _ in range(rounds):
        x = adj.gcn(x.dtype).matmul(x)
    return x


class TextPropagation(ZeroShot):
    """Cosine of ``S^k x_v`` to the vector of ``"name. description"`` of each class; the floor of every zero-shot claim.

    Frozen: the encoder. Nothing is trained and nothing is learned from sources, so k cannot be chosen: it is fixed
    beforehand. A node without a word, around which there is none either, has no answer: a row of NaN.

    Args:
        encoder: embeds nodes and classes, in one call.
        rounds: k.
        seed: not used.
        device: where vectors are averaged.
    """

    needs = ("encoder",)
    family = "zero-shot"
    descriptions: ClassVar[bool] = True
    rounds: ClassVar[int] = 2
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {}

    def __init__(
        self, encoder: TextEncoder, *, rounds: int | None = None, seed: int = 0, device: str | None = None
    ) -> None:
        super().__init__(seed=seed, device=device)
        if rounds is not None and rounds < 0:
            raise ValueError(f"rounds must not be negative, got {rounds}.")
        self.encoder, self.k = encoder, self.rounds if rounds is None else rounds

    def fit(self, sources: Iterable[Data] = ()) -> TextPropagation:
        """Nothing is learned."""
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Cosines ``[N, C]``."""
        x, classes = encode_together(self.encoder, node_texts(data), class_texts(data))
        x = spread(adjacency(data, self.device), F.normalize(x, dim=1).to(self.device), self.k).cpu()
        found = F.normalize(x, dim=1) @ F.normalize(classes, dim=1).t()
        return found.masked_fill((x == 0).all(dim=1, keepdim=True), torch.nan)


class TextCosine(TextPropagation):
    """The plain embedding baseline: the cosine of a node's own text to each class (k = 0); edges are not looked at."""

    uses = frozenset({"text"})
    rounds: ClassVar[int] = 0
