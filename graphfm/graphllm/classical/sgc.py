"""SGC on frozen text vectors."""

from __future__ import annotations

from typing import Any, ClassVar

from graphfm import backbones
from graphfm.backbones.stack import Backbone
from graphfm.graphllm.classical.network import Network

__all__ = ["SGC"]


class SGC(Network):
    """Powers of the normalised adjacency and one linear map (Wu et al., 1902.07153).

    Nothing is hidden, so the grid is over the number of powers. Published settings: those of the authors' code
    (``args.py`` and ``tuning.py``): two powers, learning rate .2, 100 epochs, no dropout, and a weight decay searched
    between 1e-10 and 1e-4, of which four values and their default are taken. Frozen and trained parts and arguments:
    :class:`~graphfm.graphllm.classical.network.Network`.
    """

    backbone: ClassVar[type[Backbone]] = backbones.SGC
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"layers": (2, 3)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {
        "layers": (2,),
        "lr": (0.2,),
        "epochs": (100,),
        "dropout": (0.0,),
        "weight_decay": (5e-6, 1e-10, 1e-8, 1e-6, 1e-4),
    }
