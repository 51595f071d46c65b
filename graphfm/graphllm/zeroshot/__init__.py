"""Methods that see no label of the graph they answer on."""

from graphfm.graphllm.zeroshot.language_model import (
    ChatZeroShot,
    LMZeroShot,
    NeighbourChatZeroShot,
    NeighbourLMZeroShot,
)
from graphfm.graphllm.zeroshot.propagation import TextCosine, TextPropagation

__all__ = [
    "ChatZeroShot",
    "LMZeroShot",
    "NeighbourChatZeroShot",
    "NeighbourLMZeroShot",
    "TextCosine",
    "TextPropagation",
]
