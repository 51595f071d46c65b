"""Carry a pretrained backbone to a target graph with few labels."""

from __future__ import annotations

import copy
import time
from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.beside import check_meant_for, put
from graphfm.coordinators import Coordinators
from graphfm.data.checks import check_graph, check_labels
from graphfm.data.splits import Split
from graphfm.device import as_device
from graphfm.egos import EgoReadout, Egos
from graphfm.fitted import Fitted
from graphfm.fitting import numbers
from graphfm.heads import LinearHead, PrototypeHead
from graphfm.methods import METHODS, Adapter, Recipe, combined
from graphfm.pretrained import Pretrained
from graphfm.prompts.base import Prompt
from graphfm.readout import Readout
from graphfm.rng import isolated_rng
from graphfm.tokens import TokenPrompts, Tokens
from graphfm.tuning import Target, finetune, fit_frozen, trained

__all__ = ["METHODS", "PROTOCOLS", "adapt"]

PROTOCOLS = ("honest", "paper")


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
    split.check(int(data.num_nodes), y)
    if protocol == "paper":
        if recipe.adapter is not None or recipe.prompt is not None:
            raise ValueError("protocol='paper' has no adapters or prompts; use protocol='honest'.")
        from graphfm.paper import adapt_as_published

        return adapt_as_published(
            pretrained, data, split, method=method, seed=seed, device=device, epochs=epochs, lr=lr
        )
    check_meant_for(recipe.prompt, pretrained.card)
    where = as_device(device)
    started = time.perf_counter()
    with isolated_rng(seed, where):
        fitted = _prepare(pretrained, data, int(y.max()) + 1, recipe.method, hops, skip, where, ego, seed)
        if carry:
            fitted.coordinators = _carried(pretrained, where, ego)
        target = Target(fitted, data, split, y, where)
        _freeze(fitted, recipe, seed, pretrained.pretext)
        fit_frozen(fitted, target)
        if recipe.method == "finetune":
            finetune(fitted, target, epochs, lr, weight_decay, structure)
    fitted.card |= {
        "method": recipe.name if method == "finetune" else method,
        "seed": seed,
        "train_nodes": split.train.numel(),
        "trained_parameters": numbers(trained(fitted, recipe.method)),
        "seconds": time.perf_counter() - started,
    } | ({} if ego is None else {"ego": repr(ego)})
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


def _carried(pretrained: Pretrained, device: torch.device, ego: Egos | None) -> Coordinators | TokenPrompts:
    if pretrained.coordinators is None:
        raise ValueError("carry=True needs a model that was pretrained with coordinators; this one has none.")
    if isinstance(pretrained.coordinators, Tokens):
        return TokenPrompts.of(pretrained.coordinators).to(device)
    if ego is not None:
        raise ValueError("carry=True joins coordinators to the whole graph: not with ego graphs.")
    return copy.deepcopy(pretrained.coordinators).to("cpu")


def _freeze(fitted: Fitted, recipe: Recipe, seed: int, pretext: list[Tensor] | None) -> None:
    """Freeze the backbone where an adapter or a prompt is trained in its place, and put these in theirs."""
    if recipe.adapter is None and recipe.prompt is None:
        return
    device = next(fitted.backbone.parameters()).device
    fitted.backbone, adapted = put(fitted.backbone, recipe, seed, pretext)
    if recipe.adapter is not None:
        fitted.card["adapted"] = adapted
    prompt = fitted.prompt
    head: Any = None if prompt is None else prompt.head(fitted.num_classes)
    if head is not None:
        # Such a head compares what the prompt reads out, as it comes, with means or tokens of the same space.
        fitted.readout = fitted.readout.bare(cast(int, fitted.backbone.out_channels)).to(device)
        fitted.head = head.to(device)
