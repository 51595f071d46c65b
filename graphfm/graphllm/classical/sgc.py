"""SGC on frozen text vectors."""

from __future__ import annotations

from typing import Any, ClassVar

from graphfm import backbones
from graphfm.backbones.stack import Backbone
from graphfm.graphllm.classical.network import Network

__all__ = ["SGC"]


class SGC(Network):
    """Powers of the normalised adjacency and one linear map (Wu et al., 1902.07153).

    Nothing is hidden, so the grid is over the number of powers and the weight decay. Frozen and trained parts and
    arguments: :class:`~graphfm.graphllm.classical.network.Network`.
    """

    backbone: ClassVar[type[Backbone]] = backbones.SGC
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"layers": (2, 3)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {"layers": (2, 3, 4), "weight_decay": (5e-4, 5e-5, 5e-6)}
