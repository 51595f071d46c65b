"""The frozen language model with a linear head: the plainest thing that reads the text."""

from __future__ import annotations

from typing import Any, ClassVar

from graphfm import backbones
from graphfm.backbones.stack import Backbone
from graphfm.graphllm.classical.network import Network

__all__ = ["LMHead"]


class LMHead(Network):
    """One linear map on frozen text vectors; the graph is not looked at.

    Frozen: the encoder (GLBench fine-tunes it; that is a method of its own). Trained: the head.
    """

    family = "lm"
    uses = frozenset({"text"})
    backbone: ClassVar[type[Backbone]] = backbones.MLP
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"layers": (1,), "weight_decay": (5e-4, 5e-5)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {"layers": (1,), "weight_decay": (0.0, 5e-5, 5e-4, 5e-3)}
