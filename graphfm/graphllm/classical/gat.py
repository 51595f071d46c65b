"""GAT on frozen text vectors."""

from __future__ import annotations

from typing import ClassVar

from graphfm import backbones
from graphfm.backbones.stack import Backbone
from graphfm.graphllm.classical.network import Network

__all__ = ["GAT"]


class GAT(Network):
    """Attention over neighbours, four heads (Velickovic et al., 1710.10903).

    Frozen and trained parts, settings and arguments: :class:`~graphfm.graphllm.classical.network.Network`.
    """

    backbone: ClassVar[type[Backbone]] = backbones.GAT
