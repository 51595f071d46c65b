"""GCN on frozen text vectors."""

from __future__ import annotations

from typing import ClassVar

from graphfm import backbones
from graphfm.backbones.stack import Backbone
from graphfm.graphllm.classical.network import Network

__all__ = ["GCN"]


class GCN(Network):
    """Normalised averages over neighbours (Kipf & Welling, 1609.02907).

    Frozen and trained parts, settings and arguments: :class:`~graphfm.graphllm.classical.network.Network`.
    """

    backbone: ClassVar[type[Backbone]] = backbones.GCN
