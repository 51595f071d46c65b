"""Methods and rules over the same seeds, one measured cell at a time: what the tasks' verbs share."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from graphfm.evaluate import identity, untrained
from graphfm.methods import describe, parse
from graphfm.pretrained import Pretrained
from graphfm.progress import progress_bar
from graphfm.results import Result, append, cell_key, environment, peak_memory, read

__all__ = ["Cell", "Grid", "Output", "check_methods", "model_cells"]

Problem = TypeVar("Problem")
# What the task scores, alone or with what is known of a cell only once it has run, such as ``trained_parameters``.
Output = Tensor | tuple[Tensor, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Cell(Generic[Problem]):
    """One method.

    Attributes:
        method: its name in tables.
        settings: what tells it from others, ``group`` among it.
        run: from a problem and a seed to whatever the task scores.
    """

    method: str
    settings: dict[str, Any]
    run: Callable[[Problem, int], Output]


@dataclasses.dataclass(frozen=True)
class Grid(Generic[Problem]):
    """What is measured, and how.

    Attributes:
        task: ``"link"``, ``"graph"`` or ``"clustering"``.
        dataset: name of the target.
        pose: the problem of a seed: its split and whatever all methods are to share. Made once a seed.
        score: from a problem and a method's output to metrics.
        settings: of all cells.
        device: where models run.
        out: file of JSON lines; cells are appended as they come, and those that it holds are not run again.
        progress: show a progress bar.
    """

    task: str
    dataset: str
    pose: Callable[[int], Problem]
    score: Callable[[Problem, Tensor], dict[str, float]]
    settings: dict[str, Any]
    device: torch.device | str | None = None
    out: str | os.PathLike[str] | None = None
    progress: bool = False

    def measure(self, cells: Sequence[Cell[Problem]], seeds: Sequence[int]) -> list[Result]:
        """All cells on all seeds, those read from ``out`` included.

        Raises:
            ValueError: no seeds.
        """
        if not seeds:
            raise ValueError("seeds is empty; give at least one.")
        known = self.out is not None and os.path.exists(self.out)
        finished = {cell_key(r): r for r in read(self.out)} if known and self.out is not None else {}
        results = []
        with progress_bar(len(cells) * len(seeds), f"{self.task} on {self.dataset}", enabled=self.progress) as advance:
            for seed in seeds:
                problem: Problem | None = None
                for cell in cells:
                    found = finished.get(cell_key(self._result(cell, seed)))
                    if found is None:
                        problem = self.pose(seed) if problem is None else problem
                        found = self._measured(cell, problem, seed)
                    results.append(found)
                    advance(1, cell.method)
        return results

    def _measured(self, cell: Cell[Problem], problem: Problem, seed: int) -> Result:
        started = time.perf_counter()
        found = cell.run(problem, seed)
        seconds = time.perf_counter() - started
        output, facts = found if isinstance(found, tuple) else (found, {})
        plain = self._result(cell, seed)
        measured = dataclasses.replace(
            plain,
            settings={**plain.settings, **facts},
            metrics=self.score(problem, output),
            seconds=seconds,
            peak_memory=peak_memory(self.device),
            versions=environment(),
        )
        if self.out is not None:
            append(self.out, measured)
        return measured

    def _result(self, cell: Cell[Problem], seed: int) -> Result:
        settings = {**self.settings, "device": str(self.device or "cpu"), **cell.settings}
        return Result(self.task, self.dataset, cell.method, seed, {}, settings, 0.0, 0, {})


def check_methods(pretrained: Pretrained | None, methods: Sequence[str], known: Sequence[str]) -> None:
    """Refuse methods that are not there, or that have no model.

    Raises:
        ValueError: see above.
    """
    for method in methods:
        try:
            parse(method, known)
        except ValueError as error:
            raise ValueError(f"methods holds {method!r}: {error}") from error
    if pretrained is None and methods and tuple(methods) != tuple(known):
        raise ValueError("methods need a pretrained model; pass one, or methods=[] for the rules alone.")


def model_cells(
    pretrained: Pretrained | None,
    methods: Sequence[str],
    controls: dict[str, str],
    run: Callable[[Pretrained, str, Problem, int], Output],
) -> list[Cell[Problem]]:
    """Cells of a model's methods, controls first.

    Args:
        pretrained: the model; ``None`` gives no cells.
        methods: to run with it.
        controls: name to method; run with weights drawn anew from the seed, never pretrained.
        run: model, method, problem and seed to what the task scores.
    """
    if pretrained is None:
        return []
    model = pretrained
    about = identity(model)
    control = {
        "group": "control",
        "backbone": about["backbone"],
        "width": model.backbone.out_channels,
        "layers": getattr(model.backbone, "num_layers", None),
    }

    def fresh(method: str) -> Callable[[Problem, int], Output]:
        return lambda problem, seed: run(untrained(model, seed), method, problem, seed)

    def ours(method: str) -> Callable[[Problem, int], Output]:
        return lambda problem, seed: run(model, method, problem, seed)

    cells = [Cell(name, control, fresh(method)) for name, method in controls.items()]
    for method in methods:
        beside = describe(parse(method)) if ":" in method else {}
        cells.append(Cell(method, {"group": "pretrained", **about, **beside}, ours(method)))
    return cells
