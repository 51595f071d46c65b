"""Parts of a model by name, as a command line gives them: ``"EPO(preference=(0.4, 0.3, 0.3))"``."""

from __future__ import annotations

import ast
from typing import Any

from graphfm.names import find

__all__ = ["part_of"]


def part_of(package: str, text: str) -> Any:
    """What a name says: ``"MonotoneHead"`` is the class, ``"MGDA(lower=0.1)"`` an object of it.

    Args:
        package: where names are looked up, see :func:`graphfm.names.find`; ``module:Name`` is from elsewhere.
        text: the name, perhaps with arguments by name that are literals. They are never evaluated.

    Raises:
        ValueError: an unknown name, or arguments that cannot be read or do not fit.
    """
    name, bracket, inside = text.strip().partition("(")
    found = find(package, name.strip())
    if not bracket:
        return found
    try:
        call = ast.parse(f"f({inside}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(one.arg is None for one in call.keywords):
            raise ValueError("arguments must be given by name")
        return found(**{str(one.arg): ast.literal_eval(one.value) for one in call.keywords})
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"{text!r}: write it like Name or Name(key=value), with plain values ({error}).") from error
