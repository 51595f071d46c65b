"""Words taken out of texts for a masked language model to put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["masked_tokens"]


def masked_tokens(
    ids: Tensor, tokenizer: Any, random: torch.Generator | None = None, *, rate: float = 0.15
) -> tuple[Tensor, Tensor]:
    """BERT's rule (Devlin et al., 2019, section 3.1): of the chosen tokens 80 % masked, 10 % random, 10 % as they are.

    Args:
        ids: ``[B, T]`` on the CPU; special tokens and padding are never chosen. Where chance chooses none, one is.
        tokenizer: of transformers, with a mask token.
        random: the generator; torch's own state if not given.
        rate: share of tokens that are chosen.

    Returns:
        The ids to be shown ``[B, T]``, and those to be told ``[B, T]``, -100 where nothing is.

    Raises:
        ValueError: the tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise ValueError("the encoder's tokenizer has no mask token; take a masked language model, such as BERT.")
    free = ~torch.isin(ids, torch.tensor(sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})))
    luck = torch.rand(ids.shape, generator=random).masked_fill(~free, 2.0)
    chosen = free & ((luck < rate) | (luck == luck.min()))
    kind = torch.rand(ids.shape, generator=random)
    other = torch.randint(len(tokenizer), ids.shape, generator=random)
    shown = torch.where(chosen & (kind < 0.8), torch.full_like(ids, tokenizer.mask_token_id), ids)
    shown = torch.where(chosen & (kind >= 0.9), other, shown)
    return shown, ids.masked_fill(~chosen, -100)
