"""All methods by name: those that the method packages export. The packages' namespaces are the registry."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect

from graphfm.graphllm.method import Method
from graphfm.names import find

__all__ = ["find_method", "methods"]

_PACKAGES = ("classical", "enhancers", "alignment", "predictors", "zeroshot")


def methods() -> dict[str, type[Method]]:
    """Every exported method by its name, from the plainest to the most demanding package."""
    found: dict[str, type[Method]] = {}
    for package in _PACKAGES:
        where = f"graphfm.graphllm.{package}"
        if importlib.util.find_spec(where) is None:
            continue
        module = importlib.import_module(where)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) and issubclass(value, Method) and not inspect.isabstract(value):
                found[name] = value
    return found


def find_method(name: str) -> type[Method]:
    """A method by its name, in any case, or one of the user's own as ``module:Name``.

    Raises:
        ValueError: no such name, with the nearest; or something that is no method.
        ImportError: a module that cannot be imported.
    """
    if ":" in name:
        value = find("graphllm", name)
        if not (inspect.isclass(value) and issubclass(value, Method)):
            raise ValueError(f"{name} is no graphfm.graphllm.method.Method; derive it from Supervised or ZeroShot.")
        return value
    known = methods()
    lower = {key.lower(): key for key in known}
    if name.lower() in lower:
        return known[lower[name.lower()]]
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    hint = f" Did you mean {lower[close[0]]}?" if close else ""
    raise ValueError(f"there is no method {name!r}.{hint} There are: {', '.join(known)}.")
