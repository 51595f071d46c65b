"""Rules that need no pretraining: what every pretrained model has to beat.

Each is an estimator: ``rule.fit(data, split).predict() -> [N, C]``. All are transductive (features and edges of all
nodes of the graph are used, labels of ``split.train`` alone), and none chooses anything on test labels.
"""

from graphfm.baselines.base import Floor, GraphFeatures
from graphfm.baselines.centroid import Centroid, MultiHopCentroid, SmoothedCentroid, SoftCentroid
from graphfm.baselines.combined import RidgeAndCentroid
from graphfm.baselines.linear import LinearGNNs
from graphfm.baselines.propagation import LabelPropagation
from graphfm.baselines.ridge import KernelRidge

__all__ = [
    "Centroid",
    "Floor",
    "GraphFeatures",
    "KernelRidge",
    "LabelPropagation",
    "LinearGNNs",
    "MultiHopCentroid",
    "RidgeAndCentroid",
    "SmoothedCentroid",
    "SoftCentroid",
    "floor",
]


def floor() -> list[Floor]:
    """The rules that stand beside every result, from the plainest to the strongest."""
    return [
        Centroid(hops=0),
        Centroid(hops=2),
        Centroid(hops=4),
        MultiHopCentroid(),
        LabelPropagation(),
        SmoothedCentroid(hops=4),
        SoftCentroid(),
        LinearGNNs(),
        KernelRidge(),
        RidgeAndCentroid(),
    ]
