"""ZeroG's frozen form: a low-rank map on frozen vectors instead of LoRA within the encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.graphllm.enhancers.ofa import refuse_transductive
from graphfm.graphllm.enhancers.zerog import SpreadTexts, Vectors, describe
from graphfm.graphllm.texts import class_texts, encode_together, node_texts

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import TextEncoder

__all__ = ["FrozenZeroG", "LowRank"]


class LowRank(nn.Module):
    """``x + x A B`` with ``A`` ``[D, r]`` random and ``B`` ``[r, D]`` zero at first, so that it starts as nothing.

    Args:
        channels: D.
        rank: r.
    """

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(channels, rank) / channels**0.5)
        self.up = nn.Parameter(torch.zeros(rank, channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D] -> [..., D]``."""
        return x + x @ self.down @ self.up


class FrozenZeroG(SpreadTexts):
    """:class:`~graphfm.graphllm.enhancers.zerog.ZeroG` for an encoder that cannot be trained, or not in the time.

    It is not the paper's method. Frozen: the encoder. Trained: a low-rank map ``x + x A B`` on its vectors, by the
    labels of the centres. It needs no gradients through the encoder, and starts at the same place as LoRA does: at the
    propagation of frozen vectors.

    Args:
        encoder: embeds nodes, classes and descriptions.
        rank: of the map.
        rounds: R.
        hops: how far neighbourhoods reach.
        at_most: nodes a neighbourhood.
        lr: learning rate of AdamW.
        steps: batches, of one source each, in turn.
        batch_size: neighbourhoods a batch.
        seed: of weights, neighbourhoods and batches.
        device: where it is trained.
    """

    needs = ("encoder",)
    all_nodes = False

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        rank: int = 4,
        rounds: int = 10,
        hops: int = 2,
        at_most: int = 24,
        lr: float = 1e-3,
        steps: int = 100,
        batch_size: int = 64,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(
            rounds=rounds,
            hops=hops,
            at_most=at_most,
            lr=lr,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            device=device,
        )
        self.encoder, self.rank = encoder, rank

    def fit(self, sources: Iterable[Data]) -> FrozenZeroG:
        """Tune on labelled nodes of the sources; see :meth:`SpreadTexts.fit`."""
        graphs = list(sources)
        if graphs:
            refuse_transductive(self.encoder, type(self).__name__)
        super().fit(graphs)
        return self

    def start(self) -> dict[str, nn.Module]:
        """The map."""
        self.map = LowRank(self.encoder.dim, self.rank).to(self.device)
        return {"map": self.map}

    def reader(self, data: Data) -> Callable[[Tensor], Vectors]:
        """Encodes once, maps at each call."""
        x, about, classes = self._encoded(data)

        def read(nodes: Tensor) -> Vectors:
            return self.map(x[nodes.to(x.device)]), self.map(about), self.map(classes)

        return read

    def whole(self, data: Data) -> Vectors:
        """All of them, mapped."""
        x, about, classes = self._encoded(data)
        return self.map(x), self.map(about), self.map(classes)

    def _encoded(self, data: Data) -> Vectors:
        groups = encode_together(self.encoder, node_texts(data), [describe(data)], class_texts(data))
        x, about, classes = (group.to(self.device) for group in groups)
        return x, about, classes
