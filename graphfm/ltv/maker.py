"""A method by its name: ``"TwoStage(neighbours=True)"``, made anew for every seed."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, Protocol

from graphfm.ltv.forecast import Forecast
from graphfm.ltv.task import Task
from graphfm.names import find, literals

__all__ = ["Maker", "Method", "maker"]


class Method(Protocol):
    """What can be evaluated."""

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> Any:
        """Learn from tasks with labels; choose by ``val``, where there is something to choose."""

    def predict(self, task: Task) -> Forecast:
        """Tell the value of a population."""


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes one method, with the same arguments for every seed.

    Attributes:
        method: a class, or a function that makes a method; ``seed`` is passed where it takes one.
        arguments: the others.
    """

    method: Any
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def takes(self) -> set[str]:
        """Names of its parameters."""
        return set(inspect.signature(self.method).parameters)

    def __call__(self, seed: int, **more: Any) -> Method:
        """A fresh method.

        Args:
            seed: for a method that has randomness.
            more: arguments for methods that take them, such as ``device``; others go without.

        Raises:
            ValueError: arguments that the method does not take.
        """
        wanted = {name: value for name, value in {"seed": seed, **more}.items() if name in self.takes}
        try:
            made: Method = self.method(**{**wanted, **self.arguments})
        except TypeError as error:
            raise ValueError(f"{getattr(self.method, '__name__', self.method)}: {error}.") from error
        return made


def maker(text: str) -> Maker:
    """Read a method's name.

    Args:
        text: a class of :mod:`graphfm.ltv`, or ``module:Name``; with arguments by name that are literals. They are read
            with :mod:`ast` and never evaluated.

    Raises:
        ValueError: an unknown name, a class that does not predict, or arguments that cannot be read.
    """
    name, bracket, inside = text.strip().partition("(")
    try:
        placed, arguments = literals(f"({inside}") if bracket else ([], {})
        if placed:
            raise ValueError("arguments must be given by name")
    except ValueError as error:
        raise ValueError(
            f"method {text!r} cannot be read: write it like TwoStage or TwoStage(neighbours=True, rounds=200), with "
            f"plain values ({error})."
        ) from error
    found = find("ltv", name.strip())
    if not (hasattr(found, "fit") and hasattr(found, "predict")):
        raise ValueError(f"method {text!r}: {name.strip()} cannot be fitted and predict.")
    return Maker(found, arguments)
