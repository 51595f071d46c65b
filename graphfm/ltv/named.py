"""Parts of a model by name, as a command line gives them: ``"EPO(preference=(0.4, 0.3, 0.3))"``."""

from __future__ import annotations

from typing import Any

from graphfm.names import find, literals

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
        placed, named = literals(f"({inside}")
        if placed:
            raise ValueError("arguments must be given by name")
        return found(**named)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text!r}: write it like Name or Name(key=value), with plain values ({error}).") from error
