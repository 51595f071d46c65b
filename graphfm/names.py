"""From a name on the command line to a class: the package namespace is the registry."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

__all__ = ["find"]


def find(package: str, name: str) -> Any:
    """``find("backbones", "FAGCN")`` is ``graphfm.backbones.FAGCN``; ``"my.module:Mine"`` is imported from there.

    Raises:
        ValueError: no such name, with the nearest and all that there are.
        ImportError: a module that cannot be imported.
    """
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise ImportError(
                f"{name}: {error}; write it as module:Name, with the module on the import path."
            ) from error
        if not hasattr(module, attribute):
            raise ValueError(f"{name}: module {module_name} has no {attribute}.")
        return getattr(module, attribute)
    module = importlib.import_module(f"graphfm.{package}")
    known = {key.lower(): key for key in module.__all__}
    if name.lower() in known:
        return getattr(module, known[name.lower()])
    close = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f" Did you mean {known[close[0]]}?" if close else ""
    raise ValueError(f"{package} has no {name!r}.{hint} There are: {', '.join(module.__all__)}.")
