"""The language models that a run may use, and what is remembered of them while it goes on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from graphfm.graphllm.method import Method

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM, ChatClient, Counts, TextEncoder

__all__ = ["Remembered", "Stock"]


class Remembered:
    """An encoder that encodes the same list of texts once a run, and knows how long that took.

    Args:
        encoder: what encodes.

    Attributes:
        seconds: what the texts asked for in this cell took when they were first encoded, by an earlier process if the
            encoder knows (:class:`~graphfm.graphllm.backends.cache.CachedEncoder`).
        paid: what was spent on them in this cell.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self._made: dict[tuple[str, ...], tuple[Tensor, float]] = {}
        self._counted: set[tuple[str, ...]] = set()
        self.seconds = self.paid = 0.0

    @property
    def name(self) -> str:
        """The encoder's."""
        return self.encoder.name

    @property
    def dim(self) -> int:
        """The encoder's."""
        return self.encoder.dim

    @property
    def transductive(self) -> bool:
        """Whether vectors of two calls cannot be compared."""
        return bool(getattr(self.encoder, "transductive", False))

    @property
    def num_layers(self) -> int:
        """The encoder's, if it has layers."""
        return int(self.encoder.num_layers)  # type: ignore[attr-defined]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``[N, D]``; what the first encoding of these texts took is added to ``seconds``, once a cell."""
        return self._once(("", *texts), lambda: self.encoder.encode(texts))

    def hidden(self, texts: Sequence[str], layers: Sequence[int] = (-1,)) -> Tensor:
        """States ``[N, len(layers), D]`` of an encoder that has layers; counted as vectors are."""
        encoder: Any = self.encoder
        return self._once((f"layers {list(layers)}", *texts), lambda: encoder.hidden(texts, layers))

    def _once(self, key: tuple[str, ...], make: Callable[[], Tensor]) -> Tensor:
        if key not in self._made:
            started = time.perf_counter()
            vectors = make()
            paid = time.perf_counter() - started
            self._made[key] = vectors, max(paid, getattr(self.encoder, "seconds", 0.0))
            self.paid += paid
        vectors, seconds = self._made[key]
        if key not in self._counted:
            self.seconds += seconds
            self._counted.add(key)
        return vectors

    def new_cell(self) -> None:
        """Count seconds from 0."""
        self.seconds = self.paid = 0.0
        self._counted.clear()

    def count(self, texts: Sequence[str]) -> Counts:
        """The encoder's."""
        return self.encoder.count(texts)


@dataclasses.dataclass(frozen=True)
class Stock:
    """What there is of the backends that methods may need, by the name of the need.

    Attributes:
        encoder: a frozen text encoder.
        tunable: an encoder whose weights a method may change; each method gets a copy of its own.
        lm: a causal language model.
        chat: a client of a model behind an address.
    """

    encoder: TextEncoder | None = None
    tunable: Any = None
    lm: CausalLM | None = None
    chat: ChatClient | None = None

    @property
    def states(self) -> TextEncoder | None:
        """The encoder, if the states of its layers can be read."""
        inner: Any = self.encoder
        while hasattr(inner, "encoder"):
            inner = inner.encoder  # a cache, or what is remembered of one
        return self.encoder if hasattr(inner, "hidden") else None

    def lacks(self, method: type[Method]) -> list[str]:
        """Which of a method's needs are not there."""
        return [need for need in method.needs if getattr(self, need, None) is None]

    def of(self, method: type[Method]) -> dict[str, Any]:
        """The backends that a method asks for, by argument.

        Raises:
            ValueError: one of them is not there.
        """
        missing = self.lacks(method)
        if missing:
            raise ValueError(f"{method.__name__} needs {' and '.join(missing)}, which this run does not have.")
        return {need: getattr(self, need) for need in method.needs}

    def names(self, method: type[Method]) -> dict[str, str]:
        """The names of the models that a method gets, for its settings."""
        return {need: str(getattr(getattr(self, need), "name", "given")) for need in method.needs}
