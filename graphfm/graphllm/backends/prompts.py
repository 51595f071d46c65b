"""From prompts and labels to tokens: where a label begins, where it ends, and what is cut when there is no room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphfm.graphllm.backends.base import check_texts

__all__ = ["cut_embeds", "cut_middle", "label_tokens", "pad_left", "prompt_tokens", "question"]

_ANCHOR = ":"  # what a prompt ends with; labels are tokenised behind it, for some tokenizers treat a beginning apart


def question(labels: Sequence[str], about: Sequence[str] = ()) -> str:
    """How predictors here ask for the class: names them all, and ends where the answer begins.

    Args:
        labels: class names.
        about: what is said of each class, if anything is.
    """
    return f"Question: the classes are {listed(labels, about)}. Which class is the node of? Answer:"


def listed(labels: Sequence[str], about: Sequence[str] = ()) -> str:
    """The class names, separated by commas, each with what is said of it in brackets; as in :func:`question`."""
    names = [str(label).replace("_", " ") for label in labels]
    said = [text.strip(" .") for text in about] or [""] * len(names)
    return ", ".join(f"{name} ({text})" if text else name for name, text in zip(names, said, strict=True))


def prompt_tokens(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """The tokens of each prompt as the tokenizer begins a text (some put a token first), never with an end token."""
    found = check_texts(prompts, "prompts")
    ids = tokenizer(found, verbose=False)["input_ids"] if found else []
    end = tokenizer.eos_token_id
    return [row[:-1] if len(row) > 1 and row[-1] == end else row for row in ids]


def cut_middle(ids: list[int], room: int) -> list[int]:
    """The first and last tokens that fit: a prompt begins with the task and ends with the question."""
    if len(ids) <= room:
        return ids
    tail = room // 2
    return ids[: room - tail] + ids[len(ids) - tail :]


def cut_embeds(embeds: Tensor, mask: Tensor, room: int) -> tuple[Tensor, Tensor, int]:
    """The same rule for prompts of vectors ``[B, T, D]`` with a mask ``[B, T]``, if T is more than ``room``.

    Returns:
        Prompts ``[B, room, D]`` and their mask, padded on the left; and how many rows lost their middle.
    """
    there = mask.bool()
    count, place = there.sum(1, keepdim=True), there.cumsum(1) - 1
    tail = room // 2
    kept = there & ((count <= room) | (place < room - tail) | (place >= count - tail))
    kept, order = kept.to(torch.uint8).sort(dim=1, stable=True)
    order, kept = order[:, -room:], kept[:, -room:]
    found = embeds.gather(1, order.to(embeds.device).unsqueeze(2).expand(-1, -1, embeds.size(2)))
    return found, kept.to(mask.dtype), int((count > room).sum())


def label_tokens(tokenizer: Any, labels: Sequence[str]) -> list[list[int]]:
    """The tokens of each label as it goes on a prompt, closed by the end token (or a line break where there is none).

    The end is part of what is scored: without it a label that begins another one ("Networks", "Networks and Systems")
    would never be less likely than the longer one.

    Raises:
        ValueError: no labels, an empty one, or two that are the same tokens.
        TypeError: a label that is no string.
    """
    names = check_texts(labels, "labels")
    if not names or not all(name.strip() for name in names):
        raise ValueError(f"labels must be at least one string, none of them blank, got {names}.")
    end = [tokenizer.eos_token_id]
    if end == [None]:
        end = tokenizer("\n", add_special_tokens=False)["input_ids"]
    if not end:
        raise ValueError("the tokenizer has no end token and no token for a line break; set tokenizer.eos_token.")
    found: dict[tuple[int, ...], str] = {}
    for name in names:
        ids = tuple(_continuation(tokenizer, name.strip()) + end)
        if ids in found:
            raise ValueError(f"labels {found[ids]!r} and {name!r} are the same tokens {list(ids)}; reword one.")
        found[ids] = name
    return [list(ids) for ids in found]


def _continuation(tokenizer: Any, label: str) -> list[int]:
    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    anchor, whole = tokens(_ANCHOR), tokens(f"{_ANCHOR} {label}")
    if anchor and whole[: len(anchor)] == anchor and len(whole) > len(anchor):
        return whole[len(anchor) :]
    return tokens(f" {label}")


def pad_left(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask ``[B, T]``, padded on the left to the longest row, to at least one token."""
    width = max(1, *(len(row) for row in rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask
