"""Controls of the claim that the graph helps: the same model on a graph that says nothing, or with fewer payers."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData

from graphfm.ltv.forecast import Forecast
from graphfm.ltv.grepo import GRePO
from graphfm.ltv.plain import labels_of
from graphfm.ltv.task import Task

__all__ = ["FewerPayers", "RewiredGRePO", "fewer_payers", "rewired"]

_PATHS = (("user", "like", "user"), ("item", "with", "item"))


def rewired(snapshot: HeteroData, seed: int = 0) -> HeteroData:
    """A snapshot whose two meta-path graphs join users (and items) at random.

    The sources of the edges are shuffled over the targets: everybody keeps the number of edges in and out, and the
    weights that come in. Features and purchases stay, so what the graph tells beyond them is gone.
    """
    other = copy.copy(snapshot)
    generator = torch.Generator().manual_seed(seed)
    for path in _PATHS:
        source, target = snapshot[path].edge_index
        other[path].edge_index = torch.stack([source[torch.randperm(len(source), generator=generator)], target])
    return other


def fewer_payers(task: Task, share: float, seed: int = 0) -> Task:
    """A task in which only a share of those who pay is left; those who pay nothing all stay.

    Args:
        task: with labels.
        share: of the members who pay within the longest horizon, in (0, 1]; at least one is left.
        seed: of the draw.

    Raises:
        ValueError: no labels, or another share.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}.")
    paid = labels_of([task])[0].value[:, -1] > 0
    payers = np.flatnonzero(paid)
    kept = np.random.default_rng(seed).permutation(payers)[: max(round(share * len(payers)), 1)]
    return task.part(np.sort(np.concatenate([np.flatnonzero(~paid), kept])))


class RewiredGRePO:
    """:class:`~graphfm.ltv.grepo.GRePO`, with its arguments, on snapshots that went through :func:`rewired`."""

    __signature__ = inspect.signature(GRePO)

    def __init__(self, **options: Any) -> None:
        self.model = GRePO(**options)

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> RewiredGRePO:
        """Fit on rewired snapshots."""
        self.model.fit([self._rewired(task) for task in tasks], [self._rewired(task) for task in val])
        return self

    def predict(self, task: Task) -> Forecast:
        """Predict from a rewired snapshot."""
        return self.model.predict(self._rewired(task))

    def _rewired(self, task: Task) -> Task:
        return dataclasses.replace(task, graph=rewired(task.snapshot, self.model.seed))


class FewerPayers:
    """:class:`~graphfm.ltv.grepo.GRePO` that learns from a share of the payers; other arguments are its own.

    Validation keeps all of them. Fewer payers make a lower rate, so only what orders customers can be compared.
    """

    def __init__(self, *, share: float = 0.1, **options: Any) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {share}.")
        self.share, self.model = share, GRePO(**options)

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> FewerPayers:
        """Fit on what is left of the tasks."""
        seeds = range(self.model.seed, self.model.seed + len(tasks))
        self.model.fit([fewer_payers(task, self.share, seed) for task, seed in zip(tasks, seeds, strict=True)], val)
        return self

    def predict(self, task: Task) -> Forecast:
        """What the model says."""
        return self.model.predict(task)


_OWN = list(inspect.signature(FewerPayers.__init__).parameters.values())[1:-1]
FewerPayers.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # for the command line
    [*_OWN, *inspect.signature(GRePO).parameters.values()]
)
