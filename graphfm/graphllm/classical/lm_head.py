"""The frozen language model with a linear head: the plainest thing that reads the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from graphfm import backbones
from graphfm.backbones.stack import Backbone
from graphfm.graphllm.classical.network import Network

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import TextEncoder

__all__ = ["LMHead"]


class LMHead(Network):
    """One linear map on frozen text vectors; the graph is not looked at.

    Frozen: the encoder (GLBench fine-tunes it: :class:`~graphfm.graphllm.classical.lm_tuning.LMTuning`). Trained: the
    head. No public source names settings for a frozen encoder, so there are no published ones.

    Args:
        encoder: gives the features.
        network: arguments of :class:`~graphfm.graphllm.classical.network.Network`; there is one layer.
    """

    family = "lm"
    uses = frozenset({"text"})
    backbone: ClassVar[type[Backbone]] = backbones.MLP
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"weight_decay": (5e-4, 5e-5)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {}

    def __init__(self, encoder: TextEncoder, **network: Any) -> None:
        super().__init__(encoder, layers=1, **network)
