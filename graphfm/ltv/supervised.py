"""The loop that teaches trunk and head: mini-batches, one loss a horizon, stop where validation is best."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from graphfm.ltv.head_gradients import HeadGradients
from graphfm.ltv.heads import MonotoneHead, ZILNHead
from graphfm.ltv.inputs import Inputs
from graphfm.ltv.subsample import Subsample, draw
from graphfm.ltv.trunk import Trunk
from graphfm.ltv.ziln import ZILN
from graphfm.pareto import MGDAUB, Combined, Combiner, LossRange
from graphfm.pareto.combiner import GradientCombiner

__all__ = ["Labelled", "Network", "Settings", "importance", "losses_of", "train"]

_log = logging.getLogger(__name__)
_LONGEST = 10.0  # gradient; a batch with one huge payer shall not undo an epoch
_ROWS = 65536  # members that are judged at a time
_SOME = 10  # steps to one of which the facts are told: they cost a combiner that has the gradients a tenth of a step
FACTS = ("conflict_share", "min_cosine", "norm", "harmed", "stationarity")


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Members and what they pay: ``value`` ``[N, K]``."""

    inputs: Inputs
    value: Tensor

    def to(self, device: torch.device) -> Labelled:
        """The same on another device."""
        return Labelled(self.inputs.to(device), self.value.to(device))


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train: passes, passes without progress before the end, members a step, AdamW's options.

    ``non_payers`` is the share of the non-payers that a pass learns from, see :mod:`graphfm.ltv.subsample`.
    """

    epochs: int
    patience: int
    batch_size: int
    lr: float
    weight_decay: float
    non_payers: float = 1.0


class Network(nn.Module):
    """Trunk and head, for so many features."""

    def __init__(self, trunk: Trunk, head: MonotoneHead | ZILNHead, features: int) -> None:
        super().__init__()
        self.trunk, self.head, self.features = trunk, head, features

    def forward(self, x: Tensor, code: Tensor | None = None) -> ZILN:
        """Distributions ``[B, K]`` of features ``[B, F]``."""
        return self.head(self.trunk(x, code))


def train(
    network: Network, combiner: Combiner, data: Labelled, val: Labelled | None, settings: Settings, scale: LossRange
) -> dict[str, list[Any]]:
    """Train in place, on the device of the network, with torch's own generator.

    After each epoch the validation losses, weighed as :func:`importance` says, tell whether it was the best so far.
    The network ends with the weights of its best epoch; without validation, of the last one.

    Args:
        network: starts as it is.
        combiner: bound to K losses, or not yet.
        data: to learn from; a pass sees all who pay, and of the others ``settings.non_payers``, drawn anew.
        val: to stop by.
        settings: how.
        scale: of the losses.

    Returns:
        the history, one entry an epoch: ``train`` and ``val`` (losses ``[K]``), ``score`` (what is stopped by),
        ``weights`` ``[K]`` (mean over the steps), ``seconds``, and the facts of :class:`graphfm.pareto.Combined`: means
        over every tenth step where the combiner reads gradients, else of the first step; and once ``best``, an epoch.

    Raises:
        FloatingPointError: a loss that is not finite.
    """
    device = next(network.parameters()).device
    data, val = data.to(device), None if val is None else val.to(device)
    loop = _Loop(network, combiner, data, settings)
    counts = importance(combiner, scale)
    history: dict[str, list[Any]] = {}
    best, kept, since = math.inf, None, 0
    for epoch in range(settings.epochs):
        start = time.perf_counter()
        told = loop.one_epoch()
        judged = losses_of(network, val) if val is not None else torch.tensor(told["train"], dtype=torch.float64)
        score = float(counts @ judged)
        told |= {"val": judged.tolist() if val is not None else None, "score": score}
        told["seconds"] = time.perf_counter() - start
        for name, fact in told.items():
            history.setdefault(name, []).append(fact)
        _log.info("epoch %d: score %.5f", epoch + 1, score)
        since += 1
        if val is None or score < best:
            best, since, history["best"] = score, 0, [epoch]
            kept = None if val is None else copy.deepcopy(network.state_dict())
        if since >= settings.patience:
            break
    if kept is not None:
        network.load_state_dict(kept)
    return history


class _Loop:
    """Optimizer and order of one run."""

    def __init__(self, network: Network, combiner: Combiner, data: Labelled, settings: Settings) -> None:
        self.network, self.combiner, self.data, self.settings = network, combiner, data, settings
        combiner.bind(data.value.size(1))
        self.device = data.value.device
        combiner.to(self.device)
        # Rows of ZILNHead serve one horizon each; any other head may share its parameters, as the trunk does.
        parts = network.trunk if isinstance(network.head, ZILNHead) else network
        self.shared = [*parts.parameters()]
        groups = [
            {"params": [*network.parameters()], "weight_decay": settings.weight_decay},
            {"params": [*combiner.parameters()], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.lr, fused=True)

    def one_epoch(self) -> dict[str, Any]:
        """Every member (of a subsample) once; means over the steps."""
        self.network.train()
        members = len(self.data.inputs)
        sample = draw(self.data.value, self.settings.non_payers) if self.settings.non_payers < 1 else None
        order = torch.randperm(members if sample is None else len(sample.members), device=self.device)
        order = order if sample is None else sample.members[order]
        batches = order.tensor_split(-(-len(order) // self.settings.batch_size))
        total = torch.zeros(self.data.value.size(1), dtype=torch.float64)
        combined = []
        for step, chosen in enumerate(batches):
            each = _SOME if isinstance(self.combiner, GradientCombiner) else len(batches)
            losses, facts = self._step(chosen, sample, measure=step % each == 0)
            total += losses * len(chosen)
            combined.append(facts)
        return {"train": (total / len(order)).tolist(), **_means(combined)}

    def _step(self, chosen: Tensor, sample: Subsample | None, *, measure: bool) -> tuple[Tensor, Combined]:
        x, code = self.data.inputs.rows(chosen, self.device)
        z, value = self.network.trunk(x, code), self.data.value[chosen]
        weight, shift = (None, 0.0) if sample is None else (sample.weight[chosen] / len(chosen), sample.shift)
        if isinstance(self.combiner, MGDAUB) and isinstance(self.network.head, MonotoneHead | ZILNHead):
            in_z = HeadGradients(self.network.head, z, value, weight, shift)
            losses, more = in_z.losses, {"features": z, "known": in_z}
        else:
            each = self.network.head(z).shifted(shift).loss(value)
            losses = each.mean(dim=0) if weight is None else (weight * each).sum(dim=0)
            more = {"features": z} if isinstance(self.combiner, MGDAUB) else {}
        known = losses.detach().double().cpu()
        if not bool(torch.isfinite(known).all()):
            raise FloatingPointError(f"the loss of a batch is {known.tolist()}; lower lr, or look at the amounts.")
        self.optimizer.zero_grad(set_to_none=True)
        facts = self.combiner.backward(losses, shared=self.shared, measure=measure, **more)
        nn.utils.clip_grad_norm_(self.network.parameters(), _LONGEST)
        self.optimizer.step()
        return known, facts


@torch.no_grad()
def losses_of(network: Network, data: Labelled) -> Tensor:
    """Mean loss of each horizon, float64 ``[K]`` on the CPU."""
    network.eval()
    device, total = data.value.device, torch.zeros(data.value.size(1), dtype=torch.float64)
    for low in range(0, len(data.inputs), _ROWS):
        part = slice(low, low + _ROWS)
        total += network(*data.inputs.rows(part, device)).loss(data.value[part]).sum(dim=0).double().cpu()
    return total / len(data.inputs)


def importance(combiner: Combiner, scale: LossRange) -> Tensor:
    """What a unit of each loss counts in the score, float64 ``[K]``.

    Fixed weights count as they are given; otherwise losses are brought to one scale, and count by the combiner's
    preference, or alike: a plain sum would be that of the longest horizon, where most pay.
    """
    size = len(scale.ideal)
    fixed, preference = getattr(combiner, "fixed", None), getattr(combiner, "preference", None)
    if fixed is not None:
        return torch.tensor(fixed, dtype=torch.float64)
    wanted = torch.full((size,), 1 / size) if preference is None else torch.tensor(preference)
    return wanted.double() / scale.scale(wanted.double())


def _means(combined: list[Combined]) -> dict[str, Any]:
    found: dict[str, Any] = {"weights": torch.stack([c.weights.double().cpu() for c in combined]).mean(0).tolist()}
    for name in FACTS:
        values = [getattr(c, name) for c in combined if getattr(c, name) is not None]
        found[name] = math.fsum(values) / len(values) if values else None
    return found
