"""What the trunk reads of users, items and pairs, put together some rows at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphfm.data.purchase_features import standardise
from graphfm.ltv.pretraining import PurchaseEncoder
from graphfm.ltv.tabular import mean_of_bought
from graphfm.ltv.task import Task
from graphfm.ltv.vocabulary import Vocabulary

__all__ = ["Inputs", "gather"]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Tables of users, items and pairs, and the row of each that a member reads.

    A pair's user and item stand in the tables once, however many pairs they have, so memory is that of the snapshots.

    Attributes:
        tables: ``[T, F]`` each.
        index: ``[N]`` each, rows of the tables.
        code: ``[N]`` number of the item in a vocabulary, or ``None``.
    """

    tables: tuple[Tensor, ...]
    index: tuple[Tensor, ...]
    code: Tensor | None

    def __len__(self) -> int:
        return len(self.index[0])

    @property
    def width(self) -> int:
        """Features of a member."""
        return sum(table.size(1) for table in self.tables)

    def rows(self, chosen: Tensor | slice, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Features ``[B, F]`` and codes ``[B]`` of some members."""
        parts = [table[index[chosen]] for table, index in zip(self.tables, self.index, strict=True)]
        code = None if self.code is None else self.code[chosen].to(device)
        return torch.cat(parts, dim=1).to(device), code

    def to(self, device: torch.device) -> Inputs:
        """The same on another device."""
        code = None if self.code is None else self.code.to(device)
        tables, index = (tuple(part.to(device) for part in parts) for parts in (self.tables, self.index))
        return Inputs(tables, index, code)


def gather(tasks: Sequence[Task], encoder: PurchaseEncoder | None, vocabulary: Vocabulary | None) -> Inputs:
    """The members of some tasks, one task after the other.

    Args:
        tasks: with one unit and the same columns.
        encoder: gives embeddings of users and items, which stand beside their features; ``None``: there are none.
            A user who stands alone, in no pair, has the means over the items bought beside its own, features and
            embeddings alike: nothing else of the purchase graph would tell what was bought.
        vocabulary: of the items, if they are to have codes.
    """
    each = [_of_task(task, encoder, vocabulary) for task in tasks]
    tables, index = [], []
    for place in range(len(each[0].tables)):
        parts = [one.tables[place] for one in each]
        sizes = torch.tensor([len(part) for part in parts])
        before = (sizes.cumsum(0) - sizes).tolist()
        tables.append(torch.cat(parts))
        index.append(torch.cat([one.index[place] + start for one, start in zip(each, before, strict=True)]))
    codes = [one.code for one in each if one.code is not None]
    return Inputs(tuple(tables), tuple(index), torch.cat(codes) if codes else None)


def _of_task(task: Task, encoder: PurchaseEncoder | None, vocabulary: Vocabulary | None) -> Inputs:
    graph, people = task.snapshot, task.population
    known = {kind: graph[kind].x for kind in ("user", "item")}
    if encoder is not None:
        known = {kind: torch.cat([known[kind], rows], dim=1) for kind, rows in encoder.embed(graph).items()}
    user = torch.from_numpy(people.user)
    if people.item is None:
        tables = (known["user"],) if encoder is None else (known["user"], _of_bought(graph, known["item"]))
        return Inputs(tables, (user,) * len(tables), None)
    code = None if vocabulary is None else torch.from_numpy(vocabulary.codes(task.past.items)[people.item])
    pairs = graph["user", "buys", "item"].edge_attr
    index = (user, torch.from_numpy(people.item), torch.from_numpy(people.row))
    return Inputs((known["user"], known["item"], pairs), index, code)


def _of_bought(graph: HeteroData, items: Tensor) -> Tensor:
    """Means over each user's items, scaled in this snapshot as all else is: popular items are in most of them."""
    return torch.from_numpy(standardise(mean_of_bought(graph, items).double().numpy()))
