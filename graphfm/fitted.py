"""What adaptation returns: a network that predicts classes on the target graph, also after it has grown."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.adapters.handle import Handle
from graphfm.adapters.store import base_state
from graphfm.beside import base_of, describe, handles_of, prompt_of, rebuild
from graphfm.checkpoint import CheckpointError, build_module, describe_module, read_bundle, refusing, write_bundle
from graphfm.coordinators import Coordinators
from graphfm.data.checks import check_graph
from graphfm.data.features import Projection, Unifier, raw_features
from graphfm.device import as_device
from graphfm.egos import EgoReadout
from graphfm.heads import LinearHead, PrototypeHead
from graphfm.inputs import Inputs
from graphfm.joined import undirected
from graphfm.nn import Adjacency
from graphfm.pretrained import describe_joining, load_backbone, load_joining, load_unifier
from graphfm.prompts import store as stored
from graphfm.prompts.base import Prompt
from graphfm.prompts.gppt import TokenHead
from graphfm.prompts.label_mapping import Reprogrammed
from graphfm.readout import Readout
from graphfm.tokens import TokenPrompts, Tokens

__all__ = ["Fitted"]


@dataclasses.dataclass
class Fitted:
    """A backbone and a head adapted to one target graph.

    Attributes:
        backbone: the adapted network, in evaluation mode.
        projection: the target's way into it, fixed when it was adapted.
        readout: what the head sees of a node.
        head: from the readout to class scores; the prompt's own where it prescribes one.
        num_classes: C.
        card: JSON-able facts: method, shots, settings.
        coordinators: of the sources, or prompts made of their tokens, where they were carried to the target.
    """

    backbone: nn.Module
    projection: Projection
    readout: Readout | EgoReadout
    head: LinearHead | PrototypeHead | TokenHead | Reprogrammed
    num_classes: int
    card: dict[str, Any]
    coordinators: Coordinators | TokenPrompts | None = None

    @torch.no_grad()
    def embed(self, data: Data) -> Tensor:
        """What the head reads, ``[N, D]``, on the target graph or on the same graph with nodes and edges added.

        Raises:
            ValueError: a bad graph, or another feature width than the adapted graph's.
        """
        return self.readout.everywhere(self.backbone.eval(), self.inputs(data))

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Class probabilities ``[N, C]`` of all nodes, on the CPU; see :meth:`embed` for what ``data`` may be."""
        return torch.softmax(self.head.eval()(self.embed(data)), dim=1).cpu()

    @property
    def adapters(self) -> list[Handle]:
        """What was attached to the backbone and trained in its place; empty where nothing was."""
        return handles_of(self.backbone)

    @property
    def prompt(self) -> Prompt | None:
        """What was put before the frozen backbone, or ``None``."""
        return prompt_of(self.backbone)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``fitted.json`` and its safetensors, the backbone among them; returns the folder.

        Adapter and prompt lie beside the frozen backbone. To keep many adapters of one base, see
        :class:`graphfm.AdapterBank`.
        """
        backbone = base_of(self.backbone)
        settings, tensors = describe_fitted(self)
        settings["backbone"] = describe_module(backbone)
        tensors |= {f"backbone.{k}": v for k, v in base_state(backbone).items()}
        write_bundle(folder, "fitted", settings, tensors)
        return Path(folder)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        backbone: nn.Module | None = None,
        prompts: Iterable[type[Prompt]] = (),
        device: torch.device | str | None = None,
    ) -> Fitted:
        """Read a folder that :meth:`save` wrote.

        Args:
            folder: the model.
            backbone: an instance to take the weights, for a class of your own.
            prompts: classes of prompts of your own; those of :mod:`graphfm.prompts` are known.
            device: where to put it.

        Raises:
            CheckpointError: no saved model, or one that is damaged or foreign.
        """
        settings, tensors = read_bundle(folder, "fitted")
        with refusing(folder, "fitted model"):
            network = load_backbone(settings["backbone"], tensors, backbone)
            return build_fitted(settings, tensors, network.to(as_device(device)), folder, prompts=prompts)

    def inputs(self, data: Data) -> Inputs:
        """``data`` as the backbone sees it, on the backbone's device.

        Raises:
            ValueError: a bad graph, or another feature width than the adapted graph's.
        """
        check_graph(data, "data", features=False)
        device = next(self.backbone.parameters()).device
        edge_index, weight = undirected(data)
        x = self.projection(raw_features(data)).to(device)
        adj = Adjacency.from_edges(edge_index, x.size(0), weight).to(device)
        if self.coordinators is None:
            return Inputs(x, adj)
        if isinstance(self.coordinators, TokenPrompts):
            return Inputs(x, adj, prompts=self.coordinators)
        joined = self.coordinators.carry(Data(x=x.cpu(), edge_index=edge_index, edge_weight=weight))
        whole = Adjacency.from_edges(joined.edge_index, joined.num_nodes, joined.edge_weight)
        return Inputs(x, adj, (joined.x.to(device), whole.to(device)))


def describe_fitted(fitted: Fitted) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """All but the backbone, for a bundle: settings as JSON, and tensors."""
    unifier = Unifier(fitted.projection.dim)
    unifier.names, unifier.projections = ["target"], [fitted.projection]
    described, bases = unifier.state()
    beside, added = describe(fitted.backbone)
    settings: dict[str, Any] = {
        "readout": describe_module(fitted.readout),
        "head": describe_module(fitted.head),
        "unifier": described,
        "num_classes": fitted.num_classes,
        "coordinators": None,
        **beside,
        "card": fitted.card,
    }
    tensors = {f"readout.{k}": v for k, v in fitted.readout.state_dict().items()}
    tensors |= {f"head.{k}": v for k, v in fitted.head.state_dict().items()}
    tensors |= {f"unifier.{k}": v for k, v in bases.items()}
    tensors |= added
    if fitted.coordinators is not None:
        settings["coordinators"], state = describe_joining(fitted.coordinators)
        tensors |= {f"coordinators.{k}": v for k, v in state.items()}
    return settings, tensors


def build_fitted(
    settings: dict[str, Any],
    tensors: dict[str, Tensor],
    network: nn.Module,
    folder: str | os.PathLike[str],
    base: str | None = None,
    prompts: Iterable[type[Prompt]] = (),
) -> Fitted:
    """What :func:`describe_fitted` described, on ``network``: its adapters are attached to it, in place.

    Classes of prompts other than ours are made where they are among ``prompts``.

    Raises:
        CheckpointError: parts that do not fit each other, or adapters of another base than ``network``; its
            fingerprint is computed unless it is given.
    """
    device = next(network.parameters()).device
    readout = cast(Readout | EgoReadout, build_module(settings["readout"], [Readout, EgoReadout], tensors, "readout."))
    prompt, own_heads = stored.of_bundle(settings, tensors, settings["num_classes"], prompts)
    made = build_module(settings["head"], [LinearHead, PrototypeHead, Reprogrammed, *own_heads], tensors, "head.")
    head = cast(LinearHead | PrototypeHead | TokenHead | Reprogrammed, made)
    unifier = load_unifier(settings["unifier"], tensors)
    coordinators = _load_coordinators(settings["coordinators"], tensors, unifier.dim, network)
    fits = (
        len(unifier.projections) == 1
        and unifier.dim == network.in_channels
        and readout.channels == network.out_channels
        and readout.skip_channels in (0, unifier.dim)
        and head.in_channels == readout.out_channels
        and head.num_classes == settings["num_classes"]
    )
    if not fits:
        raise CheckpointError("the parts of the fitted model do not fit each other.")
    network = rebuild(network, settings, tensors, folder, prompt=prompt, base=base)
    return Fitted(
        network.eval(),
        unifier.projections[0],
        readout.to(device),
        head.to(device),
        head.num_classes,
        settings["card"],
        coordinators.to(device) if isinstance(coordinators, TokenPrompts) else coordinators,
    )


def _load_coordinators(
    described: dict[str, Any] | None, tensors: dict[str, Tensor], dim: int, network: nn.Module
) -> Coordinators | TokenPrompts | None:
    features = tensors.get("coordinators.features")
    sources = 1 if described is None or features is None else len(features) // described["arguments"]["per_domain"]
    coordinators = load_joining(described, tensors, sources, dim)
    if isinstance(coordinators, Tokens) or (isinstance(coordinators, TokenPrompts) and not coordinators.fits(network)):
        raise CheckpointError("the prompts do not fit the backbone.")
    return coordinators
