"""Which nodes are learned from, which choices are made on, which are tested on."""

from __future__ import annotations

import dataclasses
import warnings

import torch
from torch import Tensor

from graphfm.data.checks import check_labels

__all__ = ["Split", "few_shot", "gcope_split"]


@dataclasses.dataclass(frozen=True)
class Split:
    """Disjoint node indices, int64, checked on construction.

    Attributes:
        train: ``[T]`` labelled nodes.
        val: ``[V]`` nodes that choices may be made on; may be empty.
        test: ``[S]`` nodes whose labels nothing but the score may read.

    Raises:
        ValueError: parts that overlap, hold a node twice, or are no index vectors.
    """

    train: Tensor
    val: Tensor
    test: Tensor

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            part = getattr(self, name)
            if not isinstance(part, Tensor):
                raise ValueError(
                    f"split.{name} must be a vector of int64 indices, got {type(part).__name__}; use torch.tensor."
                )
            if part.dim() != 1 or part.dtype != torch.int64:
                raise ValueError(
                    f"split.{name} must be a vector of int64 indices, got {part.dtype} {list(part.shape)}."
                )
        whole = torch.cat([self.train, self.val, self.test])
        if whole.unique().numel() != whole.numel():
            raise ValueError("split.train, split.val and split.test must be disjoint and hold each node once.")

    def check(self, num_nodes: int, y: Tensor | None = None) -> Split:
        """Check that the indices fit a graph of ``num_nodes`` and return the split.

        Args:
            num_nodes: N; of graphs, where the split is of graphs.
            y: ``[N]`` labels, negative where unknown; those of ``train`` and ``val`` are to be read.

        Raises:
            ValueError: an index out of range, an empty training part, or an unknown label that is to be read.
        """
        whole = torch.cat([self.train, self.val, self.test])
        if self.train.numel() == 0:
            raise ValueError("split.train is empty; there is nothing to learn from.")
        if int(whole.min()) < 0 or int(whole.max()) >= num_nodes:
            raise ValueError(f"split holds indices {int(whole.min())}..{int(whole.max())} for {num_nodes} nodes.")
        if y is None:
            return self
        for name, part in (("train", self.train), ("val", self.val)):
            unknown = part[(y[part] < 0).to(part.device)]
            if unknown.numel():
                raise ValueError(
                    f"split.{name} holds {unknown.numel()} whose label is unknown (negative), the first is "
                    f"{int(unknown[0])}; leave them out of it."
                )
        return self


def few_shot(y: Tensor, shots: int, seed: int, *, val_shots: int = 0) -> Split:
    """``shots`` random labelled nodes a class; everything else that has a label is tested.

    Args:
        y: ``[N]`` class labels; negative means unknown: such nodes are in no part.
        shots: k >= 1 nodes a class. A class of n <= k nodes gives n - 1, so that it is tested too; a class of one node
            is left out of training, with a warning.
        seed: of the draw.
        val_shots: nodes a class for validation, at most ``shots``; 0 for none (fixed training steps).

    Raises:
        ValueError: ``shots`` below 1, ``val_shots`` above ``shots``, fewer than two classes.
    """
    if shots < 1:
        raise ValueError(f"shots must be at least 1, got {shots}.")
    if not 0 <= val_shots <= shots:
        raise ValueError(f"val_shots must lie in 0..shots ({shots}): validation is no larger than training.")
    y = check_labels(y, "y").cpu()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(y.numel(), generator=generator)
    order = order[y[order] >= 0]
    order = order[torch.argsort(y[order], stable=True)]  # classes together, random within
    count = torch.bincount(y[order])
    rank = torch.arange(order.numel()) - (torch.cumsum(count, 0) - count)[y[order]]
    size = count[y[order]]
    single = torch.nonzero(count == 1).flatten().tolist()
    if single:
        warnings.warn(f"classes {single} have one node each: left out of training, tested only.", stacklevel=2)
    train = rank < torch.minimum(torch.full_like(size, shots), size - 1)
    left = size - shots  # what a class has beyond its shots; one node of it stays for the test
    val = ~train & (rank < shots + torch.minimum(torch.full_like(size, val_shots), left - 1))
    return Split(order[train].sort().values, order[val].sort().values, order[~train & ~val].sort().values)


def gcope_split(y: Tensor, shots: int, seed: int) -> Split:
    """The split of GCOPE's code (2402.09834): the FIRST ``shots`` nodes a class by index; of the rest 10 % validation.

    Kept to reproduce published figures under ``protocol="paper"``; the shots do not depend on the seed, so figures
    over seeds say little. Use :func:`few_shot` for anything else.
    """
    y = check_labels(y, "y").cpu()
    known = torch.nonzero(y >= 0).flatten()
    order = known[torch.argsort(y[known], stable=True)]
    count = torch.bincount(y[order])
    rank = torch.arange(order.numel()) - (torch.cumsum(count, 0) - count)[y[order]]
    train, rest = order[rank < shots], order[rank >= shots]
    rest = rest[torch.randperm(rest.numel(), generator=torch.Generator().manual_seed(seed))]
    cut = rest.numel() // 10
    return Split(train.sort().values, rest[:cut].sort().values, rest[cut:].sort().values)
