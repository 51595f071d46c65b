"""One short loop for networks on one graph: cross-entropy, the state that is best on validation nodes is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphfm.data.splits import Split

__all__ = ["accuracy", "train_nodes", "validation_score"]


def accuracy(scores: Tensor, y: Tensor, nodes: Tensor) -> float:
    """Share of ``nodes`` whose highest score is their label."""
    return float((scores[nodes].argmax(1) == y[nodes]).double().mean())


def train_nodes(
    module: nn.Module,
    logits: Callable[[], Tensor],
    y: Tensor,
    split: Split,
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    weight_decay: float,
    epochs: int,
    evaluated: Callable[[], Tensor] | None = None,
) -> None:
    """Full-batch Adam on the cross-entropy of ``split.train``, in place.

    The state with the highest accuracy on ``split.val`` is kept, of equals the one with the lowest loss there; one
    state for all metrics. Without validation nodes it is the last. Test labels are not looked at.

    Args:
        module: what is switched between training and evaluation, and whose state is kept.
        logits: gives ``[N, C]``, or a smaller set of rows with ``y`` and ``split`` counted the same way.
        y: ``[N]`` labels, on the device of the logits.
        split: on the CPU or there.
        parameters: what is trained.
        lr: learning rate.
        weight_decay: of Adam (added to the gradient, as in the classical GNN papers).
        epochs: steps.
        evaluated: gives ``[N, C]`` for validation; ``logits`` in evaluation mode if not given.
    """
    train, val = split.train.to(y.device), split.val.to(y.device)
    optimiser = torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay)
    best, kept = (-1.0, -torch.inf), None
    for _ in range(epochs):
        module.train()
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(logits()[train], y[train]).backward()
        optimiser.step()
        if val.numel():
            score = _score(module, evaluated or logits, y, val)
            if score > best:
                best, kept = score, copy.deepcopy(module.state_dict())
    if kept is not None:
        module.load_state_dict(kept)
    module.eval()


def validation_score(logits: Tensor, y: Tensor) -> tuple[float, float]:
    """Accuracy and negative loss of ``[M, C]`` logits under labels ``[M]``: of equal accuracies the lower loss wins."""
    right = float((logits.argmax(1) == y).double().mean())
    return right, -float(F.cross_entropy(logits, y))


@torch.no_grad()
def _score(module: nn.Module, logits: Callable[[], Tensor], y: Tensor, val: Tensor) -> tuple[float, float]:
    """Of the validation nodes, in evaluation mode."""
    module.eval()
    return validation_score(logits()[val], y[val])
