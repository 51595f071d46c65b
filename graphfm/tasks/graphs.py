"""Classify graphs: carry a pretrained backbone to a collection of graphs of which few are labelled."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.baselines.graphs import check_graphs
from graphfm.beside import prompt_of
from graphfm.data.checks import check_graph
from graphfm.data.features import Projection, raw_features
from graphfm.data.splits import Split
from graphfm.device import as_device
from graphfm.fitting import Lesson, fit_head, numbers, train
from graphfm.heads import LinearHead, PrototypeHead
from graphfm.inputs import Inputs
from graphfm.methods import Adapter, combined
from graphfm.nn.adjacency import neighbours
from graphfm.pretrained import Pretrained
from graphfm.prompts.base import Prompt
from graphfm.prompts.gppt import TokenHead
from graphfm.rng import isolated_rng
from graphfm.tasks.network import Attach, card_of, own_network, read_graph
from graphfm.tasks.pooled import PooledReadout
from graphfm.tasks.stored import Stored, load_stored, save_stored

__all__ = ["GRAPH_METHODS", "FittedGraphs", "adapt_graphs"]

GRAPH_METHODS = ("finetune", "probe", "prototype")


@dataclasses.dataclass
class FittedGraphs:
    """A network and a head that classify graphs.

    Attributes:
        network: from nodes to embeddings, in evaluation mode.
        projection: the way of the nodes' features into it.
        readout: from nodes to one row a graph.
        head: from that row to class scores.
        num_classes: C.
        card: JSON-able facts.
    """

    network: nn.Module
    projection: Projection
    readout: PooledReadout
    head: LinearHead | PrototypeHead | TokenHead
    num_classes: int
    card: dict[str, Any]

    @torch.no_grad()
    def embed(self, data: Data) -> Tensor:
        """What the head reads, ``[G, D]``, of a batch of graphs: those it was fitted on, or others of their kind.

        Raises:
            ValueError: no batch, or another feature width.
        """
        part = _Part.of(data, self.projection, self.readout.centre.device)
        return part.rows(self.network.eval(), self.readout)

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Class probabilities ``[G, C]`` on the CPU; see :meth:`embed`."""
        return torch.softmax(self.head.eval()(self.embed(data)), dim=1).cpu()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``graphs.json`` and its safetensors; returns the folder.

        Raises:
            ValueError: a network that keeps weights out of its state dict which are no adapter's.
            OSError: the folder cannot be written.
        """
        parts = Stored(self.network, self.projection, self.readout, self.head, self.card)
        return save_stored(folder, "graphs", parts)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        backbone: nn.Module | None = None,
        prompts: Iterable[type[Prompt]] = (),
        device: torch.device | str | None = None,
    ) -> FittedGraphs:
        """Read a folder that :meth:`save` wrote.

        Args:
            folder: the model.
            backbone: takes the weights of a class of your own.
            prompts: classes of prompts of your own.
            device: where to put it.

        Raises:
            CheckpointError: no saved model, or one that is damaged or foreign.
        """
        found = load_stored(folder, "graphs", PooledReadout, [LinearHead, PrototypeHead], backbone, device, prompts)
        head = cast(LinearHead | PrototypeHead | TokenHead, found.head)
        readout = cast(PooledReadout, found.readout)
        return cls(found.network, found.projection, readout, head, head.num_classes, found.card)


def adapt_graphs(
    pretrained: Pretrained,
    data: Data,
    split: Split,
    *,
    method: str = "finetune",
    adapter: Adapter | None = None,
    prompt: Prompt | None = None,
    seed: int,
    device: torch.device | str | None = None,
    attach: Attach | None = None,
    pool: str = "sum",
    skip: bool = True,
    transductive: bool = False,
    epochs: int = 50,
    lr: float = 1e-3,
    weight_decay: float = 5e-4,
) -> FittedGraphs:
    """Fit a copy of the backbone and a head to the graphs of ``split.train``; ``pretrained`` stays as it is.

    The setting is inductive: graphs outside of ``split.train`` are not looked at, but for those of ``split.val``, which
    choose the step to keep. ``transductive=True`` lets the features of all graphs, never their labels, into the
    projection and the centring.

    Args:
        pretrained: what :func:`graphfm.pretrain` returned.
        data: a batch of graphs with class labels ``y`` ``[G]`` (negative where unknown), as ``load("mutag")`` gives.
            Graphs without features get structural ones.
        split: of graphs: ``few_shot(data.y, shots, seed)``.
        method: ``"probe"``, ``"prototype"``, ``"finetune"`` (the probe first), ``"prompt:GPF(k=5)"``,
            ``"adapter:LoRA(rank=8)"`` or both of these, as :func:`graphfm.adapt` has them. A prompt's own head, where
            it has one, compares the pooled rows of what the prompt reads out; ``skip`` has no meaning then.
        adapter: such as ``LoRA(rank=8)``.
        prompt: such as ``GPF()``.
        seed: of head, adapter and dropout.
        device: where to train and predict; the CPU by default.
        attach: anything else that is trained in place of the weights (:data:`graphfm.tasks.network.Attach`).
        pool: ``"sum"`` or ``"mean"`` over a graph's nodes; a mean does not know a graph's size.
        skip: let the head see the pooled unified features beside the embedding.
        transductive: see above.
        epochs: steps of fine-tuning, all training graphs at once.
        lr: learning rate of fine-tuning.
        weight_decay: of fine-tuning.

    Raises:
        ValueError: a bad batch, split or option.
    """
    recipe = combined(method, adapter, prompt, GRAPH_METHODS)
    y = check_graphs(data)
    check_graph(data, "data", features=False)
    split.check(y.numel(), y)
    where, started, classes = as_device(device), time.perf_counter(), int(y.max()) + 1
    with isolated_rng(seed, where):
        projection = _projection(pretrained, data, None if transductive else split.train)
        whole = _Part.of(data, projection, where)
        learned = whole.take(split.train)
        network = own_network(pretrained, recipe, attach, learned.inputs, where, seed)
        readout, head = _readout_and_head(network, recipe.method, classes, projection.dim if skip else 0, pool)
        fitted = FittedGraphs(network, projection, readout.to(where), head.to(where), classes, {})
        target = y.to(where)
        _fit_frozen(fitted, whole if transductive else learned, learned, target[split.train])
        if recipe.method == "finetune":
            val = (whole.take(split.val), target[split.val]) if split.val.numel() else None
            options = {"epochs": epochs, "lr": lr, "weight_decay": weight_decay}
            _finetune(fitted, learned, target[split.train], val, options)
    fitted.card = card_of(
        pretrained,
        data,
        method=recipe.name if method == "finetune" else method,
        seed=seed,
        pool=pool,
        transductive=transductive,
        train_graphs=split.train.numel(),
        trained_parameters=numbers([network, head]),
        seconds=time.perf_counter() - started,
    )
    return fitted


@dataclasses.dataclass(frozen=True)
class _Part:
    """Some graphs side by side, as the backbone sees them, and which rows are whose."""

    inputs: Inputs
    ptr: Tensor
    batch: Tensor

    @classmethod
    def of(cls, data: Data, projection: Projection, device: torch.device) -> _Part:
        if data.get("ptr") is None or data.get("batch") is None:
            raise ValueError("data has no batch: graph tasks take many graphs; use Batch.from_data_list(graphs).")
        check_graph(data, "data", features=False)
        return cls(read_graph(data, projection, device), data.ptr.to(device), data.batch.to(device))

    def take(self, graphs: Tensor) -> _Part:
        nodes, batch = neighbours(self.ptr, graphs.to(self.ptr.device))
        size = self.ptr.diff()[graphs.to(self.ptr.device)]
        ptr = torch.cat([size.new_zeros(1), torch.cumsum(size, 0)])
        return _Part(Inputs(self.inputs.x[nodes], self.inputs.adj.induced(nodes)), ptr, batch)

    def rows(self, network: nn.Module, readout: PooledReadout) -> Tensor:
        return readout(self.inputs.embed(network), self.inputs.x, self.ptr, self.batch)


def _projection(pretrained: Pretrained, data: Data, graphs: Tensor | None) -> Projection:
    """The way into the backbone, fitted on the nodes of some graphs, or of all."""
    x = raw_features(data)
    if graphs is not None:
        x = x.to_dense()[torch.isin(data.batch, graphs)]
    if x.size(0) == 0:
        raise ValueError("the graphs of split.train have no nodes; there is nothing to learn from.")
    some = Data(x=x, edge_index=torch.empty(2, 0, dtype=torch.long), name=str(data.get("name", "")))
    return pretrained.unifier.projection(some)


def _readout_and_head(
    network: nn.Module, method: str, classes: int, beside: int, pool: str
) -> tuple[PooledReadout, LinearHead | PrototypeHead | TokenHead]:
    prompt, channels = prompt_of(network), cast(int, network.out_channels)
    own: Any = None if prompt is None else prompt.head(classes)
    if own is not None:
        # Such a head compares pooled rows as they come with means or tokens of the same space.
        return PooledReadout(channels, 0, pool), own
    readout = PooledReadout(channels, beside, pool)
    return readout, (PrototypeHead if method == "prototype" else LinearHead)(readout.out_channels, classes)


@torch.no_grad()
def _fit_frozen(fitted: FittedGraphs, seen: _Part, learned: _Part, y: Tensor) -> None:
    network, readout, head = fitted.network.eval(), fitted.readout, fitted.head
    if not hasattr(head, "loss"):
        readout.calibrate(seen.inputs.embed(network), seen.inputs.x, seen.ptr, seen.batch)
    fit_head(head, learned.rows(network, readout), y)


def _finetune(
    fitted: FittedGraphs, learned: _Part, y: Tensor, val: tuple[_Part, Tensor] | None, options: dict[str, Any]
) -> None:
    network, readout, head = fitted.network, fitted.readout, fitted.head
    lesson = Lesson(head, lambda: learned.rows(network, readout), y)
    validate = None
    if val is not None:
        part, known = val
        validate = lesson.validation(lambda: part.rows(network, readout), known)
    train([network, head], lesson.loss, validate=validate, **options)
    lesson.refit()
