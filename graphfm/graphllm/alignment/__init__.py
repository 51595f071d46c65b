"""Methods that train a language model and a graph network to agree."""

from graphfm.graphllm.alignment.glem import GLEM

__all__ = ["GLEM"]
