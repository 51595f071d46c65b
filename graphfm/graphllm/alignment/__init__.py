"""Methods in which a language model and a graph network teach one another, or are one."""

from graphfm.graphllm.alignment.glem import GLEM
from graphfm.graphllm.alignment.patton import PATTON

__all__ = ["GLEM", "PATTON"]
