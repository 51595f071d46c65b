"""Fitted task models in folders: a network, what is beside it, what is read out of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphfm.adapters.store import base_state
from graphfm.beside import base_of, describe, handles_of, rebuild
from graphfm.checkpoint import CheckpointError, build_module, describe_module, read_bundle, refusing, write_bundle
from graphfm.data.features import Projection, Unifier
from graphfm.device import as_device
from graphfm.pretrained import load_backbone, load_unifier
from graphfm.prompts.base import Prompt
from graphfm.prompts.store import of_bundle

__all__ = ["Stored", "load_stored", "save_stored"]

Folder = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Stored:
    """What a fitted model of any task consists of.

    Attributes:
        network: from nodes to embeddings ``[N, D]``.
        projection: the way of features into it.
        readout: what is read of the embeddings.
        head: what stands on that; ``in_channels``, if it has any, are the readout's ``out_channels``.
        card: JSON-able facts.
    """

    network: nn.Module
    projection: Projection
    readout: nn.Module
    head: nn.Module
    card: dict[str, Any]


def save_stored(folder: Folder, stem: str, model: Stored) -> Path:
    """Write ``STEM.json`` and its safetensors; returns the folder.

    Raises:
        ValueError: weights that the network keeps out of its state dict and that are of no adapter.
        OSError: the folder cannot be written.
    """
    network = base_of(model.network)
    kept = {id(value) for value in network.state_dict(keep_vars=True).values()}
    kept |= {
        id(p) for handle in handles_of(network) for change in handle.changes().values() for p in change.parameters()
    }
    lost = [name for name, parameter in network.named_parameters() if id(parameter) not in kept]
    if lost:
        raise ValueError(
            f"the network keeps {lost[0]!r} out of its state dict: save what is attached to it and its base apart."
        )
    unifier = Unifier(model.projection.dim)
    unifier.names, unifier.projections = ["target"], [model.projection]
    described, bases = unifier.state()
    beside, added = describe(model.network)
    settings = {"unifier": described, "card": model.card, "backbone": describe_module(network), **beside}
    tensors = {f"unifier.{k}": v for k, v in bases.items()}
    tensors |= {f"backbone.{k}": v for k, v in base_state(network).items()} | added
    for name, part in (("readout", model.readout), ("head", model.head)):
        settings[name] = describe_module(part)
        tensors |= {f"{name}.{k}": v for k, v in part.state_dict().items()}
    write_bundle(folder, stem, settings, tensors)
    return Path(folder)


def load_stored(
    folder: Folder,
    stem: str,
    readout: type[nn.Module],
    heads: Sequence[type[nn.Module]],
    backbone: nn.Module | None,
    device: torch.device | str | None,
    prompts: Iterable[type[Prompt]] = (),
) -> Stored:
    """Read what :func:`save_stored` wrote.

    Args:
        folder: where it is.
        stem: of its files.
        readout: the class of the readout.
        heads: classes that the head may have.
        backbone: takes the weights, where the class of the network is none of :mod:`graphfm.backbones`.
        device: where to put it.
        prompts: classes of prompts of your own.

    Raises:
        CheckpointError: no such model, or one that is damaged or foreign.
    """
    settings, tensors = read_bundle(folder, stem)
    with refusing(folder, "fitted model"):
        found = _built(settings, tensors, readout, heads, backbone, folder, prompts)
        where = as_device(device)
        for part in (found.network, found.readout, found.head):
            part.to(where).eval()
        return found


def _built(
    settings: dict[str, Any],
    tensors: dict[str, Tensor],
    readout: type[nn.Module],
    heads: Sequence[type[nn.Module]],
    backbone: nn.Module | None,
    folder: Folder,
    prompts: Iterable[type[Prompt]],
) -> Stored:
    network: Any = load_backbone(settings["backbone"], tensors, backbone)
    classes = settings["head"]["arguments"].get("num_classes")
    prompt, own_heads = of_bundle(settings, tensors, classes, prompts)
    read: Any = build_module(settings["readout"], [readout], tensors, "readout.")
    head: Any = build_module(settings["head"], [*heads, *own_heads], tensors, "head.")
    unifier = load_unifier(settings["unifier"], tensors)
    fits = (
        len(unifier.projections) == 1
        and unifier.dim == network.in_channels
        and read.channels == network.out_channels
        and read.skip_channels in (0, unifier.dim)
        and getattr(head, "in_channels", read.out_channels) == read.out_channels
        and isinstance(settings["card"], dict)
    )
    if not fits:
        raise CheckpointError("the parts of the fitted model do not fit each other.")
    network = rebuild(network, settings, tensors, folder, prompt=prompt)
    return Stored(network, unifier.projections[0], read, head, settings["card"])
