"""Graph neural networks, one a file, that take an ``edge_index`` or an :class:`~graphfm.nn.Adjacency`.

All share one contract: ``forward(x [N, F], edge_index | Adjacency, edge_weight=None) -> [N, D]``, ``in_channels``,
``out_channels`` and ``num_hops`` (how far a node sees), and ``reset_parameters()``.
"""

from graphfm.backbones.fagcn import FAGCN
from graphfm.backbones.gat import GAT
from graphfm.backbones.gcn import GCN

__all__ = ["FAGCN", "GAT", "GCN"]
