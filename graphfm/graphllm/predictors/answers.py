"""What predictors share: prompts with places for vectors, and training so that the right class name follows."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphfm.data.splits import Split

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM

__all__ = ["Prompts", "answer_scores", "frozen", "pieces", "readable", "train_answers"]

Prompts = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Nodes ``[B]`` to prompts, as embeddings ``[B, T, D]`` and a mask ``[B, T]`` with padding on the left."""

_EVALUATIONS = 10


def readable(labels: Sequence[str]) -> list[str]:
    """Class names as a prompt writes them."""
    return [str(label).replace("_", " ") for label in labels]


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter of ``module`` takes a gradient inside the block; after it all is as it was."""
    before = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


def pieces(lm: CausalLM, template: str, slot: str = "{}") -> list[Tensor]:
    """The token embeddings ``[t, D]`` of a template's text before, between and after its places for vectors."""
    found = []
    for number, part in enumerate(template.split(slot)):
        ids = lm.tokenizer(part.strip(), add_special_tokens=number == 0)["input_ids"]
        # A tokenizer that closes every text would close this one before the question.
        ids = ids[:-1] if number == 0 and ids[-1:] == [lm.tokenizer.eos_token_id] else ids
        with torch.no_grad():
            found.append(lm.embed(torch.tensor(ids, dtype=torch.long)))
    return found


def answer_scores(lm: CausalLM, prompts: Prompts, labels: Sequence[str], nodes: Tensor, batch: int) -> Tensor:
    """Log-likelihood ``[n, C]`` of each label at each of ``nodes``, on the CPU, without gradients."""
    with torch.no_grad():
        parts = [lm.score_embeds(*prompts(part), labels).float().cpu() for part in nodes.split(batch)]
    return torch.cat(parts) if parts else torch.zeros(0, len(labels))


def train_answers(
    modules: Mapping[str, nn.Module],
    lm: CausalLM,
    prompts: Prompts,
    labels: Sequence[str],
    y: Tensor,
    split: Split,
    parameters: Sequence[nn.Parameter],
    *,
    lr: float,
    epochs: int,
    batch: int,
) -> None:
    """AdamW on ``-log p(class name, end | prompt)`` of the training nodes, the next-token loss of the answer.

    The state of ``modules`` with the highest accuracy on ``split.val`` is kept, of ten looks evenly spaced; without
    validation nodes the last. The order of nodes comes from torch's current state.
    """
    optimiser = torch.optim.AdamW(parameters, lr, weight_decay=0.0)
    rounds = epochs * -(-split.train.numel() // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, rounds)
    best, kept = -1.0, None
    for epoch in range(epochs):
        for part in split.train[torch.randperm(split.train.numel())].split(batch):
            scores = lm.score_embeds(*prompts(part), labels)
            loss = -scores.gather(1, y[part].to(scores.device).unsqueeze(1)).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
        looks = (epoch + 1) * _EVALUATIONS // epochs > epoch * _EVALUATIONS // epochs
        if split.val.numel() and looks:
            found = answer_scores(lm, prompts, labels, split.val, batch).argmax(1)
            right = float((found == y[split.val]).double().mean())
            if right > best:
                best, kept = right, {name: copy.deepcopy(module.state_dict()) for name, module in modules.items()}
    for name, state in (kept or {}).items():
        modules[name].load_state_dict(state)
