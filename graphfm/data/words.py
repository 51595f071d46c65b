"""Texts as files and tables give them, some of them missing."""

from __future__ import annotations

from typing import Any

__all__ = ["as_text"]


def as_text(value: Any) -> str:
    """A text; an empty one for ``None`` and for NaN, which is what tables have where nothing is."""
    return "" if value is None or value != value else str(value)
