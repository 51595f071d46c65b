"""MLP on frozen text vectors: the graph is not looked at."""

from __future__ import annotations

from typing import ClassVar

from graphfm import backbones
from graphfm.backbones.stack import Backbone
from graphfm.graphllm.classical.network import Network

__all__ = ["MLP"]


class MLP(Network):
    """Node by node; what more a graph network reaches comes from the edges.

    Frozen and trained parts, settings and arguments: :class:`~graphfm.graphllm.classical.network.Network`.
    """

    backbone: ClassVar[type[Backbone]] = backbones.MLP
    uses = frozenset({"text"})
