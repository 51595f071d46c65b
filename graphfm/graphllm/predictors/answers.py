"""What predictors share: prompts with places for vectors, and training so that the right class name follows."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.data.splits import Split
from graphfm.graphllm.training import accuracy

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM

__all__ = [
    "Prompts",
    "Scores",
    "answer_scores",
    "frozen",
    "named",
    "pieces",
    "same_nodes",
    "step",
    "train_answers",
]

Prompts = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Nodes ``[B]`` to prompts, as embeddings ``[B, T, D]`` and a mask ``[B, T]`` with padding on the left."""

Scores = Callable[[Tensor], Tensor]
"""Nodes ``[B]`` to the log-likelihood ``[B, C]`` of each class as the answer."""

_EVALUATIONS = 10


def same_nodes(data: Data, fitted: int) -> None:
    """Refuse a graph of other nodes than those that something was learned about, one by one.

    Raises:
        ValueError: another number of nodes.
    """
    if data.num_nodes != fitted:
        raise ValueError(f"data has {data.num_nodes} nodes, it was fitted on {fitted}; predict on the same graph.")


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


def named(lm: CausalLM, prompts: Prompts, labels: Sequence[str]) -> Scores:
    """Answers are class names: the log-likelihood of each, and of the end after it, as what follows the prompt."""
    return lambda nodes: lm.score_embeds(*prompts(nodes), labels)


def answer_scores(scores: Scores, nodes: Tensor, batch: int) -> Tensor:
    """Log-likelihoods ``[n, C]`` at ``nodes`` ``[n]``, on the CPU, without gradients."""
    with torch.no_grad():
        return torch.cat([scores(part).float().cpu() for part in nodes.split(batch)])


def train_answers(
    modules: Mapping[str, nn.Module],
    scores: Scores,
    y: Tensor,
    split: Split,
    parameters: Sequence[nn.Parameter],
    *,
    lr: float,
    epochs: int,
    batch: int,
    beside: Callable[[], Tensor] | None = None,
) -> None:
    """AdamW on ``-log p(answer | prompt)`` of the training nodes.

    The state of ``modules`` with the highest accuracy on ``split.val`` is kept, of ten looks evenly spaced; without
    validation nodes the last. The order of nodes comes from torch's current state.

    Args:
        modules: whose state is kept, switched between training and evaluation.
        scores: where answers are class names, the loss is the next-token loss of the right one; where they are
            normalised over the classes, it is the cross-entropy.
        y: ``[N]`` labels.
        split: the parts.
        parameters: what is trained.
        lr: largest learning rate; it falls to zero as a cosine does.
        epochs: passes over the training nodes.
        batch: nodes a step.
        beside: one more loss a step, of another task.
    """
    optimiser = torch.optim.AdamW(parameters, lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * -(-split.train.numel() // batch))
    best, kept = -1.0, None
    for epoch in range(epochs):
        for module in modules.values():
            module.train()
        for part in split.train[torch.randperm(split.train.numel())].split(batch):
            told = scores(part)
            loss = -told.gather(1, y[part].to(told.device).unsqueeze(1)).mean()
            step(optimiser, parameters, loss if beside is None else loss + beside())
            schedule.step()
        for module in modules.values():
            module.eval()
        looks = (epoch + 1) * _EVALUATIONS // epochs > epoch * _EVALUATIONS // epochs
        if split.val.numel() and looks:
            right = accuracy(answer_scores(scores, split.val, batch), y[split.val], torch.arange(split.val.numel()))
            if right > best:
                best, kept = right, {name: copy.deepcopy(module.state_dict()) for name, module in modules.items()}
    for name, state in (kept or {}).items():
        modules[name].load_state_dict(state)


def step(optimiser: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], loss: Tensor) -> None:
    """Down the gradient of ``loss``, at most 1 long."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
