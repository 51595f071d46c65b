"""GRePO-LTV: graph pretraining against scarcity, one trunk, a head for all horizons, Pareto weights (2506.11037)."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphfm.data.purchases import LeakError, show_time
from graphfm.device import as_device
from graphfm.ltv.columns import Columns
from graphfm.ltv.forecast import Forecast
from graphfm.ltv.heads import MonotoneHead, ZILNHead
from graphfm.ltv.inputs import Inputs, gather
from graphfm.ltv.loss_range import widest_range
from graphfm.ltv.named import part_of
from graphfm.ltv.plain import labels_of
from graphfm.ltv.prepared import Prepared
from graphfm.ltv.pretraining import PurchaseEncoder
from graphfm.ltv.supervised import Labelled, Network, Settings, train
from graphfm.ltv.task import Task
from graphfm.ltv.trunk import Trunk
from graphfm.ltv.vocabulary import Vocabulary
from graphfm.pareto import Combiner, WeightedSum
from graphfm.rng import isolated_rng

__all__ = ["GRePO"]

_log = logging.getLogger(__name__)
_SNAPSHOTS = 2  # that the encoder learns from: those of one log are much alike


class GRePO:
    """Value over several horizons, as zero-inflated lognormals.

    A frozen encoder, pretrained without labels on who buys the same things, embeds users and items; a trunk reads
    their features, those of the pair, and the embeddings; a head gives a distribution for each horizon; a combiner
    makes one gradient of the horizons' losses. With parts left out this is an MLP with a ZILN head
    (``graph=False``), the same with an embedding of items, or a network for one horizon; see
    :mod:`graphfm.ltv.variants`. The paper's layers and rates are not published: these are ours.

    Args:
        graph: whether to pretrain an encoder and read its embeddings (a log without items has no graph to learn from:
            there the model goes without, and says so); or an encoder: a fitted one is read as it is, of another one a
            copy is fitted.
        item_embedding: whether the trunk learns a vector for each item of the training members, by its name; one for
            all others.
        head: ``MonotoneHead`` (more days are never worth less) or ``ZILNHead``, made with ``(width, K)``; or its name.
        combine: one of :mod:`graphfm.pareto`, or its name as in ``"MGDA(lower=0.1)"``; the plain sum where it is not
            given. One that compares losses (EPO, UncertaintyWeighting) and has no range gets
            :func:`graphfm.ltv.loss_range.widest_range`.
        width: of the trunk.
        layers: of the trunk.
        dropout: rate in the trunk.
        norm: whether the trunk has LayerNorms.
        epochs: passes over the members, at most.
        patience: passes without a better validation score after which training ends.
        batch_size: members a step.
        lr: learning rate of AdamW.
        weight_decay: of AdamW.
        non_payers: share of those who pay nothing that a pass over the members learns from; P(pay) stays that of
            everybody, see :mod:`graphfm.ltv.subsample`.
        levels: of the quantiles that are forecast.
        seed: of everything drawn.
        device: where to train and predict; the CPU where it is not given.

    Raises:
        ValueError: sizes or rates out of range, or no such device.

    Attributes, once fitted: ``network``, ``encoder``, ``vocabulary``, ``columns``, ``fingerprint`` of the training
    data, ``combined_by`` (the combiner's name), ``history`` (see :func:`graphfm.ltv.supervised.train`).
    """

    def __init__(
        self,
        *,
        graph: bool | PurchaseEncoder = True,
        item_embedding: bool = False,
        head: type[MonotoneHead] | type[ZILNHead] | str = MonotoneHead,
        combine: Combiner | str | None = None,
        width: int = 64,
        layers: int = 2,
        dropout: float = 0.1,
        norm: bool = True,
        epochs: int = 40,
        patience: int = 5,
        batch_size: int = 1024,
        lr: float = 3e-3,
        weight_decay: float = 1e-4,
        non_payers: float = 1.0,
        levels: Sequence[float] = (0.1, 0.5, 0.9),
        seed: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        least = {"width": width, "layers": layers, "epochs": epochs, "patience": patience, "batch_size": batch_size}
        for name, value in least.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if not (0 <= dropout < 1 and lr > 0 and weight_decay >= 0):
            raise ValueError(
                f"dropout must lie in [0, 1), lr be above 0 and weight_decay at least 0; got {dropout}, {lr} and "
                f"{weight_decay}."
            )
        if not 0 < non_payers <= 1:
            raise ValueError(f"non_payers must lie in (0, 1], got {non_payers}.")
        self.graph, self.item_embedding = graph, item_embedding
        self.head = part_of("ltv", head) if isinstance(head, str) else head
        found = part_of("pareto", combine) if isinstance(combine, str) else combine
        self.combine: Combiner | None = found() if isinstance(found, type) else found
        self.width, self.layers, self.dropout, self.norm = width, layers, dropout, norm
        self.settings = Settings(epochs, patience, batch_size, lr, weight_decay, non_payers)
        self.levels, self.seed, self.device = tuple(levels), seed, as_device(device)
        self.network: Network | None = None
        self.encoder: PurchaseEncoder | None = None
        self.vocabulary: Vocabulary | None = None
        self.history: dict[str, list[Any]] = {}
        self.fingerprint, self.combined_by = "", ""

    def arguments(self) -> dict[str, Any]:
        """The arguments that are plain values: what a file keeps of them."""
        names = ("item_embedding", "width", "layers", "dropout", "norm", "seed")
        named = {name: getattr(self, name) for name in names}
        return named | dataclasses.asdict(self.settings) | {"levels": list(self.levels)}

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> GRePO:
        """Pretrain on the snapshots of ``tasks``, learn from their labels, stop by those of ``val``.

        Without ``val`` all epochs are gone through.

        Raises:
            ValueError: no task; tasks without labels, or with other units, horizons or columns.
            LeakError: an encoder that was fitted on later snapshots.
        """
        return self.fit_prepared(self.prepare(tasks, val))

    def prepare(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> Prepared:
        """Everything before the first step: pretraining, embeddings, labels."""
        value = np.concatenate([labels.value for labels in labels_of(tasks)])
        columns = Columns.of(tasks[0])
        for task in (*tasks, *val):
            columns.check(task)
        encoder = self._encoder(tasks)
        vocabulary = self._vocabulary(tasks)
        judged = None
        if val:
            of_val = np.concatenate([labels.value for labels in labels_of(val)])
            judged = Labelled(gather(val, encoder, vocabulary), torch.from_numpy(of_val).float())
        data = Labelled(gather(tasks, encoder, vocabulary), torch.from_numpy(value).float())
        return Prepared(data, judged, encoder, vocabulary, columns)

    def fit_prepared(self, prepared: Prepared, start: GRePO | None = None) -> GRePO:
        """Train on what :meth:`prepare` made, from weights drawn anew or from those of ``start``."""
        self.columns, self.encoder, self.vocabulary = prepared.columns, prepared.encoder, prepared.vocabulary
        value = prepared.data.value
        scale = widest_range(self.head, value)
        combiner = WeightedSum() if self.combine is None else copy.deepcopy(self.combine)
        if getattr(combiner, "losses", scale) is None:  # of those combiners that have one: the losses it will see
            setattr(combiner, "losses", widest_range(self.head, value, self.settings.non_payers))  # noqa: B010
        with isolated_rng(self.seed, self.device):
            network = self.build(prepared.data.inputs.width)
            network.head.start_at(value)
            if start is not None:
                network.load_state_dict(start.fitted_network().state_dict())
            network.to(self.device)
            self.history = train(network, combiner, prepared.data, prepared.val, self.settings, scale)
        self.network = network.eval()
        self.fingerprint, self.combined_by = prepared.fingerprint(), type(combiner).__name__
        return self

    def fitted_network(self) -> Network:
        """Trunk and head.

        Raises:
            RuntimeError: ``fit`` was not called.
        """
        if self.network is None:
            raise RuntimeError("the model has no network yet; call fit first.")
        return self.network

    def build(self, features: int) -> Network:
        """Trunk and head for so many features, drawn anew."""
        items = len(self.vocabulary) if self.vocabulary is not None else 0
        trunk = Trunk(features, self.width, self.layers, self.dropout, items, norm=self.norm)
        return Network(trunk, self.head(self.width, len(self.columns.horizons)), features)

    def predict(self, task: Task) -> Forecast:
        """Distributions of all members; users and items that were not there at fit time are told by their features.

        Raises:
            RuntimeError: ``fit`` was not called.
            ValueError: a task with other columns than those of the fit.
        """
        parts = [forecast for _, forecast in self.stream(task)]
        return Forecast(
            np.concatenate([part.pay for part in parts]),
            np.concatenate([part.mean for part in parts]),
            np.concatenate([part.quantiles for part in parts if part.quantiles is not None]) if self.levels else None,
            self.levels,
        )

    def stream(self, task: Task, rows: int = 65536) -> Iterator[tuple[Task, Forecast]]:
        """:meth:`predict` some members at a time: memory beside the snapshot does not grow with the population.

        Args:
            task: whom to predict.
            rows: members at a time.

        Yields:
            a part of the task and its forecast, such as for ``forecast.table(part)``.
        """
        network = self.fitted_network()
        self.columns.check(task)
        inputs = gather([task], self.encoder, self.vocabulary)
        if inputs.width != network.features:  # of an encoder of another width, or a model of another version
            raise ValueError(f"a member has {inputs.width} features, the model reads {network.features}; fit it anew.")
        for low in range(0, len(inputs), rows):
            part = slice(low, low + rows)
            yield task.part(part), self._forecast(network, inputs, part)

    @torch.no_grad()
    def _forecast(self, network: Network, inputs: Inputs, part: slice) -> Forecast:
        told = network(*inputs.rows(part, self.device))
        quantiles = torch.stack([told.quantile(level) for level in self.levels], dim=-1) if self.levels else None
        pay, mean = _array(told.pay()), _array(told.mean())
        return Forecast(pay, mean, None if quantiles is None else _array(quantiles), self.levels)

    def _encoder(self, tasks: Sequence[Task]) -> PurchaseEncoder | None:
        if self.graph is False:
            return None
        if self.graph is True and not any(task.past.has_items for task in tasks):
            _log.warning("the log has no items, so nothing joins its users: the model goes without a graph")
            return None
        encoder = PurchaseEncoder(seed=self.seed, device=self.device) if self.graph is True else self.graph
        newest = max(task.population.cutoff for task in tasks)
        if encoder.networks and encoder.until > newest:
            raise LeakError(
                f"the encoder has seen the log until {show_time(encoder.until)}, the tasks end at {show_time(newest)}; "
                "give one that was fitted before then, or graph=True."
            )
        if encoder.networks:
            return encoder
        # The newest, and others at equal distances before it.
        ordered = sorted(tasks, key=lambda task: -task.population.cutoff)
        chosen = ordered[:: -(-len(ordered) // _SNAPSHOTS)]
        return copy.deepcopy(encoder).fit([task.snapshot for task in chosen])

    def _vocabulary(self, tasks: Sequence[Task]) -> Vocabulary | None:
        if not self.item_embedding:
            return None
        names = []
        for task in tasks:
            if task.population.item is None:
                raise ValueError("item_embedding=True needs pairs; these tasks are of users.")
            names.append(task.past.items[np.unique(task.population.item)])
        return Vocabulary(np.concatenate(names))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the fitted model; see :func:`graphfm.ltv.store.save_model`."""
        from graphfm.ltv.store import save_model  # which knows this class

        return save_model(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: torch.device | str | None = None) -> GRePO:
        """Read a model that :meth:`save` wrote; see :func:`graphfm.ltv.store.load_model`."""
        from graphfm.ltv.store import load_model

        return load_model(folder, device=device)


def _array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
