"""What pretraining returns: a backbone, the way into it, and a card that says where it comes from."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphfm.checkpoint import CheckpointError, build_module, describe_module, load_state, read_bundle, write_bundle
from graphfm.coordinators import Coordinators
from graphfm.data.features import Unifier

__all__ = ["Pretrained"]


@dataclasses.dataclass
class Pretrained:
    """A pretrained backbone and all that is needed to use it on another graph.

    Attributes:
        backbone: the network, in evaluation mode.
        unifier: brings features of any width to the backbone's.
        coordinators: the coordinators of the sources, or ``None``.
        card: JSON-able facts: sources, objective, settings, what sampling did, losses, seconds, versions.
    """

    backbone: nn.Module
    unifier: Unifier
    coordinators: Coordinators | None
    card: dict[str, Any]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``model.json``, its safetensors and a readable ``README.md``; returns the folder.

        Raises:
            OSError: the folder cannot be written.
        """
        unifier, bases = self.unifier.state()
        settings: dict[str, Any] = {
            "backbone": describe_module(self.backbone),
            "unifier": unifier,
            "coordinators": None,
            "card": self.card,
        }
        tensors = {f"backbone.{k}": v for k, v in self.backbone.state_dict().items()}
        tensors |= {f"unifier.{k}": v for k, v in bases.items()}
        if self.coordinators is not None:
            settings["coordinators"] = describe_module(self.coordinators)
            tensors["coordinators.features"] = self.coordinators.features
        write_bundle(folder, "model", settings, tensors)
        (Path(folder) / "README.md").write_text(model_card(settings))
        return Path(folder)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        backbone: nn.Module | None = None,
        device: torch.device | str | None = None,
    ) -> Pretrained:
        """Read a folder that :meth:`save` wrote. Safe for folders from strangers: no code in them is run.

        Args:
            folder: the checkpoint.
            backbone: an instance to take the weights, for a class of your own that cannot be made from the file.
            device: where to put the backbone and the coordinators.

        Raises:
            CheckpointError: no checkpoint, or one that is damaged or foreign.
        """
        settings, tensors = read_bundle(folder, "model")
        try:
            return cls._from_bundle(settings, tensors, backbone, device)
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{folder} is no graphfm model ({type(error).__name__}: {error}).") from error

    @classmethod
    def _from_bundle(
        cls,
        settings: dict[str, Any],
        tensors: dict[str, Tensor],
        backbone: nn.Module | None,
        device: torch.device | str | None,
    ) -> Pretrained:
        from graphfm import backbones

        if backbone is None:
            known = [getattr(backbones, name) for name in backbones.__all__]
            backbone = build_module(settings["backbone"], known, tensors, "backbone.")
        else:
            state = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
            load_state(backbone, state, type(backbone).__name__)
        bases = {k.removeprefix("unifier."): v for k, v in tensors.items() if k.startswith("unifier.")}
        unifier = Unifier.from_state(settings["unifier"], bases)
        coordinators = _load_coordinators(settings["coordinators"], tensors)
        if coordinators is not None:
            coordinators.to(device)
        return cls(backbone.to(device).eval(), unifier, coordinators, settings["card"])


def _load_coordinators(described: dict[str, Any] | None, tensors: dict[str, Tensor]) -> Coordinators | None:
    if described is None:
        return None
    coordinators = Coordinators(**described["arguments"])
    features = tensors["coordinators.features"]
    coordinators.features = nn.Parameter(features) if coordinators.kind == "learnable" else features
    return coordinators


def model_card(settings: dict[str, Any]) -> str:
    """A readable page about a checkpoint, in Markdown."""
    card = settings["card"]
    sources = "\n".join(
        f"| {s['name']} | {s['nodes']:,} | {s['edges']:,} | {s['features']:,} |" for s in card.get("sources", [])
    )
    facts = "\n".join(
        f"- {key}: {value}" for key, value in card.items() if key not in ("sources", "history", "sampling")
    )
    sampling = "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in card.get("sampling", {}).items())
    losses = card.get("history", {}).get("loss", [])
    trend = f"loss {losses[0]:.4f} in the first epoch, {losses[-1]:.4f} in the last" if losses else "no losses kept"
    return f"""# {settings["backbone"]["class"]} pretrained on {len(card.get("sources", []))} graphs

Backbone: `{settings["backbone"]["class"]}`, arguments `{settings["backbone"]["arguments"]}`.

| source | nodes | edges | features |
|---|---|---|---|
{sources}

Labels of the sources were not used.

{facts}

Sampling:

{sampling}

Training: {trend}.

Load it with `graphfm.Pretrained.load(folder)`. `model.json` holds all of this for programs.
"""
