"""What a language model was asked in a cell of a run: prompts, how many were cut, and what its states once took."""

from __future__ import annotations

import dataclasses

__all__ = ["Ledger"]


@dataclasses.dataclass
class Ledger:
    """Kept by a language model from one :meth:`clear` to the next.

    Attributes:
        prompts: read to be answered, in training too; one that is read twice counts twice.
        cut: how many of them lost their middle, for they were longer than the context.
        seconds: what states that were asked for took when they were first made, by whichever process.
        paid: what was spent on states now, making or reading them.
    """

    prompts: int = 0
    cut: int = 0
    seconds: float = 0.0
    paid: float = 0.0
    _counted: set[str] = dataclasses.field(default_factory=set, repr=False)

    def clear(self) -> None:
        """Begin anew."""
        self.prompts = self.cut = 0
        self.seconds = self.paid = 0.0
        self._counted.clear()

    def read(self, prompts: int, cut: int) -> None:
        """Prompts that were read, and how many of them were cut."""
        self.prompts, self.cut = self.prompts + prompts, self.cut + cut

    def states(self, key: str, seconds: float, paid: float) -> None:
        """States that were asked for; those of a ``key`` count once in ``seconds``, always in ``paid``."""
        self.paid += paid
        if key not in self._counted:
            self._counted.add(key)
            self.seconds += max(seconds, paid)
