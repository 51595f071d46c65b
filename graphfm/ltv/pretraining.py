"""Embeddings of users and items, learnt without labels from who buys the same things."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData

from graphfm.backbones import GraphSAGE
from graphfm.checkpoint import build_module, describe_module
from graphfm.data.features import Unifier
from graphfm.data.purchase_features import standardise
from graphfm.inference import embed
from graphfm.joined import undirected
from graphfm.objectives import MaskedGraph
from graphfm.pretrain import pretrain
from graphfm.samplers import Neighbours, WholeGraph
from graphfm.samplers.base import Sampler

__all__ = ["PurchaseEncoder", "meta_path_graph"]

_log = logging.getLogger(__name__)
_PATHS = {"user": ("user", "like", "user"), "item": ("item", "with", "item")}
_WHOLE = 100_000  # nodes that are learnt from in one step; beyond that, in neighbourhoods


def meta_path_graph(snapshot: HeteroData, kind: str) -> Data:
    """The users (or items) of a snapshot and what joins them: features ``x``, undirected edges with weights."""
    nodes, path = snapshot[kind], snapshot[_PATHS[kind]]
    graph = Data(x=nodes.x, edge_index=path.edge_index, edge_weight=path.edge_weight, num_nodes=nodes.x.size(0))
    graph.edge_index, graph.edge_weight = undirected(graph)
    return graph


class PurchaseEncoder:
    """One frozen network for users and one for items (2506.11037: pretraining by hidden edges and hidden attributes).

    Both see the two meta-path graphs alone, and features as of the cutoff, so that users and items which come later
    are embedded like those that were there, and one without neighbours by its own features. Embeddings trained anew
    at each cutoff would not be aligned; these come from one network, and are brought to mean 0 and deviation 1 in
    each snapshot as its features are. The paper names neither network nor rates: GraphSAGE and the rates of
    :class:`graphfm.objectives.MaskedGraph` are our choice.

    Args:
        width: of the embeddings, D.
        layers: of the network, thus how many steps it sees.
        steps: gradient steps for each of the two.
        objective: from hidden parts to a loss; ``MaskedGraph()`` where it is not given.
        backbone: one of :mod:`graphfm.backbones`, a class made with ``(features, width, layers)``.
        sampler: what a step sees; all snapshots at once where they have up to 100,000 nodes together, else
            neighbourhoods.
        lr: learning rate.
        seed: of everything drawn.
        device: where to train and to embed; the CPU where it is not given.

    Raises:
        ValueError: sizes below 1.

    Attributes, once fitted: ``networks`` and ``cards`` (see :class:`graphfm.Pretrained`) by kind, and ``until``, the
    cutoff of the newest snapshot that it has seen, in microseconds.
    """

    def __init__(
        self,
        width: int = 32,
        layers: int = 2,
        *,
        steps: int = 100,
        objective: nn.Module | None = None,
        backbone: type[nn.Module] = GraphSAGE,
        sampler: Sampler | None = None,
        lr: float = 3e-3,
        seed: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        for name, value in (("width", width), ("layers", layers), ("steps", steps)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        self.width, self.layers, self.steps, self.lr, self.seed, self.device = width, layers, steps, lr, seed, device
        self.objective = MaskedGraph() if objective is None else objective
        self.backbone, self.sampler = backbone, sampler
        self.networks: dict[str, nn.Module] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.until = 0
        # Of the snapshot embedded last: a population that is predicted in parts reads them again and again.
        self._last: tuple[weakref.ref[HeteroData], dict[str, Tensor]] | None = None

    def fit(self, snapshots: Sequence[HeteroData]) -> PurchaseEncoder:
        """Learn from the graphs of some snapshots together; labels are not there to be read.

        Raises:
            ValueError: no snapshot, or no two users with a common item (or items with a common user).
        """
        if not snapshots:
            raise ValueError("fit needs at least one snapshot.")
        self.until, self._last = max(int(one.cutoff) for one in snapshots), None
        for kind, path in _PATHS.items():
            graphs = [meta_path_graph(one, kind) for one in snapshots if one[path].edge_index.size(1)]
            if not graphs:
                raise ValueError(
                    f"no snapshot joins two {kind}s, so there is no graph to learn from; a log without items, or where "
                    "nobody shares any, is for a model with graph=False."
                )
            self._fit_one(kind, graphs)
        return self

    def _fit_one(self, kind: str, graphs: list[Data]) -> None:
        size, features = sum(int(graph.num_nodes) for graph in graphs), graphs[0].x.size(1)
        sampler = self.sampler or (WholeGraph() if size <= _WHOLE else Neighbours((10, 5)[: self.layers]))
        a_pass = -(-size // sampler.batch_size) if isinstance(sampler, Neighbours) else 1
        learnt = pretrain(
            graphs,
            backbone=self.backbone(features, self.width, self.layers),
            objective=self.objective,
            # Scaled already, and of one width: features pass as they are.
            unifier=Unifier(features, rescale=False),
            sampler=sampler,
            epochs=max(1, round(self.steps / a_pass)),
            lr=self.lr,
            seed=self.seed,
            device=self.device,
        )
        losses = learnt.card["history"]["loss"]
        _log.info("%ss: %d nodes, loss %.3f to %.3f", kind, size, losses[0], losses[-1])
        self.networks[kind] = learnt.backbone.requires_grad_(False)
        self.cards[kind] = learnt.card

    def embed(self, snapshot: HeteroData) -> dict[str, Tensor]:
        """Embeddings of all users and items of a snapshot, ``{"user": [U, D], "item": [I, D]}`` on the CPU.

        Raises:
            RuntimeError: ``fit`` was not called.
        """
        if not self.networks:
            raise RuntimeError("the encoder has no networks yet; call fit first.")
        if self._last is not None and self._last[0]() is snapshot:
            return self._last[1]
        found = {}
        for kind, network in self.networks.items():
            rows = embed(network.to(self.device or "cpu"), meta_path_graph(snapshot, kind))
            found[kind] = torch.from_numpy(standardise(rows.double().numpy()))
        self._last = weakref.ref(snapshot), found
        return found

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a file keeps: settings for JSON, and tensors."""
        settings: dict[str, Any] = {
            kind: {"network": describe_module(network), "card": self.cards[kind]}
            for kind, network in self.networks.items()
        }
        settings["until"] = self.until
        tensors = {f"{kind}.{k}": v for kind, network in self.networks.items() for k, v in network.state_dict().items()}
        return settings, tensors

    @classmethod
    def from_state(
        cls, settings: dict[str, Any], tensors: dict[str, Tensor], device: torch.device | str | None = None
    ) -> PurchaseEncoder:
        """The inverse of :meth:`state`.

        Raises:
            CheckpointError: a network that is not known, or tensors that do not fit.
        """
        from graphfm import backbones

        known = [getattr(backbones, name) for name in backbones.__all__]
        encoder = cls(device=device)
        encoder.until = int(settings["until"])
        for kind in _PATHS:
            network = build_module(settings[kind]["network"], known, tensors, f"{kind}.")
            encoder.networks[kind] = network.eval().requires_grad_(False)
            encoder.cards[kind] = settings[kind]["card"]
        return encoder
