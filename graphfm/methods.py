"""What a method's name says: ``"probe"``, ``"adapter:LoRA(rank=8)"``, ``"prompt:GPF(k=5)+adapter:C3A(block=16)"``.

Arguments are literals. They are read with :mod:`ast` and never evaluated, so a name from a file or a web form is safe.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from graphfm.adapters.handle import Handle
from graphfm.adapters.method import Method
from graphfm.names import find, literals

if TYPE_CHECKING:
    from graphfm.prompts import Prompt

__all__ = ["METHODS", "Adapter", "Recipe", "combined", "describe", "parse"]

METHODS = ("finetune", "probe", "prototype")

_PACKAGES = {"adapter": "adapters", "prompt": "prompts"}
_BETWEEN = re.compile(r"\+(?![^(]*\))")  # a plus that stands in no parentheses, as that of 1e+3 does
_PART = re.compile(r"\s*(\w+)\s*:\s*([\w.]+(?::\w+)?)\s*(\(.*\))?\s*", re.DOTALL)


# A method, put beside every weight that it fits; or a function that attaches what it likes and returns its handle.
Adapter = Method | Callable[[nn.Module], Handle]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is trained.

    Attributes:
        method: one of :data:`METHODS` or of a task's own; with an adapter or a prompt ``"finetune"``, but of these and
            the head alone.
        adapter: to be attached to the frozen backbone, or ``None``.
        prompt: to be put before it, or ``None``.
    """

    method: str
    adapter: Adapter | None = None
    prompt: Prompt | None = None

    @property
    def name(self) -> str:
        """A name for tables and cards, which :func:`parse` reads where adapter and prompt are objects with settings."""
        parts = [f"{kind}:{part!r}" for kind in _PACKAGES if (part := getattr(self, kind)) is not None]
        return "+".join(parts) or self.method


def parse(text: str, known: Sequence[str] = METHODS) -> Recipe:
    """Read a method's name.

    Args:
        text: one of ``known``, or ``adapter:Name(...)`` and ``prompt:Name(...)``, joined by ``+``. A name is one
            of :mod:`graphfm.adapters` or of ``graphfm.prompts``, or ``module:Name``; arguments are literals.
        known: the plain methods of a task. Where ``"finetune"`` is none of them nothing is trained beside a network.

    Raises:
        ValueError: an unknown method or name (with those there are), arguments that cannot be read or do not fit, an
            adapter or a prompt named twice.
    """
    if not isinstance(text, str):
        raise ValueError(f"method must be text such as 'adapter:LoRA(rank=8)', got {text!r}; or give adapter=.")
    if text in known:
        return Recipe(text)
    if "finetune" not in known:
        raise ValueError(f"method must be one of {tuple(known)}, got {text!r}.")
    made: dict[str, Any] = {}
    for part in _BETWEEN.split(text):
        kind, name, arguments = _taken_apart(part, text, known)
        if kind in made:
            raise ValueError(f"method {text!r} names two {_PACKAGES[kind]}; one of each can be trained.")
        made[kind] = _made(kind, name, arguments, part)
    return Recipe("finetune", **made)


def combined(method: str, adapter: Adapter | None, prompt: Prompt | None, known: Sequence[str] = METHODS) -> Recipe:
    """What is trained, from a name (see :func:`parse`) and the objects beside it.

    Raises:
        ValueError: a bad name; objects beside a name that leaves no room for them.
        TypeError: no adapter, or no prompt; a class in the place of an object.
    """
    read = parse(method, known)
    if adapter is None and prompt is None:
        return read
    if read != Recipe("finetune"):
        raise ValueError(f"adapter= and prompt= go with method='finetune', got {method!r} beside them.")
    if isinstance(adapter, type) or not (adapter is None or callable(adapter) or isinstance(adapter, Method)):
        raise TypeError(f"adapter must be like LoRA(rank=8), or a function that attaches one, got {adapter!r}.")
    if prompt is not None and not isinstance(prompt, nn.Module):
        raise TypeError(f"prompt must be like GPF(), got {prompt!r}.")
    return Recipe("finetune", adapter, prompt)


def _taken_apart(part: str, text: str, known: Sequence[str]) -> tuple[str, str, str]:
    found = _PART.fullmatch(part)
    if found is None or found[1] not in _PACKAGES:
        raise ValueError(
            f"method must be one of {tuple(known)}, or adapter:Name(...), prompt:Name(...) or both joined by '+', got "
            f"{part.strip()!r}{'' if part == text else f' in {text!r}'}."
        )
    return found[1], found[2], found[3] or "()"


def _made(kind: str, name: str, arguments: str, part: str) -> Any:
    try:
        given, named = literals(arguments)
    except ValueError as error:
        raise ValueError(
            f"method {part.strip()!r}: its arguments must be literals such as (rank=8, alpha=16.0); {error}."
        ) from error
    cls = find(_PACKAGES[kind], name)
    wanted: type = Method if kind == "adapter" else nn.Module
    if not isinstance(cls, type) or not issubclass(cls, wanted):
        raise ValueError(f"method {part.strip()!r}: {name} is no {kind}.")
    try:
        return cls(*given, **named)
    except TypeError as error:
        raise ValueError(f"method {part.strip()!r}: {error}.") from error


def describe(recipe: Recipe) -> dict[str, Any]:
    """Adapter and prompt with every setting, as JSON, to tell cells of a results file apart; empty without any."""
    found: dict[str, Any] = {}
    if isinstance(recipe.adapter, Method):
        found["adapter"] = {"class": type(recipe.adapter).__name__, **recipe.adapter.settings()}
    if recipe.prompt is not None:
        found["prompt"] = repr(recipe.prompt)
    return found
