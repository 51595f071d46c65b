"""Methods in which a causal language model gives the answer, read as the likelihood of each class name."""

from graphfm.graphllm.predictors.llaga import LLaGA, LLaGANeighbours

__all__ = ["LLaGA", "LLaGANeighbours"]
