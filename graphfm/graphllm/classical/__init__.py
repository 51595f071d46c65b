"""Graph networks and rules on frozen text vectors, and language models that do not see the graph."""

from graphfm.graphllm.classical.correct_and_smooth import CorrectAndSmooth
from graphfm.graphllm.classical.gat import GAT
from graphfm.graphllm.classical.gcn import GCN
from graphfm.graphllm.classical.gin import GIN
from graphfm.graphllm.classical.label_propagation import LabelPropagation
from graphfm.graphllm.classical.linear_gnns import LinearGNNs
from graphfm.graphllm.classical.lm_head import LMHead
from graphfm.graphllm.classical.lm_tuning import LMTuning
from graphfm.graphllm.classical.mlp import MLP
from graphfm.graphllm.classical.sage import SAGE
from graphfm.graphllm.classical.sgc import SGC
from graphfm.graphllm.classical.tuned_gcn import TunedGCN

__all__ = [
    "GAT",
    "GCN",
    "GIN",
    "MLP",
    "SAGE",
    "SGC",
    "CorrectAndSmooth",
    "LMHead",
    "LMTuning",
    "LabelPropagation",
    "LinearGNNs",
    "TunedGCN",
]
