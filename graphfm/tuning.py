"""The training loop of adaptation: a head on frozen embeddings, then whatever is not frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.data.splits import Split
from graphfm.fitted import Fitted
from graphfm.heads import LinearHead, fit_logistic
from graphfm.inputs import Inputs
from graphfm.prompts.base import Prompt
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
    if isinstance(fitted.head, LinearHead):
        fit_logistic(fitted.head, z, target.y_train)
    else:
        fitted.head.fit(z, target.y_train)


def finetune(fitted: Fitted, target: Target, epochs: int, lr: float, weight_decay: float, structure: float) -> None:
    """Train what is not frozen, by the head's own loss and the prompt's own loop where they have one."""
    inputs, read = fitted.readout.of(target.train, target.inputs, reach_of(fitted.backbone))
    modules = nn.ModuleList(_modules(fitted))
    moving = trained(fitted, "finetune")
    refit = _refitting(fitted, inputs, read, target.y_train)
    keep_best = _best_on_validation(fitted, target, modules, moving, refit) if target.val.numel() else None
    score: Any = getattr(fitted.head, "loss", None)

    def loss() -> Tensor:
        h = inputs.embed(fitted.backbone)
        z = read(h)
        found = F.cross_entropy(fitted.head(z), target.y_train) if score is None else score(z, target.y_train)
        if structure:
            if refit is not None:  # scores of other rows go by what was fitted
                refit()
            everywhere = fitted.head(cast(Readout, fitted.readout)(h, inputs.x, inputs.adj))
            found = found + structure * structure_loss(everywhere, inputs.adj)
        return found

    modules.train()
    own: Any = getattr(fitted.prompt, "fit", None)
    if own is None:
        _descend(fitted, loss, moving, epochs, lr, weight_decay, keep_best)
    elif epochs:
        apart = {id(p) for p in cast(Prompt, fitted.prompt).parameters()}
        others = nn.ParameterList(p for p in moving if id(p) not in apart)
        own(others, loss, epochs=epochs, lr=lr, weight_decay=weight_decay, after=keep_best)
    if keep_best is not None:
        keep_best(restore=True)
    modules.eval()
    if refit is not None:
        refit()


def _descend(
    fitted: Fitted,
    loss: Callable[[], Tensor],
    moving: list[nn.Parameter],
    epochs: int,
    lr: float,
    weight_decay: float,
    after: Callable[[], None] | None,
) -> None:
    optimizer = torch.optim.Adam(moving, lr=lr, weight_decay=weight_decay, fused=True)
    penalty: Any = getattr(fitted.backbone, "penalty", None)
    for _ in range(epochs):
        optimizer.zero_grad(set_to_none=True)
        value = loss() + penalty() if callable(penalty) else loss()
        value.backward()
        optimizer.step()
        if after is not None:
            after()


def _modules(fitted: Fitted) -> list[nn.Module]:
    """What fine-tuning may train, all of it or the part that is not frozen."""
    prompts = [fitted.coordinators] if isinstance(fitted.coordinators, TokenPrompts) else []
    return [fitted.backbone, fitted.head, *prompts]


def trained(fitted: Fitted, method: str) -> list[nn.Parameter]:
    """The parameters that a method moves."""
    modules = _modules(fitted) if method == "finetune" else [fitted.head]
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def reach_of(network: nn.Module) -> int | None:
    """How many steps of the graph a node's embedding depends on; ``None`` where the network does not say."""
    return getattr(network, "num_hops", None)


def _best_on_validation(
    fitted: Fitted,
    target: Target,
    modules: nn.Module,
    moving: list[nn.Parameter],
    refit: Callable[[], None] | None,
) -> Callable[..., None]:
    """Remember what is trained, at the step with the least validation loss; put it back in the end.

    Not the state_dict: an adapter keeps its parameters out of it.
    """
    inputs, read = fitted.readout.of(target.val, target.inputs, reach_of(fitted.backbone))
    seen = fitted.head.seen[target.y_val]
    moved: list[Tensor] = [*moving, *modules.buffers()]
    best: dict[str, Any] = {"loss": torch.inf, "state": []}

    @torch.no_grad()
    def keep(*, restore: bool = False) -> None:
        if restore:
            for tensor, kept in zip(moved, best["state"], strict=bool(best["state"])):
                tensor.copy_(kept)
            return
        modules.eval()
        before = [buffer.clone() for buffer in fitted.head.buffers()]
        if refit is not None:
            refit()
        scores = fitted.head(read(inputs.embed(fitted.backbone))[seen])
        loss = float(F.cross_entropy(scores, target.y_val[seen])) if bool(seen.any()) else 0.0
        modules.train()
        if loss < best["loss"]:
            best["loss"], best["state"] = loss, [tensor.detach().clone() for tensor in moved]
        for buffer, value in zip(fitted.head.buffers(), before, strict=True):
            buffer.copy_(value)

    return keep


def _refitting(
    fitted: Fitted, inputs: Inputs, read: Callable[[Tensor], Tensor], y: Tensor
) -> Callable[[], None] | None:
    """Fits a prompt's own head to the labelled rows as the network is now; ``None`` where the head is another."""
    head: Any = fitted.head
    if not hasattr(head, "loss"):
        return None

    @torch.no_grad()
    def refit() -> None:
        head.fit(read(inputs.embed(fitted.backbone)), y)

    return refit
