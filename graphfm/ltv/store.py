"""GRePO models in folders: one JSON and one safetensors file, written whole or not at all."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphfm.bundle import CheckpointError, read_bundle, refusing, write_bundle
from graphfm.checkpoint import load_state
from graphfm.ltv.columns import Columns
from graphfm.ltv.grepo import GRePO
from graphfm.ltv.heads import MonotoneHead, ZILNHead
from graphfm.ltv.pretraining import PurchaseEncoder
from graphfm.ltv.vocabulary import Vocabulary
from graphfm.results import environment

__all__ = ["load_model", "model_of", "save_model", "state_of"]

_STEM = "ltv"
_HEADS = {head.__name__: head for head in (MonotoneHead, ZILNHead)}
_LARGEST = 100_000


def save_model(model: GRePO, folder: str | os.PathLike[str]) -> Path:
    """Write a fitted model.

    Kept are network, encoder, item names, columns and horizons, a fingerprint of the training data, the history and
    versions; of the combiner, which matters in training alone, its name.

    Raises:
        RuntimeError: ``fit`` was not called.
        ValueError: a head of one's own, which could not be loaded.
        OSError: the folder cannot be written; what was there before stays whole.
    """
    write_bundle(folder, _STEM, *state_of(model))
    return Path(folder)


def state_of(model: GRePO) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file keeps of a fitted model: settings for JSON, and tensors.

    Raises:
        RuntimeError: ``fit`` was not called.
        ValueError: a head of one's own, which could not be loaded.
    """
    network = model.fitted_network()
    if model.head.__name__ not in _HEADS:
        raise ValueError(f"head {model.head.__name__} is not one of {', '.join(_HEADS)}, so no file can name it.")
    settings: dict[str, Any] = {
        "arguments": model.arguments(),
        "head": model.head.__name__,
        "combined_by": model.combined_by,
        "features": network.features,
        "items": len(model.vocabulary) if model.vocabulary is not None else 0,
        "columns": dataclasses.asdict(model.columns),
        "fingerprint": model.fingerprint,
        "history": model.history,
        "versions": environment(),
        "encoder": None,
    }
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    if model.encoder is not None:
        settings["encoder"], of_encoder = model.encoder.state()
        tensors |= {f"encoder.{k}": v for k, v in of_encoder.items()}
    if model.vocabulary is not None:
        tensors["items"] = model.vocabulary.tensor()
    return settings, tensors


def load_model(folder: str | os.PathLike[str], *, device: torch.device | str | None = None) -> GRePO:
    """Read what :func:`save_model` wrote. Safe for folders from strangers: no code in them is run.

    Args:
        folder: where.
        device: where to predict.

    Raises:
        CheckpointError: no model there, or one that is damaged or foreign.
    """
    settings, tensors = read_bundle(folder, _STEM)
    with refusing(folder, "LTV model"):
        return model_of(settings, tensors, device)


def model_of(settings: dict[str, Any], tensors: dict[str, Tensor], device: torch.device | str | None = None) -> GRePO:
    """The inverse of :func:`state_of`.

    Raises:
        CheckpointError: sizes that cannot be, or tensors that do not fit; other errors where parts are missing.
    """
    arguments = settings["arguments"]
    sizes = [arguments["width"], arguments["layers"], settings["features"], settings["items"]]
    if any(type(size) is not int or not 0 <= size <= _LARGEST**2 for size in sizes) or sizes[1] > len(tensors):
        raise CheckpointError(f"width, layers, features and items of the network cannot be {sizes}.")
    encoder = None
    if settings["encoder"] is not None:
        state = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
        encoder = PurchaseEncoder.from_state(settings["encoder"], state, device)
    model = GRePO(**arguments, graph=encoder or False, head=_HEADS[settings["head"]], device=device)
    model.columns, model.encoder = Columns.from_json(settings["columns"]), encoder
    if "items" in tensors:
        model.vocabulary = Vocabulary.from_tensor(tensors["items"])
        if len(model.vocabulary) != settings["items"]:
            raise CheckpointError(f"{len(model.vocabulary)} item names do not fit {settings['items']} items.")
    with torch.device("meta"):
        network = model.build(settings["features"])
    state = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    load_state(network, state, "network")
    model.network = network.to(model.device).eval()
    model.history = dict(settings["history"])
    model.fingerprint, model.combined_by = str(settings["fingerprint"]), str(settings["combined_by"])
    return model
