"""One measured cell, its line in a JSON-lines file, and the statistics over cells.

A *cell* is one method on one dataset under one split seed. Cells are appended to ``results.jsonl`` as they come, so an
interrupted grid keeps what it has and a later run can skip it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["Result"]


@dataclasses.dataclass(frozen=True)
class Result:
    """One measured cell.

    Attributes:
        task: ``"node-classification"`` for now.
        dataset: name of the target graph.
        method: what was run, e.g. ``"finetune"``, ``"probe"``, ``"sgc4"``.
        seed: seed of the split (and of the method), so that cells of two methods with one seed are paired.
        metrics: fractions in [0, 1]: ``accuracy``, ``macro_f1``, ``auroc``. NaN where undefined.
        settings: JSON-able settings: ``shots`` (int), ``protocol``, ``group`` (``"floor"``, ``"control"``,
            ``"pretrained"``), ``device``, ``sources``, and whatever else tells this cell from another.
        seconds: wall-clock seconds of fit and prediction.
        peak_memory: peak bytes of the process (CPU) or of the device (CUDA) when the cell ended.
        versions: library versions.
    """

    task: str
    dataset: str
    method: str
    seed: int
    metrics: dict[str, float]
    settings: dict[str, Any]
    seconds: float
    peak_memory: int
    versions: dict[str, str]
