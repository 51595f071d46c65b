"""Texts as files and tables give them, some of them missing."""

from __future__ import annotations

from typing import Any

__all__ = ["as_text"]


def as_text(value: Any) -> str:
    """A text; an empty one for ``None``, NaN and pandas' NA, which is what tables have where nothing is."""
    if isinstance(value, str):
        return value
    return "" if value is None or type(value).__name__ == "NAType" or value != value else str(value)
