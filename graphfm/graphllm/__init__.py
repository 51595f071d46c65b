"""Language models and graphs under one protocol: what embeds text, what reads prompts, what chats, and the methods.

Names are imported when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import Answer, CausalLM, ChatClient, Counts, TextEncoder, Usage
    from graphfm.graphllm.backends.cache import CachedEncoder
    from graphfm.graphllm.backends.sentence import SentenceEncoder
    from graphfm.graphllm.backends.tfidf import TfidfEncoder

_WHERE = {
    "Answer": "backends.base",
    "CachedEncoder": "backends.cache",
    "CausalLM": "backends.base",
    "ChatClient": "backends.base",
    "Counts": "backends.base",
    "SentenceEncoder": "backends.sentence",
    "TextEncoder": "backends.base",
    "TfidfEncoder": "backends.tfidf",
    "Usage": "backends.base",
}

__all__ = [
    "Answer",
    "CachedEncoder",
    "CausalLM",
    "ChatClient",
    "Counts",
    "SentenceEncoder",
    "TextEncoder",
    "TfidfEncoder",
    "Usage",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
