"""GraphSAGE on frozen text vectors."""

from __future__ import annotations

from typing import ClassVar

from graphfm import backbones
from graphfm.backbones.stack import Backbone
from graphfm.graphllm.classical.network import Network

__all__ = ["SAGE"]


class SAGE(Network):
    """A node beside the mean of its neighbours (Hamilton et al., 1706.02216), mean aggregator.

    Frozen and trained parts, settings and arguments: :class:`~graphfm.graphllm.classical.network.Network`.
    """

    backbone: ClassVar[type[Backbone]] = backbones.GraphSAGE
