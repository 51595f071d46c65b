"""GCN with residual connections and normalisation, as a careful reader would tune it."""

from __future__ import annotations

from typing import Any, ClassVar

from graphfm import backbones
from graphfm.backbones.stack import Backbone
from graphfm.graphllm.classical.network import Network

__all__ = ["TunedGCN"]


class TunedGCN(Network):
    """GCN with residual connections, layer normalisation and dropout (Luo et al., 2406.08993: classic networks, tuned).

    The paper tunes normalisation and residuals as well; here both are always on. Published settings: the values that
    occur in the authors' commands for GCN on homophilous graphs (``medium_graph/run_gnn.sh``), all combined; their
    1000 and more epochs are not taken over. Frozen and trained parts and arguments:
    :class:`~graphfm.graphllm.classical.network.Network`.
    """

    backbone: ClassVar[type[Backbone]] = backbones.GCN
    options: ClassVar[dict[str, Any]] = {"residual": True, "norm": "LayerNorm"}
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"layers": (2, 3), "hidden": (128,), "lr": (0.005,)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden": (512, 256, 64),
        "layers": (2, 3, 6),
        "dropout": (0.3, 0.5, 0.7),
        "lr": (0.001, 0.005),
        "weight_decay": (0.0, 5e-5, 5e-4, 0.01),
    }
