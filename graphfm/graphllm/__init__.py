"""Language models and graphs under one protocol: what embeds text, what reads prompts, what chats, and the methods.

Names are imported when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphfm.graphllm.alignment.glem import GLEM
    from graphfm.graphllm.alignment.patton import PATTON
    from graphfm.graphllm.backends.base import Answer, CausalLM, ChatClient, Counts, TextEncoder, Usage
    from graphfm.graphllm.backends.cache import CachedEncoder, cached_hidden
    from graphfm.graphllm.backends.causal import LocalLM
    from graphfm.graphllm.backends.chat import BudgetError, ChatError, OpenAIChat
    from graphfm.graphllm.backends.sentence import SentenceEncoder
    from graphfm.graphllm.backends.tfidf import TfidfEncoder
    from graphfm.graphllm.backends.tiny import tiny_bert, tiny_llama
    from graphfm.graphllm.catalogue import find_method, methods
    from graphfm.graphllm.classical.lm_tuning import LMTuning
    from graphfm.graphllm.enhancers.giant import GIANT
    from graphfm.graphllm.enhancers.tape import TAPE, LocalTAPE
    from graphfm.graphllm.enhancers.zerog import ZeroG
    from graphfm.graphllm.method import Method, Supervised, ZeroShot
    from graphfm.graphllm.overlap import check_disjoint, near_duplicates
    from graphfm.graphllm.page import write_glbench_report
    from graphfm.graphllm.protocol import glbench_split
    from graphfm.graphllm.runner import failures, run
    from graphfm.graphllm.setup import Setup
    from graphfm.graphllm.stock import Stock
    from graphfm.graphllm.zeroshot.language_model import (
        ChatZeroShot,
        LMZeroShot,
        NeighbourChatZeroShot,
        NeighbourLMZeroShot,
    )

_WHERE = {
    "Answer": "backends.base",
    "BudgetError": "backends.chat",
    "CachedEncoder": "backends.cache",
    "CausalLM": "backends.base",
    "ChatClient": "backends.base",
    "ChatError": "backends.chat",
    "ChatZeroShot": "zeroshot.language_model",
    "Counts": "backends.base",
    "GIANT": "enhancers.giant",
    "GLEM": "alignment.glem",
    "LMTuning": "classical.lm_tuning",
    "LMZeroShot": "zeroshot.language_model",
    "LocalLM": "backends.causal",
    "LocalTAPE": "enhancers.tape",
    "Method": "method",
    "NeighbourChatZeroShot": "zeroshot.language_model",
    "NeighbourLMZeroShot": "zeroshot.language_model",
    "OpenAIChat": "backends.chat",
    "PATTON": "alignment.patton",
    "SentenceEncoder": "backends.sentence",
    "Setup": "setup",
    "Stock": "stock",
    "Supervised": "method",
    "TAPE": "enhancers.tape",
    "TextEncoder": "backends.base",
    "TfidfEncoder": "backends.tfidf",
    "Usage": "backends.base",
    "ZeroG": "enhancers.zerog",
    "ZeroShot": "method",
    "cached_hidden": "backends.cache",
    "check_disjoint": "overlap",
    "failures": "runner",
    "find_method": "catalogue",
    "glbench_split": "protocol",
    "methods": "catalogue",
    "near_duplicates": "overlap",
    "run": "runner",
    "tiny_bert": "backends.tiny",
    "tiny_llama": "backends.tiny",
    "write_glbench_report": "page",
}

__all__ = [
    "Answer",
    "BudgetError",
    "CachedEncoder",
    "CausalLM",
    "ChatClient",
    "ChatError",
    "ChatZeroShot",
    "Counts",
    "GIANT",
    "GLEM",
    "LMTuning",
    "LMZeroShot",
    "LocalLM",
    "LocalTAPE",
    "Method",
    "NeighbourChatZeroShot",
    "NeighbourLMZeroShot",
    "OpenAIChat",
    "PATTON",
    "SentenceEncoder",
    "Setup",
    "Stock",
    "Supervised",
    "TAPE",
    "TextEncoder",
    "TfidfEncoder",
    "Usage",
    "ZeroG",
    "ZeroShot",
    "cached_hidden",
    "check_disjoint",
    "failures",
    "find_method",
    "glbench_split",
    "methods",
    "near_duplicates",
    "run",
    "tiny_bert",
    "tiny_llama",
    "write_glbench_report",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
