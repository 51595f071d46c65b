"""Adaptation to the nodes of one graph: a head on frozen embeddings, then whatever is not frozen."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.data.splits import Split
from graphfm.fitted import Fitted
from graphfm.fitting import Lesson, fit_head, train
from graphfm.readout import Readout
from graphfm.structure import structure_loss
from graphfm.tokens import TokenPrompts

__all__ = ["Target", "finetune", "fit_frozen", "trained"]


class Target:
    """The target graph as the backbone sees it, and whose labels may be used."""

    def __init__(self, fitted: Fitted, data: Data, split: Split, y: Tensor, device: torch.device) -> None:
        self.inputs = fitted.inputs(data)
        self.train, self.val = split.train.to(device), split.val.to(device)
        self.y_train, self.y_val = y.to(device)[self.train], y.to(device)[self.val]


@torch.no_grad()
def fit_frozen(fitted: Fitted, target: Target) -> None:
    """Fit the head to the labelled rows as the network is: before anything is trained, or instead of it."""
    z = fitted.readout.begin(fitted.backbone.eval(), target.inputs, target.train)
    fit_head(fitted.head, z, target.y_train)


def finetune(fitted: Fitted, target: Target, epochs: int, lr: float, weight_decay: float, structure: float) -> None:
    """Train what is not frozen, by the head's own loss and the prompt's own loop where they have one."""
    network, head = fitted.backbone, fitted.head
    reach = getattr(network, "num_hops", None)
    part, read = fitted.readout.of(target.train, target.inputs, reach)
    lesson = Lesson(head, lambda: read(part.embed(network)), target.y_train)

    def with_structure() -> Tensor:
        h = part.embed(network)
        found = lesson.loss(read(h))
        lesson.refit()  # scores of other rows go by what was fitted
        everywhere = head(cast(Readout, fitted.readout)(h, part.x, part.adj))
        return found + structure * structure_loss(everywhere, part.adj)

    validate = None
    if target.val.numel():
        near, look = fitted.readout.of(target.val, target.inputs, reach)
        validate = lesson.validation(lambda: look(near.embed(network)), target.y_val)
    loss = with_structure if structure else lesson.loss
    train(trained(fitted, "finetune"), loss, epochs=epochs, lr=lr, weight_decay=weight_decay, validate=validate)
    lesson.refit()


def trained(fitted: Fitted, method: str) -> list[nn.Module]:
    """What a method may train, all of it or the part that is not frozen."""
    if method != "finetune":
        return [fitted.head]
    prompts = [fitted.coordinators] if isinstance(fitted.coordinators, TokenPrompts) else []
    return [fitted.backbone, fitted.head, *prompts]
