"""Several processes that train one model together, through plain ``torch.distributed``."""

from __future__ import annotations

import atexit
import dataclasses
import hashlib
import os
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from graphfm.device import as_device

__all__ = ["ALONE", "RankLost", "Ranks", "find_ranks", "rank_device"]

PATIENCE = timedelta(seconds=45)  # with a rank that does not answer; the others end within a minute


class RankLost(RuntimeError):
    """Another rank died, hangs, or was too slow to answer."""


@dataclasses.dataclass(frozen=True)
class Ranks:
    """One process among those that train together.

    Attributes:
        rank: its number.
        size: how many there are.
        device: where the tensors are that ranks send one another.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def share(self, count: int, rank: int | None = None) -> range:
        """Which of ``count`` groups belong to a rank (by default this one): neighbours, as many as others to one."""
        rank = self.rank if rank is None else rank
        each, rest = divmod(count, self.size)
        first = rank * each + min(rank, rest)
        return range(first, first + each + (rank < rest))

    def ordered_sum(self, rows: list[Tensor], count: int) -> Tensor:
        """Sum ``[P]`` over the rows of all groups, ``count`` of them, added up in the order of the groups.

        Every rank gives the rows of its :meth:`share`. Each element is added up by one rank, so the result has the same
        bits on every rank, and for any number of ranks; a plain all-reduce promises neither. What is sent is the same.
        """
        if self.size == 1:
            return _added(rows)
        width, most = rows[0].numel(), -(-count // self.size)
        slice_ = -(-width // self.size)
        mine = rows[0].new_zeros(most, self.size * slice_)
        for place, row in enumerate(rows):
            mine[place, :width] = row
        sent = mine.view(most, self.size, slice_).transpose(0, 1).contiguous()
        found = torch.empty_like(sent)
        self._ask(lambda: dist.all_to_all_single(found, sent))
        parts = [found[rank, place] for rank in range(self.size) for place in range(len(self.share(count, rank)))]
        return self.gather(_added(parts)).flatten()[:width]

    def gather(self, mine: Tensor) -> Tensor:
        """``[size, ...]``: what every rank gives, in the order of the ranks."""
        if self.size == 1:
            return mine.unsqueeze(0)
        everyone = mine.new_empty(self.size, *mine.shape)
        self._ask(lambda: dist.all_gather(list(everyone.unbind(0)), mine.contiguous()))
        return everyone

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        return bool(self.gather(torch.tensor([flag], dtype=torch.uint8, device=self.device)).any())

    def check_agree(self, facts: dict[str, str], advice: str) -> None:
        """Compare facts, under the same names on all ranks, with those of the other ranks.

        Raises:
            ValueError: on all ranks alike, naming the ranks that differ from most (from rank 0 in a tie) and in what.
        """
        if self.size == 1:
            return
        digests = b"".join(hashlib.sha256(value.encode()).digest() for value in facts.values())
        mine = torch.frombuffer(bytearray(digests), dtype=torch.uint8).to(self.device)
        everyone = self.gather(mine).cpu().view(self.size, len(facts), -1)
        alike = (everyone[:, None] == everyone[None]).flatten(2).all(2)
        most = int(alike.sum(1).argmax())
        differ = (everyone != everyone[most]).any(2)
        if not bool(differ.any()):
            return
        names = list(facts)
        found = [
            f"rank {rank} has other {', '.join(n for n, d in zip(names, row, strict=True) if d)}"
            for rank, row in enumerate(differ.tolist())
            if any(row)
        ]
        raise ValueError(f"{'; '.join(found)} than rank {most}. {advice}")

    def _ask(self, exchange: Callable[[], object]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            why = str(error).strip().splitlines()[0]
            raise RankLost(
                f"rank {self.rank} of {self.size}: another rank is gone, hangs or came too late ({why})"
            ) from error


ALONE = Ranks()


def rank_device(device: torch.device | str | None) -> torch.device:
    """The device of this process: under ``torchrun`` ``"cuda"`` means one GPU a rank."""
    where = as_device(device)
    if where.type == "cuda" and where.index is None and "LOCAL_RANK" in os.environ and _was_launched():
        return as_device(f"cuda:{os.environ['LOCAL_RANK']}")
    return where


def find_ranks(device: torch.device) -> Ranks:
    """The processes of this run: those of ``torch.distributed`` if there are, else of ``torchrun``, else this one.

    A group is begun here, once a process, where the launcher's environment (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``,
    ``MASTER_PORT``) speaks of several processes and the user has begun none: gloo for CPU tensors, NCCL for those on a
    GPU, and 45 seconds of patience with a silent rank. For other choices call
    ``torch.distributed.init_process_group`` first.
    """
    if not dist.is_available():
        return ALONE
    begun = not dist.is_initialized()
    if begun:
        if not _was_launched():
            return ALONE
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        atexit.register(_leave)
    if dist.get_world_size() == 1:
        return ALONE
    found = Ranks(dist.get_rank(), dist.get_world_size(), device)
    if begun:
        found.any(False)  # a rank that ends at once, over a bad argument, would cut others off while they still meet
    return found


def _was_launched() -> bool:
    named = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    return named and int(os.environ["WORLD_SIZE"]) > 1


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _added(rows: list[Tensor]) -> Tensor:
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total
