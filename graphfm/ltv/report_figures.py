"""How figures are written in the report."""

from __future__ import annotations

import math

__all__ = ["number", "percent"]


def number(value: float, digits: int = 3) -> str:
    """With so many digits; a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    """A share as a percentage, with a digit more below ten percent."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}&nbsp;%" if value < 0.1 else f"{100 * value:.0f}&nbsp;%"
