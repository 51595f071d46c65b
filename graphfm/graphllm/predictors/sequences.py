"""Prompts in which words and vectors stand mixed, as numbers: put together for a whole batch, embedded at the end.

A number of 0 or more is a token of the language model; ``-1 - k`` is the k-th of the vectors that a method brings;
:data:`NOTHING` is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from graphfm.graphllm.backends.prompts import cut_middle

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM

__all__ = ["NOTHING", "between", "embedded", "joined", "opening", "slots", "texts", "words"]

NOTHING = torch.iinfo(torch.long).min


def words(lm: CausalLM, text: str) -> Tensor:
    """The tokens of a piece of a prompt, ``[t]``."""
    return torch.tensor(lm.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long)


def opening(lm: CausalLM) -> Tensor:
    """What the tokenizer begins a text with, ``[t]``; nothing for some."""
    start = lm.tokenizer.bos_token_id
    begun = lm.tokenizer("a")["input_ids"][:1] == [start]
    return torch.tensor([start] if start is not None and begun else [], dtype=torch.long)


def texts(lm: CausalLM, given: Sequence[str], at_most: int) -> Tensor:
    """The tokens of each text ``[N, t]``, those of more than ``at_most`` without their middle."""
    rows = lm.tokenizer(list(given), add_special_tokens=False, verbose=False)["input_ids"] if given else []
    cut = [torch.tensor(cut_middle(row, at_most), dtype=torch.long) for row in rows]
    return pad_sequence(cut, True, NOTHING) if cut else torch.zeros(0, 0, dtype=torch.long)


def slots(index: Tensor, nobody: int) -> Tensor:
    """Places for the vectors ``index``; nothing for those that are ``nobody`` or more."""
    return torch.where(index < nobody, -1 - index, NOTHING)


def between(before: Tensor, inner: Tensor, after: Tensor) -> Tensor:
    """``inner`` ``[B, t]`` between two pieces ``[s]``, which are left out where there is nothing inside."""
    there = (inner != NOTHING).any(dim=1, keepdim=True)
    ends = [torch.where(there, piece.to(inner.device), NOTHING) for piece in (before, after)]
    return torch.cat([ends[0], inner, ends[1]], dim=1)


def joined(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pieces one after the other, with what is nothing taken out.

    Args:
        parts: ``[B, t]``, or ``[t]`` for a piece that all have.

    Returns:
        Numbers ``[B, T]`` padded on the left, and a mask ``[B, T]``.
    """
    batch = max(part.size(0) for part in parts if part.dim() == 2)
    whole = torch.cat([part.expand(batch, -1) for part in parts], dim=1)
    there, order = (whole != NOTHING).to(torch.uint8).sort(dim=1, stable=True)
    width = int(there.sum(1).max()) if whole.numel() else 0
    return whole.gather(1, order)[:, whole.size(1) - width :], there[:, whole.size(1) - width :].long()


def embedded(lm: CausalLM, numbers: Tensor, vectors: Callable[[Tensor], Tensor]) -> Tensor:
    """Numbers ``[B, T]`` to embeddings ``[B, T, D]``; ``vectors`` gives ``[U, D]`` for U distinct k in rising order."""
    given = lm.embed(numbers.clamp(min=0))
    place = (numbers < 0) & (numbers != NOTHING)
    key, copy = torch.unique(-1 - numbers[place], return_inverse=True)
    brought = vectors(key).to(given)
    return given.index_put((place.to(given.device),), brought[copy.to(given.device)])
