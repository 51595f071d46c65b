"""Put a trained classifier to use for a target with other classes, by a prompt and a map between the classes."""

from __future__ import annotations

import copy
import time

import torch
from torch_geometric.data import Data

from graphfm.data.checks import check_graph, check_labels
from graphfm.data.features import Unifier
from graphfm.data.splits import Split
from graphfm.device import as_device
from graphfm.fitted import Fitted
from graphfm.fitting import numbers
from graphfm.heads import LinearHead, PrototypeHead
from graphfm.prompts.base import Prompt
from graphfm.prompts.label_mapping import Reprogrammed
from graphfm.prompts.prompted import prompted
from graphfm.rng import isolated_rng
from graphfm.tuning import Target, finetune, fit_frozen, trained

__all__ = ["reprogram"]


def reprogram(
    source: Fitted,
    data: Data,
    split: Split,
    *,
    prompt: Prompt | None = None,
    unifier: Unifier | None = None,
    seed: int,
    device: torch.device | str | None = None,
    epochs: int = 50,
    lr: float = 1e-2,
    weight_decay: float = 5e-4,
) -> Fitted:
    """Read a classifier's scores as those of other classes, and train a prompt before it; ``source`` stays as it is.

    Iterative label mapping (Chen et al., 2211.11635): each target class is read at one source class, no two at the
    same, by how often labelled nodes fall into it; the prompt is trained under the map, which follows it step by step.
    Network and head are frozen: nothing but the prompt is learned. What the head reads is centred on the target anew.

    Args:
        source: what :func:`graphfm.adapt` made for a graph with at least as many classes, by whatever method but a
            prompt. Where one is meant for reprogramming, give its classes as many labels as there are.
        data: the target graph with class labels ``y`` ``[N]`` (negative where unknown).
        split: whose labels may be used; those of ``split.val`` choose the step to keep when there are any.
        prompt: such as ``GPF()``; without one, only the classes are mapped. A head that it prescribes is left aside.
        unifier: how the target's features enter, such as ``pretrained.unifier``, which knows its sources by name; a
            projection of the target's own, fitted without labels, unless given.
        seed: of the prompt.
        device: where to train and predict; the CPU by default.
        epochs: steps of the prompt.
        lr: its learning rate.
        weight_decay: its L2 strength.

    Raises:
        ValueError: more target classes than the source was shown; a source with a prompt or with coordinators; a bad
            graph or split.
    """
    check_graph(data, "data", features=False)
    y = check_labels(data.y)
    split.check(int(data.num_nodes), y)
    where, classes, started = as_device(device), int(y.max()) + 1, time.perf_counter()
    head = _mapped(source, classes)
    with isolated_rng(seed, where):
        network = copy.deepcopy(source.backbone).to(where).requires_grad_(False)
        if prompt is not None:
            network = prompted(network, copy.deepcopy(prompt))
        projection = (unifier or Unifier(source.projection.dim)).projection(data)
        if projection.dim != source.projection.dim:
            raise ValueError(f"unifier gives {projection.dim} features, the source takes {source.projection.dim}.")
        readout = copy.deepcopy(source.readout).to(where)
        fitted = Fitted(network, projection, readout, head.to(where), classes, {"target": str(data.get("name", ""))})
        target = Target(fitted, data, split, y, where)
        fit_frozen(fitted, target)
        if prompt is not None and numbers(trained(fitted, "finetune")):
            finetune(fitted, target, epochs, lr, weight_decay, 0.0)
    fitted.card |= {
        "method": "reprogram" if prompt is None else f"reprogram+prompt:{prompt!r}",
        "source": source.card.get("target", ""),
        "mapping": head.mapping.tolist(),
        "seed": seed,
        "train_nodes": split.train.numel(),
        "trained_parameters": numbers(trained(fitted, "finetune")),
        "seconds": time.perf_counter() - started,
    }
    return fitted


def _mapped(source: Fitted, classes: int) -> Reprogrammed:
    """The frozen head of ``source`` under a map."""
    if source.prompt is not None or source.coordinators is not None:
        raise ValueError("source has a prompt or coordinators of its own; reprogram one that was fitted without.")
    theirs = source.head
    if type(theirs) not in (LinearHead, PrototypeHead):
        raise ValueError(f"source has a {type(theirs).__name__} for a head; there must be classes to read it at.")
    known = int(theirs.seen.sum())
    if classes > known:
        raise ValueError(
            f"{classes} target classes cannot be mapped one to one to {known} source classes; take a source with more."
        )
    head = Reprogrammed(theirs.in_channels, classes, theirs.num_classes, type(theirs).__name__)
    head.source.load_state_dict(theirs.state_dict())
    return head
