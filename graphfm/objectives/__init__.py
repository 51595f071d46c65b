"""What pretraining minimises, one objective a file: ``forward(backbone, batch) -> Tensor``."""

from graphfm.objectives.graphcl import GraphCL
from graphfm.objectives.simgrace import SimGRACE

__all__ = ["GraphCL", "SimGRACE"]
