"""A population as rows of numbers: what is known of user, item and pair, and on wish of their neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphfm.ltv.population import Population
from graphfm.ltv.task import Task
from graphfm.nn import Adjacency

__all__ = ["Tabular", "mean_of_bought", "tabular"]

_ROWS = 65_536  # members in one go: bounds the memory of a prediction


@dataclasses.dataclass(frozen=True, eq=False)
class Tabular:
    """Rows are gathered when they are asked for, so that millions of pairs cost no more than their nodes.

    Attributes:
        parts: tables float32 ``[M, F]``, each with the row of every member in it, ``[N]``.
        names: of the columns.
    """

    parts: tuple[tuple[np.ndarray, np.ndarray], ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.parts[0][1])

    def rows(self, low: int = 0, high: int | None = None) -> np.ndarray:
        """float32 ``[high - low, F]``, members in the order of the population."""
        return np.concatenate([table[place[low:high]] for table, place in self.parts], axis=1)

    def pieces(self, rows: int = _ROWS) -> Iterator[np.ndarray]:
        """All rows, a piece at a time."""
        for low in range(0, len(self), rows):
            yield self.rows(low, low + rows)


def tabular(task: Task, *, neighbours: bool = False) -> Tabular:
    """Features of a task's population as of its cutoff.

    They are those of :func:`graphfm.data.snapshot`: counts and sums on a logarithmic scale, scaled to mean 0 and
    deviation 1 in this snapshot. Trees would take them unscaled as well, but cumulated sums drift from one origin to
    the next, and a threshold learnt at one would mean something else at another.

    Args:
        task: whose features; its labels are not looked at.
        neighbours: add what message passing with fixed weights would bring: for users the mean over the items they
            bought and over users like them, for items the mean over their buyers and over items bought with them.
    """
    people = task.population
    data = task.snapshot
    tables = {kind: [(kind, data[kind].x)] for kind in ("user", "item")}
    if neighbours:
        for kind, mean in _neighbour_means(data).items():
            tables[kind] += mean
    place = _places(people)
    parts, names = [], []
    for kind, index in place.items():
        for label, x in tables[kind]:
            parts.append((x.numpy(), index))
            names += [f"{label}: {name}" for name in data["user"].feature_names]
    if people.item is not None:
        edges = data["user", "buys", "item"]
        parts.append((edges.edge_attr.numpy(), people.row))
        names += [f"pair: {name}" for name in edges.feature_names]
    return Tabular(tuple(parts), tuple(names))


def _places(people: Population) -> dict[str, np.ndarray]:
    return {"user": people.user} if people.item is None else {"user": people.user, "item": people.item}


def _neighbour_means(data: HeteroData) -> dict[str, list[tuple[str, Tensor]]]:
    """Tables of means, named, for users and for items."""
    users = data["user"].num_nodes
    both = data["user", "buys", "item"].edge_index + torch.tensor([[0], [users]])
    x = torch.cat([data["user"].x, data["item"].x])  # users and items have the same columns
    partners = _mean(torch.cat([both, both.flip(0)], dim=1), x, None)
    like, along = data["user", "like", "user"], data["item", "with", "item"]
    return {
        "user": [
            ("mean of items", partners[:users]),
            ("mean of like users", _mean(like.edge_index, data["user"].x, like.edge_weight)),
        ],
        "item": [
            ("mean of buyers", partners[users:]),
            ("mean of items with it", _mean(along.edge_index, data["item"].x, along.edge_weight)),
        ],
    }


def mean_of_bought(data: HeteroData, x: Tensor) -> Tensor:
    """Mean over the items that each user has bought, ``[U, F]`` from item rows ``x`` ``[I, F]``; 0 for none."""
    users = data["user"].num_nodes
    buyer, item = data["user", "buys", "item"].edge_index
    both = torch.cat([x.new_zeros(users, x.size(1)), x])
    return _mean(torch.stack([item + users, buyer]), both, None)[:users]


def _mean(edge_index: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
    return Adjacency.from_edges(edge_index, x.size(0), weight).mean().matmul(x)
