"""Carry a pretrained backbone to a target graph with few labels."""

from __future__ import annotations

import copy
import logging
import time
from typing import Any, cast

import torch
from torch_geometric.data import Data

from graphfm.adapters.attach import attach
from graphfm.adapters.handle import Handle
from graphfm.adapters.method import Method
from graphfm.coordinators import Coordinators
from graphfm.data.checks import check_graph, check_labels
from graphfm.data.splits import Split
from graphfm.device import as_device
from graphfm.egos import EgoReadout, Egos
from graphfm.fitted import Fitted
from graphfm.foreign import bare_backbone
from graphfm.heads import LinearHead, PrototypeHead
from graphfm.methods import METHODS, Adapter, Recipe, combined
from graphfm.pretrained import Pretrained
from graphfm.prompts.base import Prompt
from graphfm.prompts.prompted import prompted
from graphfm.readout import Readout
from graphfm.rng import isolated_rng
from graphfm.tokens import TokenPrompts, Tokens
from graphfm.tuning import Target, finetune, fit_frozen, trained

__all__ = ["METHODS", "PROTOCOLS", "adapt"]

PROTOCOLS = ("honest", "paper")

_log = logging.getLogger(__name__)


def adapt(
    pretrained: Pretrained,
    data: Data,
    split: Split,
    *,
    method: str = "finetune",
    adapter: Adapter | None = None,
    prompt: Prompt | None = None,
    seed: int,
    device: torch.device | str | None = None,
    ego: Egos | None = None,
    hops: int = 2,
    skip: bool = True,
    carry: bool = False,
    epochs: int = 50,
    lr: float = 1e-3,
    weight_decay: float = 5e-4,
    structure: float = 0.0,
    protocol: str = "honest",
) -> Fitted:
    """Fit a copy of the backbone and a head to the labelled nodes of ``data``; ``pretrained`` stays as it is.

    The setting is transductive: features and edges of all nodes of ``data`` are used (for the feature projection and in
    message passing), labels only of ``split.train``, and of ``split.val`` to choose the step to keep when there is one.

    Args:
        pretrained: what :func:`graphfm.pretrain` returned.
        data: the target graph with class labels ``y`` ``[N]`` (negative where unknown).
        split: whose labels may be used; see :func:`graphfm.few_shot`.
        method: ``"probe"`` (frozen weights, logistic regression), ``"finetune"`` (the probe first, then all weights:
            2202.10054 shows why in this order) or ``"prototype"`` (frozen weights, cosine to class means); or
            ``"adapter:LoRA(rank=8)"``, ``"prompt:GPF(k=5)"``, or both joined by ``+`` (:func:`graphfm.methods.parse`).
        adapter: such as ``LoRA(rank=8)``: the backbone is frozen, normalisation statistics included, and this is
            trained beside the head, as fine-tuning would the weights. It goes beside every weight that it fits; for
            targets of your own give a function, ``lambda network: attach(network, LoRA(4), "convs.*")``.
        prompt: such as ``GPF()``: likewise, in front of the frozen backbone; both together are allowed. One that
            prescribes a head (:meth:`graphfm.prompts.Prompt.head`) gets that, on what it reads out, and its loss:
            ``hops`` and ``skip`` are ours alone. One with a loop of its own is trained by that.
        seed: of head, adapter and dropout.
        device: where to train and predict; the CPU by default.
        ego: read each node from the ego graph around it, cut out and run by itself, not from the whole graph; such as
            ``Egos(hops=2)``. ``hops`` has no meaning then.
        hops: neighbourhood averages that the head sees beside the embedding (:class:`graphfm.readout.Readout`).
        skip: let the head see the unified features beside the embedding.
        carry: join the target to the coordinators of the sources, by one of its own, instead of leaving them behind
            as GCOPE does; of a model with tokens, begin with their mixture and a token of the target's own, which
            fine-tuning trains (:class:`graphfm.tokens.TokenPrompts`).
        epochs: steps of fine-tuning; fixed unless there is a validation part.
        lr: learning rate of fine-tuning.
        weight_decay: of fine-tuning; an adapter's pulls it back to the pretrained network.
        structure: weight of GraphLoRA's regularisation (:func:`graphfm.structure.structure_loss`) in the loss.
        protocol: ``"honest"``, or ``"paper"`` for GCOPE's published protocol, which reads labels of test nodes
            (see :mod:`graphfm.paper`).

    Raises:
        ValueError: a bad graph, split or option.
    """
    recipe = combined(method, adapter, prompt)
    if structure < 0:
        raise ValueError(f"structure must not be negative, got {structure}.")
    if structure and recipe.method != "finetune":
        raise ValueError(f"structure goes into a loss; {method} has no loss of its own to train by.")
    if ego is not None and (structure or protocol == "paper"):
        raise ValueError("ego graphs go neither with structure > 0, which needs all nodes, nor with protocol='paper'.")
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {PROTOCOLS}, got {protocol!r}.")
    check_graph(data, "data", features=False)
    y = check_labels(data.y)
    split.check(int(data.num_nodes))
    if bool((y[split.train] < 0).any()):
        raise ValueError("split.train holds nodes whose label is unknown (negative).")
    if protocol == "paper":
        if recipe.adapter is not None or recipe.prompt is not None:
            raise ValueError("protocol='paper' has no adapters or prompts; use protocol='honest'.")
        from graphfm.paper import adapt_as_published

        return adapt_as_published(
            pretrained, data, split, method=method, seed=seed, device=device, epochs=epochs, lr=lr
        )
    if recipe.prompt is not None:
        _check_meant_for(recipe.prompt, pretrained.card)
    where = as_device(device)
    started = time.perf_counter()
    with isolated_rng(seed, where):
        fitted = _prepare(pretrained, data, int(y.max()) + 1, recipe.method, hops, skip, where, ego, seed)
        if carry:
            fitted.coordinators = _carried(pretrained, where)
            if ego is not None and isinstance(fitted.coordinators, Coordinators):
                raise ValueError("carry=True joins coordinators to the whole graph: not with ego graphs.")
        target = Target(fitted, data, split, y, where)
        _freeze(fitted, recipe, seed)
        fit_frozen(fitted, target)
        if recipe.method == "finetune":
            finetune(fitted, target, epochs, lr, weight_decay, structure)
    fitted.card |= {
        "method": recipe.name if method == "finetune" else method,
        "seed": seed,
        "train_nodes": split.train.numel(),
        **({} if ego is None else {"ego": repr(ego)}),
        "trained_parameters": sum(p.numel() for p in trained(fitted, recipe.method)),
        "seconds": time.perf_counter() - started,
    }
    return fitted


def _prepare(
    pretrained: Pretrained,
    data: Data,
    classes: int,
    method: str,
    hops: int,
    skip: bool,
    device: torch.device,
    ego: Egos | None,
    seed: int,
) -> Fitted:
    backbone = copy.deepcopy(pretrained.backbone).to(device)
    projection = pretrained.unifier.projection(data)
    channels, beside = cast(int, backbone.out_channels), projection.dim if skip else 0
    readout: Readout | EgoReadout = Readout(channels, hops, beside)
    if ego is not None:
        readout = EgoReadout(channels, ego.hops, ego.at_most, ego.pool, beside, seed=seed)
    width = readout.out_channels
    head: LinearHead | PrototypeHead = (
        PrototypeHead(width, classes) if method == "prototype" else LinearHead(width, classes)
    )
    card: dict[str, Any] = {"target": str(data.get("name", ""))}
    return Fitted(backbone, projection, readout.to(device), head.to(device), classes, card)


def _carried(pretrained: Pretrained, device: torch.device) -> Coordinators | TokenPrompts:
    if pretrained.coordinators is None:
        raise ValueError("carry=True needs a model that was pretrained with coordinators; this one has none.")
    if isinstance(pretrained.coordinators, Tokens):
        return TokenPrompts.of(pretrained.coordinators).to(device)
    return copy.deepcopy(pretrained.coordinators).to("cpu")


def _freeze(fitted: Fitted, recipe: Recipe, seed: int) -> None:
    """Freeze the backbone where an adapter or a prompt is trained in its place, and put these in theirs."""
    network = bare_backbone(fitted.backbone)
    if isinstance(recipe.adapter, Method):
        handle = attach(network, recipe.adapter, misfits="skip", seed=seed)
    elif recipe.adapter is not None:
        handle = recipe.adapter(network)
        if not isinstance(handle, Handle):
            raise TypeError(f"adapter: the function must return the handle that attach gave it, got {handle!r}.")
    if recipe.adapter is not None:
        fitted.card["adapted"] = sorted(handle.changes())
    if recipe.prompt is not None:
        _put_before(fitted, copy.deepcopy(recipe.prompt), freeze=recipe.adapter is None)


def _put_before(fitted: Fitted, prompt: Prompt, *, freeze: bool) -> None:
    """Put the prompt before the network and, where it prescribes a head, that in the place of ours."""
    device = next(fitted.backbone.parameters()).device
    fitted.backbone = under = prompted(fitted.backbone, prompt, freeze=freeze)
    head: Any = prompt.head(fitted.num_classes)
    if head is not None:
        # Such a head compares what the prompt reads out, as it comes, with means or tokens of the same space.
        fitted.readout = fitted.readout.bare(under.out_channels).to(device)
        fitted.head = head.to(device)


def _check_meant_for(prompt: Prompt, card: dict[str, Any]) -> None:
    """Warn where the card tells of a pretraining that the prompt is not meant for; a card may tell nothing."""
    wanted, objective = getattr(prompt, "meant_for", ()), card.get("objective")
    tasks = [task.split(" ")[0] for task in card.get("history", {}).get("tasks", {})]
    if wanted and objective is not None and not {objective, *tasks} & set(wanted):
        name, known = type(prompt).__name__, " or ".join(wanted)
        _log.warning("%s is meant for a model pretrained by %s; this one was by %s", name, known, objective)
