"""One call for every task, by name: what the command line needs. In Python, call the task's own verb."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch_geometric.data import Data

    from graphfm.pretrained import Pretrained
    from graphfm.results import Result

__all__ = ["TASKS", "first_method", "measure"]

TASKS = ("node", "link", "graph", "cluster")


def first_method(task: str) -> str:
    """The method of a task that is run where none is named.

    Raises:
        ValueError: no such task.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}.")
    return "readout" if task == "cluster" else "finetune"


def measure(
    task: str,
    pretrained: Pretrained | None,
    data: Data,
    *,
    methods: Sequence[str],
    shots: Sequence[int],
    seeds: Sequence[int],
    negatives: Sequence[str] = ("corrupt",),
    baselines: bool = True,
    protocol: str = "honest",
    ego_hops: int | None = None,
    edges: int | None = None,
    device: torch.device | str | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> list[Result]:
    """Measure methods on ``data`` by the verb of a task; ``shots`` and ``negatives`` count where the task has them.

    With ``ego_hops`` models read nodes from their ego graphs (:class:`graphfm.Egos`); with ``edges``
    they learn links from that many.

    Raises:
        ValueError: no such task, a protocol, ego graphs or edges that the task does not have, or what the verb refuses.
    """
    first_method(task)
    if edges is not None and task != "link":
        raise ValueError(f"edges is of links; task {task!r} has none, leave it out.")
    if task == "node":
        from graphfm.egos import Egos
        from graphfm.evaluate import evaluate

        return evaluate(
            pretrained,
            data,
            methods=methods,
            shots=shots,
            seeds=seeds,
            baselines=baselines,
            protocol=protocol,
            ego=None if ego_hops is None else Egos(ego_hops),
            device=device,
            out=out,
            progress=progress,
        )
    if protocol != "honest":
        raise ValueError(f"protocol {protocol!r} is of node classification; task {task!r} has the honest one alone.")
    if ego_hops is not None:
        raise ValueError(f"ego graphs are of node classification; task {task!r} has none.")
    from graphfm import tasks

    shared: dict[str, Any] = {"methods": methods, "seeds": seeds, "baselines": baselines, "device": device}
    shared |= {"out": out, "progress": progress}
    if task == "link":
        return tasks.evaluate_links(pretrained, data, negatives=negatives, shots=edges, **shared)
    if task == "graph":
        return tasks.evaluate_graphs(pretrained, data, shots=shots, **shared)
    return tasks.evaluate_clustering(pretrained, data, **shared)
