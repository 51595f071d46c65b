"""From a name on the command line to a class or an object of it: the package namespace is the registry."""

from __future__ import annotations

import ast
import difflib
import importlib
from typing import Any

__all__ = ["find", "literals", "make"]


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


def literals(arguments: str) -> tuple[list[Any], dict[str, Any]]:
    """What ``"(8, alpha=16.0)"`` holds, by place and by name: plain values, read with :mod:`ast` and never evaluated.

    Raises:
        ValueError: anything else, with the reason.
    """
    try:
        call = ast.parse(f"f{arguments}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("more than one pair of parentheses")
        if any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("** is no literal")
        given = [ast.literal_eval(value) for value in call.args]
        return given, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(str(error).split(" at 0x")[0]) from error


def make(package: str, text: str, *given: Any, **more: Any) -> Any:
    """``make("backbones", "GCN(num_layers=3)", 100, 128)`` is ``GCN(100, 128, num_layers=3)``.

    Args:
        package: where names are looked up, see :func:`find`.
        text: a name, perhaps with arguments by name that are literals.
        given: arguments that stand before those.
        more: arguments by name, which those of the text overrule.

    Raises:
        ValueError: an unknown name, or arguments that cannot be read or do not fit.
        ImportError: a module that cannot be imported.
    """
    name, bracket, inside = text.strip().partition("(")
    kind = find(package, name.strip())
    try:
        placed, named = literals(f"({inside}") if bracket else ([], {})
        if placed:
            raise ValueError("give arguments by name")
        return kind(*given, **{**more, **named})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text}: {error}; write it like {name.strip()} or {name.strip()}(key=value).") from error
