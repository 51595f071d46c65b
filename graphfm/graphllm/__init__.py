"""Language models and graphs under one protocol: what embeds text, what reads prompts, what chats, and the methods.

Names are imported when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import Answer, CausalLM, ChatClient, Counts, TextEncoder, Usage
    from graphfm.graphllm.backends.tfidf import TfidfEncoder

_WHERE = {
    "Answer": "backends.base",
    "CausalLM": "backends.base",
    "ChatClient": "backends.base",
    "Counts": "backends.base",
    "TextEncoder": "backends.base",
    "TfidfEncoder": "backends.tfidf",
    "Usage": "backends.base",
}

__all__ = [
    "Answer",
    "CausalLM",
    "ChatClient",
    "Counts",
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
