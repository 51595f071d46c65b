"""What pretraining returns: a backbone, the way into it, and a card that says where it comes from."""

from __future__ import annotations

import dataclasses
import os
import textwrap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphfm.checkpoint import (
    CheckpointError,
    build_module,
    describe_module,
    load_state,
    read_bundle,
    refusing,
    write_bundle,
    write_file,
)
from graphfm.coordinators import Coordinators
from graphfm.data.features import Unifier
from graphfm.device import as_device
from graphfm.foreign import as_backbone, bare_backbone
from graphfm.tokens import TokenPrompts, Tokens, build_tokens, describe_tokens

__all__ = ["Pretrained"]


@dataclasses.dataclass
class Pretrained:
    """A pretrained backbone and all that is needed to use it on another graph.

    Attributes:
        backbone: the network, in evaluation mode.
        unifier: brings features of any width to the backbone's.
        coordinators: the coordinators of the sources, the tokens in their place, or ``None``.
        card: JSON-able facts: sources, objective, settings, what sampling did, losses, seconds, versions.
        pretext: tokens ``[K, w]`` of K pretext tasks for each layer (:class:`graphfm.prompts.PretextTokens`), or
            ``None``.
    """

    backbone: nn.Module
    unifier: Unifier
    coordinators: Coordinators | Tokens | None
    card: dict[str, Any]
    pretext: list[Tensor] | None = None

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``model.json``, its safetensors and a readable ``README.md``; returns the folder.

        Raises:
            OSError: the folder cannot be written.
        """
        unifier, bases = self.unifier.state()
        backbone = bare_backbone(self.backbone)
        settings: dict[str, Any] = {
            "backbone": describe_module(backbone),
            "unifier": unifier,
            "coordinators": None,
            "card": self.card,
        }
        tensors = {f"backbone.{k}": v for k, v in backbone.state_dict().items()}
        tensors |= {f"unifier.{k}": v for k, v in bases.items()}
        if self.coordinators is not None and self.coordinators.is_bound:
            settings["coordinators"], state = describe_joining(self.coordinators)
            tensors |= {f"coordinators.{k}": v for k, v in state.items()}
        tensors |= {f"pretext.{place}": token for place, token in enumerate(self.pretext or [])}
        write_bundle(folder, "model", settings, tensors)
        write_file(Path(folder) / "README.md", model_card(settings).encode())
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
        with refusing(folder, "model"):
            return cls._from_bundle(settings, tensors, backbone, as_device(device))

    @classmethod
    def _from_bundle(
        cls,
        settings: dict[str, Any],
        tensors: dict[str, Tensor],
        backbone: nn.Module | None,
        device: torch.device,
    ) -> Pretrained:
        network = load_backbone(settings["backbone"], tensors, backbone)
        unifier = load_unifier(settings["unifier"], tensors)
        if unifier.dim != network.in_channels:
            raise CheckpointError(
                f"the unifier gives {unifier.dim} features, the backbone takes {network.in_channels}."
            )
        coordinators = load_joining(settings["coordinators"], tensors, len(unifier.names), unifier.dim)
        if isinstance(coordinators, TokenPrompts) or (
            isinstance(coordinators, Tokens) and not coordinators.fits(len(unifier.names), network)
        ):
            raise CheckpointError("the tokens do not fit the sources and the backbone.")
        homeless = [k for k in tensors if k.split(".")[0] not in ("backbone", "unifier", "coordinators", "pretext")]
        if homeless or not isinstance(settings["card"], dict):
            raise CheckpointError(f"the checkpoint holds tensors of nothing known: {homeless[:4]}, or no card.")
        if coordinators is not None:
            coordinators.to(device)
        pretext = load_pretext(tensors)
        return cls(network.to(device).eval(), unifier, coordinators, settings["card"], pretext)


def load_backbone(described: dict[str, Any], tensors: dict[str, Tensor], backbone: nn.Module | None) -> nn.Module:
    """The network of a bundle: one of ours made from its description, or the user's own instance given the weights."""
    from graphfm import backbones

    if backbone is None:
        known = [getattr(backbones, name) for name in backbones.__all__]
        return as_backbone(build_module(described, known, tensors, "backbone."))
    bare = bare_backbone(backbone)
    state = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
    return as_backbone(load_state(bare, state, type(bare).__name__))


def load_unifier(described: dict[str, Any], tensors: dict[str, Tensor]) -> Unifier:
    """The unifier of a bundle, its bases checked against its settings."""
    bases = {k.removeprefix("unifier."): v for k, v in tensors.items() if k.startswith("unifier.")}
    unifier = Unifier.from_state(described, bases)
    used = {f"basis.{i}" for i, p in enumerate(unifier.projections) if p.basis is not None}
    fits = used == bases.keys() and all(v.dim() == 2 and v.is_floating_point() for v in bases.values())
    fits = fits and all(1 <= p.width and (p.basis is not None or p.width <= unifier.dim) for p in unifier.projections)
    if not fits:
        raise CheckpointError("the bases of the unifier do not fit its domains.")
    return unifier


def load_pretext(tensors: dict[str, Tensor]) -> list[Tensor] | None:
    """The tokens of a bundle's pretext tasks; ``None`` where it holds none."""
    found = {k: v for k, v in tensors.items() if k.startswith("pretext.")}
    places = [f"pretext.{place}" for place in range(len(found))]
    if set(places) != set(found) or any(v.dim() != 2 or not v.is_floating_point() for v in found.values()):
        raise CheckpointError("the tokens of the pretext tasks are not one matrix a layer.")
    return [found[place] for place in places] or None


def describe_joining(joining: Coordinators | Tokens | TokenPrompts) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What joins domains, for a bundle: its description, and its tensors."""
    if isinstance(joining, Coordinators):
        return describe_module(joining), dict(joining.state_dict())
    return describe_tokens(joining)


def load_joining(
    described: dict[str, Any] | None, tensors: dict[str, Tensor], domains: int, dim: int
) -> Coordinators | Tokens | TokenPrompts | None:
    """The coordinators of a bundle, or the tokens or prompts in their place; ``None`` where it holds none."""
    if described is None:
        return load_coordinators(described, tensors, domains, dim)
    prefix = "coordinators."
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return build_tokens(described, state) or load_coordinators(described, tensors, domains, dim)


def load_coordinators(
    described: dict[str, Any] | None, tensors: dict[str, Tensor], domains: int, dim: int
) -> Coordinators | None:
    """The coordinators of a bundle, bound to ``domains`` graphs of ``dim`` features; ``None`` where it holds none."""
    features = tensors.get("coordinators.features")
    if described is None and features is None:
        return None
    if described is None or features is None or described["class"] != Coordinators.__name__:
        raise CheckpointError("the coordinators and their features do not belong together.")
    coordinators = Coordinators(**described["arguments"])
    shape = (domains * coordinators.per_domain, dim)
    if tuple(features.shape) != shape or features.dtype != torch.float32:
        raise CheckpointError(f"the features of the coordinators are {list(features.shape)}, not {list(shape)} floats.")
    coordinators.features = nn.Parameter(features) if coordinators.kind == "learnable" else features
    return coordinators


def model_card(settings: dict[str, Any]) -> str:
    """A readable page about a checkpoint, in Markdown."""
    card, backbone = settings["card"], settings["backbone"]
    sources = card.get("sources", [])
    losses = card.get("history", {}).get("loss", [])
    ends = f"The loss was {losses[0]:.4f} in epoch 1 and {losses[-1]:.4f} in epoch {len(losses)}." if losses else ""
    name = backbone["class"].split(":")[-1].split(".")[-1]
    arguments = ", ".join(f"{k}={v!r}" for k, v in (backbone["arguments"] or {}).items())
    made = textwrap.fill(f"Backbone `{backbone['class']}({arguments})`,", 120)
    own = "" if backbone["arguments"] is not None and ":" not in backbone["class"] else ", backbone=YourBackbone(...)"
    return f"""# {name} pretrained on {len(sources)} graph{"s" * (len(sources) != 1)}

```python
import graphfm

model = graphfm.Pretrained.load("this folder"{own})
fitted = graphfm.adapt(model, data, graphfm.few_shot(data.y, shots=5, seed=0), seed=0)
```

{made}
objective `{card.get("objective")}`,
coordinators `{card.get("coordinators")}`.
Labels of the sources were not used. {ends}

## Sources

| source | nodes | edges | features |
|---|---:|---:|---:|
{_rows(sources)}

## Sampling

{_bullets(card.get("sampling", {}))}

## Settings

{_bullets(card.get("settings", {}))}

## Run

{_bullets({k: card[k] for k in ("seconds", "device") if k in card} | card.get("versions", {}))}

`model.json` holds all of this for programs; the weights lie beside it as safetensors.
"""


def _rows(sources: list[dict[str, Any]]) -> str:
    lines = []
    for source in sources:
        name, features = str(source["name"]).replace("|", "/"), source["features"]
        width = f"{features:,}" if features else "from the structure"
        lines.append(f"| {name} | {source['nodes']:,} | {source['edges']:,} | {width} |")
    return "\n".join(lines)


def _bullets(facts: dict[str, Any]) -> str:
    return "\n".join(f"- {k.replace('_', ' ')}: {f'{v:.4g}' if type(v) is float else v}" for k, v in facts.items())
