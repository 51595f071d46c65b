"""GIN on frozen text vectors."""

from __future__ import annotations

from typing import ClassVar

from graphfm import backbones
from graphfm.backbones.stack import Backbone
from graphfm.graphllm.classical.network import Network

__all__ = ["GIN"]


class GIN(Network):
    """Sums over neighbours and an MLP (Xu et al., 1810.00826).

    Frozen and trained parts, settings and arguments: :class:`~graphfm.graphllm.classical.network.Network`.
    """

    backbone: ClassVar[type[Backbone]] = backbones.GIN
