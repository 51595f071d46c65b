"""What adaptation returns: a network that predicts classes on the target graph, also after it has grown."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.checkpoint import CheckpointError, build_module, describe_module, load_state, read_bundle, write_bundle
from graphfm.data.checks import check_graph
from graphfm.data.features import Projection, Unifier, raw_features
from graphfm.heads import LinearHead, PrototypeHead
from graphfm.joined import undirected
from graphfm.nn import Adjacency
from graphfm.readout import Readout

__all__ = ["Fitted"]


@dataclasses.dataclass
class Fitted:
    """A backbone and a head adapted to one target graph.

    Attributes:
        backbone: the adapted network, in evaluation mode.
        projection: the target's way into it, fixed when it was adapted.
        readout: what the head sees of a node.
        head: from the readout to class scores.
        num_classes: C.
        card: JSON-able facts: method, shots, settings.
    """

    backbone: nn.Module
    projection: Projection
    readout: Readout
    head: LinearHead | PrototypeHead
    num_classes: int
    card: dict[str, Any]

    @torch.no_grad()
    def embed(self, data: Data) -> Tensor:
        """What the head reads, ``[N, D]``, on the target graph or on the same graph with nodes and edges added.

        Raises:
            ValueError: a bad graph, or another feature width than the adapted graph's.
        """
        x, adj = self._inputs(data)
        return self.readout(self.backbone.eval()(x, adj), x, adj)

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Class probabilities ``[N, C]`` of all nodes, on the CPU; see :meth:`embed` for what ``data`` may be."""
        return torch.softmax(self.head.eval()(self.embed(data)), dim=1).cpu()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``fitted.json`` and its safetensors; returns the folder."""
        unifier = Unifier(self.projection.dim)
        unifier.names, unifier.projections = ["target"], [self.projection]
        described, bases = unifier.state()
        settings = {
            "backbone": describe_module(self.backbone),
            "readout": describe_module(self.readout),
            "head": describe_module(self.head),
            "unifier": described,
            "num_classes": self.num_classes,
            "card": self.card,
        }
        tensors = {f"backbone.{k}": v for k, v in self.backbone.state_dict().items()}
        tensors |= {f"readout.{k}": v for k, v in self.readout.state_dict().items()}
        tensors |= {f"head.{k}": v for k, v in self.head.state_dict().items()}
        tensors |= {f"unifier.{k}": v for k, v in bases.items()}
        write_bundle(folder, "fitted", settings, tensors)
        return Path(folder)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        backbone: nn.Module | None = None,
        device: torch.device | str | None = None,
    ) -> Fitted:
        """Read a folder that :meth:`save` wrote; ``backbone`` takes the weights of a class of your own.

        Raises:
            CheckpointError: no saved model, or one that is damaged or foreign.
        """
        from graphfm import backbones

        settings, tensors = read_bundle(folder, "fitted")
        try:
            if backbone is None:
                known = [getattr(backbones, name) for name in backbones.__all__]
                backbone = build_module(settings["backbone"], known, tensors, "backbone.")
            else:
                state = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
                load_state(backbone, state, type(backbone).__name__)
            readout = cast(Readout, build_module(settings["readout"], [Readout], tensors, "readout."))
            made = build_module(settings["head"], [LinearHead, PrototypeHead], tensors, "head.")
            head = cast(LinearHead | PrototypeHead, made)
            bases = {k.removeprefix("unifier."): v for k, v in tensors.items() if k.startswith("unifier.")}
            projection = Unifier.from_state(settings["unifier"], bases).projections[0]
            classes = int(settings["num_classes"])
            return cls(backbone.to(device), projection, readout.to(device), head.to(device), classes, settings["card"])
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise CheckpointError(f"{folder} is no fitted graphfm model ({type(error).__name__}: {error}).") from error

    def _inputs(self, data: Data) -> tuple[Tensor, Adjacency]:
        check_graph(data, "data", features=False)
        device = next(self.backbone.parameters()).device
        edge_index, weight = undirected(data)
        x = self.projection(raw_features(data)).to(device)
        return x, Adjacency.from_edges(edge_index, x.size(0), weight).to(device)
