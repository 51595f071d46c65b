"""Zero-shot methods fitted on sources: targets with the same sources share one fit, and each is told its whole cost."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from graphfm.graphllm.method import ZeroShot
from graphfm.graphllm.stock import Remembered, Stock

__all__ = ["Fit", "Fits"]


@dataclasses.dataclass
class Fit:
    """A fitted method and what it took.

    Attributes:
        method: fitted.
        seconds: of the fit, without the encoding of texts that was paid in it.
        encode_seconds: what the sources' texts took when they were first encoded.
        memory: peak bytes of the cell in which it was fitted.
        used: whether another target has had it before.
    """

    method: ZeroShot
    seconds: float
    encode_seconds: float
    memory: int = 0
    used: bool = False


class Fits:
    """Fits of the seed that is measured. Methods that learn nothing from sources are made anew for each target."""

    def __init__(self) -> None:
        self._seed: int | None = None
        self._kept: dict[tuple[type[ZeroShot], str], Fit] = {}

    def of(self, kind: type[ZeroShot], seed: int, sources: str, make: Callable[[], ZeroShot], stock: Stock) -> Fit:
        """The fit of a method on the sources of this fingerprint, made by ``make`` where there is none yet."""
        if seed != self._seed:
            self._seed, self._kept = seed, {}
        key = kind, sources
        if key in self._kept:
            self._kept[key].used = True
            return self._kept[key]
        encoder = stock.encoder if isinstance(stock.encoder, Remembered) else None
        started, before = time.perf_counter(), encoder.paid if encoder else 0.0
        method = make()
        seconds = time.perf_counter() - started - (encoder.paid - before if encoder else 0.0)
        found = Fit(method, seconds, encoder.seconds if encoder else 0.0)
        if method.trained:
            self._kept[key] = found
        return found
