"""The training loop of adaptation, to nodes, links and graphs alike, and what classification adds to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphfm.heads import LinearHead, fit_logistic

__all__ = ["Lesson", "fit_head", "numbers", "train"]


def train(
    modules: Sequence[nn.Module],
    loss: Callable[[], Tensor],
    *,
    epochs: int,
    lr: float,
    weight_decay: float,
    validate: Callable[[], float] | None = None,
) -> None:
    """Adam on everything that requires a gradient, or the loop that a prompt among the modules brings along.

    Ends with the weights of the least validation loss, if there is one.

    Args:
        modules: in training mode for ``loss``, in evaluation mode for ``validate`` and afterwards.
        loss: of one step; what modules give as ``penalty()`` is added.
        epochs: steps.
        lr: learning rate.
        weight_decay: L2 strength.
        validate: looked at before the first step and after each.

    Raises:
        ValueError: nothing to train, or a loss that is not finite.
    """
    whole = nn.ModuleList(modules)
    moving = [p for p in whole.parameters() if p.requires_grad]
    if not moving:
        raise ValueError("nothing of the network requires a gradient: there is nothing to train.")
    best = _Best(whole, moving, validate)
    prompts: list[Any] = [prompt for module in modules if hasattr(prompt := getattr(module, "prompt", None), "fit")]
    whole.train()
    if prompts:
        apart = {id(p) for p in prompts[0].parameters()}
        others = nn.ParameterList(p for p in moving if id(p) not in apart)
        prompts[0].fit(others, loss, epochs=epochs, lr=lr, weight_decay=weight_decay, after=best.look)
    else:
        _descend(modules, moving, loss, epochs, lr, weight_decay, best.look)
    best.restore()
    whole.eval()


def _descend(
    modules: Sequence[nn.Module],
    moving: list[nn.Parameter],
    loss: Callable[[], Tensor],
    epochs: int,
    lr: float,
    weight_decay: float,
    after: Callable[[], None],
) -> None:
    penalties: list[Any] = [p for module in modules if callable(p := getattr(module, "penalty", None))]
    optimizer = torch.optim.Adam(moving, lr=lr, weight_decay=weight_decay, fused=True)
    for step in range(epochs):
        optimizer.zero_grad(set_to_none=True)
        value = sum((penalty() for penalty in penalties), loss())
        if not bool(torch.isfinite(value)):
            raise ValueError(f"the loss is {float(value):.4g} at step {step + 1} of {epochs}; lower lr ({lr}).")
        value.backward()
        optimizer.step()
        after()


class _Best:
    """The trained parameters (and buffers) of the step with the least validation loss.

    Not the state_dict: adapters keep their parameters out of it.
    """

    def __init__(self, whole: nn.Module, moving: list[nn.Parameter], validate: Callable[[], float] | None) -> None:
        self.whole, self.validate = whole, validate
        self.tensors: list[Tensor] = [*moving, *whole.buffers()]
        self.loss = torch.inf
        self.kept: list[Tensor] = []
        self.look()

    def look(self) -> None:
        if self.validate is None:
            return
        self.whole.eval()
        with torch.no_grad():
            loss = self.validate()
        self.whole.train()
        if loss < self.loss or not self.kept:
            self.loss, self.kept = loss, [t.detach().clone() for t in self.tensors]

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, kept in zip(self.tensors, self.kept, strict=bool(self.kept)):
            tensor.copy_(kept)


class Lesson:
    """Labelled rows that a head is trained on, by its own loss where it has one.

    Args:
        head: from rows to class scores.
        rows: computes the rows ``[T, D]`` as the network is now.
        y: ``[T]`` their classes.
    """

    def __init__(self, head: nn.Module, rows: Callable[[], Tensor], y: Tensor) -> None:
        self.head: Any = head
        self.rows, self.y = rows, y
        self.is_own = hasattr(head, "loss")

    def loss(self, z: Tensor | None = None) -> Tensor:
        """Of the rows, computed anew unless given; a scalar."""
        z = self.rows() if z is None else z
        return self.head.loss(z, self.y) if self.is_own else F.cross_entropy(self.head(z), self.y)

    @torch.no_grad()
    def refit(self) -> None:
        """Fit a head with a loss of its own to the rows as the network is now; others are trained by the steps."""
        if self.is_own:
            self.head.fit(self.rows(), self.y)

    def validation(self, rows: Callable[[], Tensor], y: Tensor) -> Callable[[], float] | None:
        """The cross-entropy of other rows, of classes that were seen; the head is left as it was.

        ``None`` where there are no such rows: they can choose no step.
        """
        seen = torch.isin(y, self.y)
        if not bool(seen.any()):
            return None

        def validate() -> float:
            before = [buffer.clone() for buffer in self.head.buffers()]
            self.refit()
            found = float(F.cross_entropy(self.head(rows()[seen]), y[seen]))
            for buffer, value in zip(self.head.buffers(), before, strict=True):
                buffer.copy_(value)
            return found

        return validate


def fit_head(head: nn.Module, z: Tensor, y: Tensor) -> None:
    """Fit a head to labelled rows ``[T, D]`` of classes ``[T]``: in closed form, or to convergence."""
    if isinstance(head, LinearHead):
        fit_logistic(head, z, y)
    else:
        fitted: Any = head
        fitted.fit(z, y)


def numbers(modules: Iterable[nn.Module]) -> int:
    """How many numbers are trained, for the card of a fitted model."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
