"""Log-likelihoods of all labels after a prompt in one forward pass.

The labels lie side by side behind the prompt, at the same positions, and a block mask keeps them from seeing one
another; so the prompt is read once, nothing of it is copied, and gradients reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["label_log_likelihoods", "one_by_one", "positions", "reads_blocks"]


def positions(mask: Tensor) -> Tensor:
    """The position ``[B, T]`` of each token where ``mask`` leaves out the padding."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def reads_blocks(config: Any) -> bool:
    """Whether attention takes a mask of any shape: not where a window slides, states are folded, or flash is used."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    whole = set(kinds) == {"full_attention"} and not (
        getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    )
    attends = getattr(config, "num_attention_heads", 0) and not getattr(config, "alibi", False)
    return bool(whole and attends and getattr(config, "_attn_implementation", "eager") in ("eager", "sdpa"))


def label_log_likelihoods(model: nn.Module, prompt: Tensor, mask: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """Sum of the log-probabilities of each label's tokens, ``[B, C]``, in one pass.

    Args:
        model: of transformers, with a head over V tokens, such that ``reads_blocks(model.config)``.
        prompt: embeddings ``[B, T, D]``.
        mask: ``[B, T]``, 1 for a token; padding on the left, or none.
        labels: C lists of token ids.
    """
    batch, length = mask.shape
    ids = torch.tensor([token for label in labels for token in label], device=prompt.device)
    size = torch.tensor([len(label) for label in labels], device=prompt.device)
    owner = torch.repeat_interleave(torch.arange(len(labels), device=prompt.device), size)
    first = size.cumsum(0) - size  # of each label among all label tokens
    place = torch.arange(len(ids), device=prompt.device) - first[owner]
    embedded = model.get_input_embeddings()(ids).to(prompt.dtype).expand(batch, -1, -1)  # type: ignore[operator]
    where = torch.cat([positions(mask), mask.sum(1, keepdim=True) + place], dim=1)
    logits = model(
        inputs_embeds=torch.cat([prompt, embedded], dim=1),
        attention_mask=_blocks(mask, owner, prompt.dtype),
        position_ids=where,
        use_cache=False,
        logits_to_keep=torch.arange(length - 1, length + len(ids), device=prompt.device),
    ).logits
    # A label's first token is foretold at the prompt's end, every other one at the token before it.
    seen = torch.where(place == 0, 0, torch.arange(len(ids), device=prompt.device))
    told = logits[:, seen].float() if logits.dtype in (torch.float16, torch.bfloat16) else logits[:, seen]
    each = told.log_softmax(-1).gather(-1, ids.expand(batch, -1).unsqueeze(-1)).squeeze(-1)
    return each.new_zeros(batch, len(labels)).index_add(1, owner, each)


def one_by_one(model: nn.Module, prompt: Tensor, mask: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """The same by a pass for each label, which reads the prompt again every time; for any causal model."""
    columns = []
    for label in labels:
        ids = torch.tensor(label, device=prompt.device)
        embedded = model.get_input_embeddings()(ids).to(prompt.dtype).expand(len(prompt), -1, -1)  # type: ignore[operator]
        whole = torch.cat([mask, mask.new_ones(len(prompt), len(ids))], dim=1)
        logits = model(
            inputs_embeds=torch.cat([prompt, embedded], dim=1),
            attention_mask=whole,
            position_ids=positions(whole),
            use_cache=False,
        ).logits[:, -len(ids) - 1 : -1]
        told = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        each = told.log_softmax(-1).gather(-1, ids.expand(len(prompt), -1).unsqueeze(-1))
        columns.append(each.sum((1, 2)))
    return torch.stack(columns, dim=1)


def _blocks(mask: Tensor, owner: Tensor, dtype: torch.dtype) -> Tensor:
    """What may look at what, ``[B, 1, T + S, T + S]``: 0 where it may, else the lowest number."""
    batch, length = mask.shape
    total = length + len(owner)
    group = torch.cat([owner.new_full((length,), -1), owner])
    order = torch.arange(total, device=mask.device)
    same = (group[:, None] == group[None]) | (group == -1)[None]
    causal = same & (order[:, None] >= order[None])
    token = torch.cat([mask.bool(), mask.new_ones(batch, len(owner)).bool()], dim=1)
    # Padding looks at itself, since a row that may look nowhere gives NaN.
    seen = (causal[None] & token[:, None, :]) | torch.eye(total, dtype=torch.bool, device=mask.device)
    blocked = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=mask.device)
    return torch.where(seen, torch.zeros((), dtype=dtype, device=mask.device), blocked).unsqueeze(1)
