"""Methods that see no label of the graph they answer on."""

from graphfm.graphllm.zeroshot.propagation import TextCosine, TextPropagation

__all__ = ["TextCosine", "TextPropagation"]
