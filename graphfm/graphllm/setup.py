"""What a run asks of all methods: setting, labels told, grid, device."""

from __future__ import annotations

import dataclasses

from graphfm.device import as_device
from graphfm.graphllm.choose import GRIDS
from graphfm.graphllm.protocol import SETTINGS

__all__ = ["Setup"]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is asked, the same for all cells of a run.

    Attributes:
        setting: ``"supervised"`` (the protocol's splits, settings chosen on validation nodes), ``"few-shot"``
            (``shots`` labels a class, no validation, default settings), ``"zero-shot"`` (no label of the target).
        shots: labels a class in the few-shot setting.
        labels: ``"descriptions"`` or ``"names"``: what methods are told of the classes, if they read descriptions
            (``descriptions`` of :class:`~graphfm.graphllm.Method`); a cell says which it was.
        grid: ``"small"``, ``"published"`` or ``"one"``; for the supervised setting.
        device: where methods run.

    Raises:
        ValueError: a value that is not one of these.
    """

    setting: str = "supervised"
    shots: int = 5
    labels: str = "descriptions"
    grid: str = "small"
    device: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("setting", SETTINGS), ("labels", ("descriptions", "names")), ("grid", GRIDS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        if self.shots < 1:
            raise ValueError(f"shots must be at least 1, got {self.shots}.")
        as_device(self.device)
