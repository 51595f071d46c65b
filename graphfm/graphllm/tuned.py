"""Encoders whose weights are trained: a copy, of which a part is, and a loop over batches of texts."""

from __future__ import annotations

import copy
import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graphfm.adapters import LoRA, attach

if TYPE_CHECKING:
    from graphfm.graphllm.backends.sentence import SentenceEncoder

__all__ = ["device_of", "embed", "fit_batches", "tuned_copy"]

# Queries and values of attention, as BERT's kin, DistilBERT, most causal models and MPNet name them.
_QUERY_VALUE = (("query", "value"), ("q_lin", "v_lin"), ("q_proj", "v_proj"), ("q", "v"))


def tuned_copy(
    encoder: SentenceEncoder,
    *,
    layers: int | None = None,
    rank: int | None = None,
    alpha: float | None = None,
    dropout: float | None = None,
    seed: int = 0,
) -> SentenceEncoder:
    """A copy of an encoder of which a part is trained; what is given stays as it was.

    Without ``layers`` and ``rank`` all weights are trained that have a part in its vectors (a pooler has none).

    Args:
        encoder: an encoder with ``model``, ``embed`` (with gradients) and ``encode``.
        layers: train the last layers alone, that many.
        rank: freeze all weights and train LoRA of that rank on queries and values of every layer
            (:class:`graphfm.adapters.LoRA`).
        alpha: LoRA's scale; twice the rank if not given.
        dropout: rate of all dropout in it; as it is if not given. It acts in training alone.
        seed: of LoRA's random start.

    Raises:
        ValueError: both ``layers`` and ``rank``, more layers than there are, or no queries and values to be found.
    """
    if layers is not None and rank is not None:
        raise ValueError(f"give layers or rank, not both; got {layers} and {rank}.")
    found = copy.deepcopy(encoder)
    # No cache may take its vectors for those of what was given, or of another copy.
    found.name = f"{getattr(encoder, 'name', 'encoder')} tuned {uuid.uuid4().hex}"
    if dropout is not None:
        for module in found.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
    if rank is not None:
        adapter = LoRA(rank=rank, alpha=2.0 * rank if alpha is None else alpha)
        attach(found.model, adapter, _queries_and_values(found.model), seed=seed)
        return found
    found.model.requires_grad_(layers is None)
    for layer in [] if layers is None else _last(found.model, layers):
        layer.requires_grad_(True)
    for name, module in found.model.named_modules():
        if name.rpartition(".")[2] == "pooler":
            module.requires_grad_(False)
    return found


def embed(encoder: SentenceEncoder, texts: Sequence[str]) -> Tensor:
    """Vectors ``[N, D]`` with gradients, zeros for a text without a word, as ``encode`` has it."""
    full = torch.tensor([bool(text.strip()) for text in texts])
    found = encoder.embed(texts)
    return torch.where(full.to(found.device).unsqueeze(1), found, torch.zeros_like(found))


def device_of(encoder: SentenceEncoder) -> torch.device:
    """Where an encoder's weights are."""
    return next(encoder.model.parameters()).device


def fit_batches(
    modules: Sequence[nn.Module],
    groups: Iterable[dict[str, Any]],
    loss: Callable[[Tensor], Tensor],
    nodes: Tensor,
    *,
    batch: int,
    epochs: int,
    validate: Callable[[], tuple[float, float]] | None = None,
    patience: int = 2,
) -> None:
    """AdamW over shuffled batches of ``nodes`` ``[M]``, in place; gradients are kept to norm 1.

    Learning rates rise over the first tenth of the steps and fall to zero in a line, as is usual where a BERT is tuned.

    With ``validate``, the trained weights with the highest score are kept, and training ends after ``patience``
    passes without a better one; without, the last are kept. Order is drawn from torch's current state.

    Args:
        modules: switched between training and evaluation.
        groups: parameters, each group with its learning rate.
        loss: of the nodes ``[B]`` of a batch.
        nodes: what is passed over.
        batch: nodes a step.
        epochs: passes, at most.
        validate: gives a score, larger is better; called in evaluation mode without gradients.
        patience: passes.
    """
    optimiser = torch.optim.AdamW(list(groups), fused=True)
    total = max(1, epochs * math.ceil(nodes.numel() / batch))
    warm = max(1, total // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: (step + 1) / warm if step < warm else (total - step) / max(1, total - warm)
    )
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    best, kept, waited = (-1.0, -torch.inf), None, 0
    for _ in range(epochs):
        _mode(modules, training=True)
        for part in nodes[torch.randperm(nodes.numel())].split(batch) if nodes.numel() else ():
            optimiser.zero_grad(set_to_none=True)
            loss(part).backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
        _mode(modules, training=False)
        if validate is None:
            continue
        with torch.no_grad():
            score = validate()
        if score > best:
            best, kept, waited = score, [parameter.detach().clone() for parameter in trained], 0
        else:
            waited += 1
        if waited >= patience:
            break
    if kept is not None:
        with torch.no_grad():
            for parameter, value in zip(trained, kept, strict=True):
                parameter.copy_(value)


def _mode(modules: Sequence[nn.Module], *, training: bool) -> None:
    for module in modules:
        module.train(training)


def _queries_and_values(model: nn.Module) -> list[str]:
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for pair in _QUERY_VALUE:
        found = [name for name in names if name.rpartition(".")[2] in pair]
        if found:
            return found
    raise ValueError(f"the encoder has no linear layers called {' or '.join(str(pair) for pair in _QUERY_VALUE)}.")


def _last(model: nn.Module, number: int) -> list[nn.Module]:
    """The last ``number`` of the encoder's layers: of its longest list of modules."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    stack = max(stacks, key=len) if stacks else nn.ModuleList()
    if not 1 <= number <= len(stack):
        raise ValueError(f"layers must be in [1, {len(stack)}], the layers of the encoder, got {number}.")
    return list(stack)[-number:]
