"""Predict links: carry a pretrained backbone to a graph from which edges were held out."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.data.checks import check_graph
from graphfm.data.features import Projection
from graphfm.data.links import LinkSplit
from graphfm.data.nonedges import NonEdges
from graphfm.device import as_device
from graphfm.fingerprint import edge_digests
from graphfm.fitting import numbers, train
from graphfm.inputs import Inputs
from graphfm.methods import Adapter, combined
from graphfm.pretrained import Pretrained
from graphfm.prompts.base import Prompt
from graphfm.readout import Readout
from graphfm.rng import isolated_rng
from graphfm.tasks.network import Attach, card_of, own_network, read_graph
from graphfm.tasks.pairs import CosineDecoder, HadamardDecoder, score_pairs
from graphfm.tasks.stored import Stored, load_stored, save_stored

__all__ = ["LINK_METHODS", "FittedLinks", "adapt_links", "refuse_leaky"]

LINK_METHODS = ("cosine", "probe", "finetune")


@dataclasses.dataclass
class FittedLinks:
    """A network that scores pairs of nodes of one graph.

    Attributes:
        network: from the graph to embeddings, in evaluation mode.
        projection: the graph's way into it.
        readout: what the decoder sees of a node.
        decoder: from two nodes to a score.
        card: JSON-able facts.
    """

    network: nn.Module
    projection: Projection
    readout: Readout
    decoder: nn.Module
    card: dict[str, Any]

    @torch.no_grad()
    def score(self, graph: Data, pairs: Tensor) -> Tensor:
        """Scores ``[...]`` on the CPU of ``pairs`` ``[2, ...]``, larger for the likelier link.

        Args:
            graph: what is known: ``split.graph``, or the same with nodes and edges added since.
            pairs: nodes of it, in either order.

        Raises:
            ValueError: a bad graph, or pairs of nodes that are not there.
        """
        check_graph(graph, "graph", features=False)
        if pairs.dim() < 2 or pairs.size(0) != 2 or pairs.is_floating_point():
            raise ValueError(f"pairs must be integers of shape [2, ...], got {pairs.dtype} {list(pairs.shape)}.")
        if pairs.numel() and (int(pairs.min()) < 0 or int(pairs.max()) >= int(graph.num_nodes)):
            raise ValueError(f"pairs must hold nodes 0..{int(graph.num_nodes) - 1}.")
        inputs = read_graph(graph, self.projection, self.readout.centre.device)
        z = _rows(self.network, self.readout, inputs)
        return score_pairs(self.decoder, z, pairs.to(z.device)).cpu()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``links.json`` and its safetensors; returns the folder.

        Raises:
            ValueError: a network that keeps weights out of its state dict which are no adapter's.
            OSError: the folder cannot be written.
        """
        parts = Stored(self.network, self.projection, self.readout, self.decoder, self.card)
        return save_stored(folder, "links", parts)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        backbone: nn.Module | None = None,
        prompts: Iterable[type[Prompt]] = (),
        device: torch.device | str | None = None,
    ) -> FittedLinks:
        """Read a folder that :meth:`save` wrote; see :meth:`graphfm.tasks.FittedGraphs.load`.

        Raises:
            CheckpointError: no saved model, or one that is damaged or foreign.
        """
        found = load_stored(folder, "links", Readout, [CosineDecoder, HadamardDecoder], backbone, device, prompts)
        return cls(found.network, found.projection, cast(Readout, found.readout), found.head, found.card)


def adapt_links(
    pretrained: Pretrained,
    split: LinkSplit,
    *,
    method: str = "finetune",
    adapter: Adapter | None = None,
    prompt: Prompt | None = None,
    seed: int,
    device: torch.device | str | None = None,
    attach: Attach | None = None,
    shots: int | None = None,
    hops: int = 2,
    skip: bool = True,
    epochs: int = 100,
    lr: float = 3e-3,
    weight_decay: float = 5e-4,
) -> FittedLinks:
    """Fit a copy of the backbone and a decoder to the edges of ``split.train``; ``pretrained`` stays as it is.

    While it learns it sees ``split.message``, afterwards ``split.graph``. The edges of ``split.val`` choose the step to
    keep where there are any; those of ``split.test`` are not looked at, nor are held-out edges kept from being drawn
    as training negatives: that they never are would give them away.

    Args:
        pretrained: what :func:`graphfm.pretrain` returned. It must not have seen held-out edges itself: a source of
            the target's name that is not ``split.graph`` is refused.
        split: see :func:`graphfm.data.links.link_split`; with ``disjoint`` above 0 the network learns to predict edges
            that it does not see, as it will have to.
        method: ``"cosine"`` (nothing is trained), ``"probe"`` (frozen weights, a trained decoder) or ``"finetune"``
            (the probe first, then all weights); or ``"prompt:GPF(k=5)"``, ``"adapter:LoRA(rank=8)"`` or both of these,
            as :func:`graphfm.adapt` has them. A prompt's own head is one of classes; links keep their decoder.
        adapter: such as ``LoRA(rank=8)``.
        prompt: such as ``GPF()``.
        seed: of decoder, adapter, dropout and training negatives.
        device: where to train and predict; the CPU by default.
        attach: anything else that is trained in place of the weights (:data:`graphfm.tasks.network.Attach`).
        shots: learn from this many edges of ``split.train``, drawn by ``seed``; from all unless given. The others are
            known, and no negatives are drawn among them.
        hops: neighbourhood averages that the decoder sees beside the embedding (:class:`graphfm.readout.Readout`).
        skip: let the decoder see the unified features beside the embedding.
        epochs: steps of the decoder alone, and then of fine-tuning.
        lr: learning rate of fine-tuning; the decoder alone gets three times it.
        weight_decay: of both.

    Raises:
        ValueError: a bad option, no training edges, or a backbone that saw what it is to predict.
    """
    recipe = combined(method, adapter, prompt, LINK_METHODS)
    if split.train.numel() == 0:
        raise ValueError("split.train is empty; there is nothing to learn from.")
    if shots is not None and not 1 <= shots <= split.train.size(1):
        raise ValueError(f"shots must lie in 1..{split.train.size(1)}, the number of training edges, got {shots}.")
    refuse_leaky(pretrained, split)
    where, started = as_device(device), time.perf_counter()
    with isolated_rng(seed, where):
        projection = pretrained.unifier.projection(split.graph)
        seen = read_graph(split.message, projection, where)
        network = own_network(pretrained, recipe, attach, seen, where, seed)
        readout = Readout(cast(int, network.out_channels), hops, projection.dim if skip else 0).to(where)
        decoder: nn.Module = CosineDecoder() if method == "cosine" else HadamardDecoder(readout.out_channels).to(where)
        fitted = FittedLinks(network, projection, readout, decoder, {})
        with torch.no_grad():
            whole = read_graph(split.graph, projection, where)
            readout.calibrate(whole.embed(network.eval()), whole.x, whole.adj)
        if method != "cosine":
            _fit(fitted, _Lesson(split, seen, seed, shots), recipe.method, epochs, lr, weight_decay)
    fitted.card = card_of(
        pretrained,
        split.graph,
        method=recipe.name if method == "finetune" else method,
        seed=seed,
        train_edges=split.train.size(1) if shots is None else shots,
        trained_parameters=numbers([network, decoder]),
        seconds=time.perf_counter() - started,
    )
    return fitted


def refuse_leaky(pretrained: Pretrained, split: LinkSplit) -> None:
    """Refuse a backbone that was pretrained on the target with other edges than those that are known now.

    Raises:
        ValueError: a source of the target's name and size whose edges are neither those of ``split.graph`` nor those of
            ``split.message``.
    """
    name, nodes = split.graph.get("name"), int(split.graph.num_nodes)
    sources = pretrained.card.get("sources", [])
    same = [s for s in sources if name is not None and s["name"] == str(name) and s["nodes"] == nodes]
    for source in same:
        fair = [_seen_edges(graph, "edge_digest" in source) for graph in (split.graph, split.message)]
        if source.get("edge_digest", source["edges"]) not in fair:
            raise ValueError(
                f"pretrained was shown {name!r} with {source['edges']} edges, some of which are held out now; leave it "
                "out of the sources, or pretrain on split.graph (of the same seed)."
            )


def _seen_edges(graph: Data, digest: bool) -> str | int:
    """What the card of a model says of the edges of a graph; one written long ago knows their number alone."""
    if not digest:
        return int(graph.num_edges)
    edges = graph.edge_index[:, graph.edge_index[0] < graph.edge_index[1]]
    return edge_digests(edges, torch.zeros_like(edges[0]), torch.tensor([0, int(graph.num_nodes)]))[0]


class _Lesson:
    """Training edges and as many fresh non-edges a step; validation edges with negatives drawn once."""

    def __init__(self, split: LinkSplit, inputs: Inputs, seed: int, shots: int | None = None) -> None:
        self.inputs, self.device = inputs, inputs.x.device
        self.train, self.val = split.train, split.val
        self.free = NonEdges(split.known, inputs.x.size(0))
        self.generator = torch.Generator().manual_seed(seed)
        if shots is not None:
            few = torch.randperm(split.train.size(1), generator=torch.Generator().manual_seed(seed))[:shots]
            self.train = split.train[:, few]
        self.val_pairs = self._with_negatives(self.val) if self.val.size(1) else None

    def _with_negatives(self, positive: Tensor) -> Tensor:
        negative = self.free.uniform(positive.size(1), self.generator)
        return torch.stack([positive, negative], dim=1).to(self.device)

    def pairs(self, most: int = 2048) -> Tensor:
        """``[2, 2, M]``: ends, true or not, pairs; at most ``most`` edges, another choice each time."""
        chosen = self.train
        if chosen.size(1) > most:
            chosen = chosen[:, torch.randint(chosen.size(1), (most,), generator=self.generator)]
        return self._with_negatives(chosen)


def _fit(fitted: FittedLinks, lesson: _Lesson, method: str, epochs: int, lr: float, weight_decay: float) -> None:
    network, readout, decoder = fitted.network, fitted.readout, fitted.decoder

    def loss_of(z: Tensor, pairs: Tensor) -> Tensor:
        scores = score_pairs(decoder, z, pairs)
        truth = torch.zeros_like(scores)
        truth[0] = 1.0
        return F.binary_cross_entropy_with_logits(scores, truth)

    def checked(rows: Tensor | None) -> Any:
        if lesson.val_pairs is None:
            return None
        val = lesson.val_pairs
        return lambda: float(loss_of(_rows(network, readout, lesson.inputs) if rows is None else rows, val))

    with torch.no_grad():
        fixed = _rows(network, readout, lesson.inputs)
    options: dict[str, Any] = {"weight_decay": weight_decay}
    train(
        [decoder],
        lambda: loss_of(fixed, lesson.pairs()),
        epochs=epochs,
        lr=3 * lr,
        validate=checked(fixed),
        **options,
    )
    if method == "finetune":
        train(
            [network, decoder],
            lambda: loss_of(_rows(network, readout, lesson.inputs), lesson.pairs()),
            epochs=epochs,
            lr=lr,
            validate=checked(None),
            **options,
        )


def _rows(network: nn.Module, readout: Readout, inputs: Inputs) -> Tensor:
    """What the decoder sees of every node, ``[N, D]``."""
    return readout(inputs.embed(network), inputs.x, inputs.adj)
