"""Pretrain one backbone on many graphs at once."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.checkpoint import CheckpointError, check_writable, describe_module, read_bundle, write_bundle
from graphfm.coordinators import Coordinators, vote_weights
from graphfm.data.checks import check_graph
from graphfm.data.features import Unifier
from graphfm.data.subgraphs import Subgraphs, induced_subgraphs, random_walks
from graphfm.device import as_device
from graphfm.joined import JoinedGraph, join
from graphfm.pretrained import Pretrained
from graphfm.progress import progress_bar
from graphfm.results import environment
from graphfm.rng import isolated_rng

__all__ = ["PretrainingStopped", "pretrain"]

_log = logging.getLogger(__name__)


class PretrainingStopped(RuntimeError):
    """Training ended early: the loss is no longer finite, or the process was asked to stop."""


def pretrain(
    graphs: Sequence[Data],
    *,
    backbone: nn.Module,
    objective: nn.Module,
    coordinators: Coordinators | None = None,
    unifier: Unifier | None = None,
    epochs: int = 100,
    seed: int = 0,
    device: torch.device | str | None = None,
    batch_size: int = 10,
    lr: float = 1e-3,
    weight_decay: float = 1e-5,
    start_share: float = 0.1,
    walk_length: int = 30,
    hop: float = 0.5,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 10,
    resume: bool = False,
    warm_start: bool = False,
    progress: bool = False,
) -> Pretrained:
    """Train ``backbone`` on random-walk subgraphs of all graphs, joined by coordinators (GCOPE, 2402.09834).

    The arguments are not edited: backbone, objective and coordinators are copied, and drawn anew from ``seed``. Labels
    are never read. Graphs are taken as undirected.

    Args:
        graphs: the sources; any feature widths, or none.
        backbone: from ``unifier.dim`` features to embeddings; one of :mod:`graphfm.backbones` or any module with the
            same ``forward``, ``in_channels`` and ``out_channels``.
        objective: one of :mod:`graphfm.objectives`.
        coordinators: what joins the graphs; ``None`` pretrains on them side by side (isolated pretraining).
        unifier: how features are brought to one width; by default to the backbone's.
        epochs: passes over the samples.
        seed: of everything drawn.
        device: where to train; the CPU by default.
        batch_size: subgraphs a step.
        lr: learning rate of Adam.
        weight_decay: of Adam.
        start_share: walks start at this share of all nodes, drawn once.
        walk_length: steps a walk.
        hop: probability that a walk on a coordinator goes on to another one, so that samples span domains.
        checkpoint: folder for the state to resume from; written every ``checkpoint_every`` epochs and on SIGTERM.
        checkpoint_every: epochs between two checkpoints.
        resume: go on from ``checkpoint`` if it holds a state of the same run; the result is the same to the last bit
            as that of a run never stopped (same device, same threads).
        warm_start: keep the backbone's weights instead of drawing them anew.
        progress: show a progress bar.

    Returns:
        The backbone with its unifier, coordinators and card.

    Raises:
        ValueError: bad graphs or settings, or a backbone whose input width is not the unifier's.
        PretrainingStopped: a loss that is NaN or infinite, or a SIGTERM.
    """
    graphs = [check_graph(g, f"graphs[{i}]", features=False) for i, g in enumerate(graphs)]
    _check_settings(graphs, backbone, epochs, batch_size, start_share, walk_length, hop)
    settings = {
        "epochs": epochs, "seed": seed, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay,
        "start_share": start_share, "walk_length": walk_length, "hop": hop, "warm_start": warm_start,
    }  # fmt: skip
    where = as_device(device)
    if checkpoint is not None:
        check_writable(checkpoint)
    with isolated_rng(seed, where):
        unifier = (unifier or Unifier(backbone.in_channels)).fit(graphs)
        if unifier.dim != backbone.in_channels:
            raise ValueError(f"unifier.dim is {unifier.dim}, backbone.in_channels {backbone.in_channels}.")
        joined = join(graphs, unifier, copy.deepcopy(coordinators))
        samples = _draw_samples(joined, start_share, walk_length, hop, seed)
        run = _Run(joined, samples, copy.deepcopy(backbone), copy.deepcopy(objective), where, settings)
        started = time.perf_counter()
        if resume and checkpoint is not None:
            run.restore(checkpoint)
        with _stop_on_sigterm() as stop, progress_bar(epochs, "pretraining", enabled=progress) as advance:
            advance(run.epoch)
            while run.epoch < epochs:
                loss = run.one_epoch(stop, checkpoint)
                advance(1, f"loss {loss:.4f}")
                if checkpoint is not None and (run.epoch % checkpoint_every == 0 or run.epoch == epochs):
                    run.save(checkpoint)
    card = _card(graphs, unifier, joined, objective, run, settings, time.perf_counter() - started)
    return Pretrained(run.backbone.eval(), unifier, run.coordinators, card)


class _Run:
    """The state of one pretraining run: networks, optimiser, and the place in the epoch."""

    def __init__(
        self,
        joined: JoinedGraph,
        samples: Subgraphs,
        backbone: nn.Module,
        objective: nn.Module,
        device: torch.device,
        settings: dict[str, Any],
    ) -> None:
        self.samples, self.settings, self.device = samples, settings, device
        self.joined, self.coordinators = joined, joined.coordinators
        if not settings["warm_start"]:
            backbone.reset_parameters()
        objective.bind(backbone.in_channels, backbone.out_channels)
        self.backbone, self.objective = backbone.to(device).train(), objective.to(device).train()
        modules: list[nn.Module] = [self.backbone, self.objective]
        if self.coordinators is not None:
            modules.append(self.coordinators.to(device))
        self.modules = nn.ModuleList(modules)
        self.optimizer = torch.optim.Adam(
            self.modules.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"], fused=True
        )
        self.x = joined.x.to(device)
        self.domain_of_sample = joined.domain[samples.node[samples.ptr[:-1]]]
        self.epoch = 0
        self.step = 0
        self.losses: list[float] = []  # mean loss of each finished epoch
        self.parts = torch.zeros(0, device=device)  # loss of each step of the epoch under way
        self.last_good: str | None = None

    def one_epoch(self, stop: threading.Event, checkpoint: str | os.PathLike[str] | None) -> float:
        """Go through the samples once (or through what is left of the epoch) and return the mean loss."""
        batches = epoch_batches(self.domain_of_sample, self.settings["batch_size"], self.settings["seed"], self.epoch)
        if self.step == 0:
            self.parts = torch.zeros(len(batches), device=self.device)
        for step in range(self.step, len(batches)):
            self.parts[step] = self._one_step(batches[step])
            self.step = step + 1
            # A GPU is not asked for every loss: that would stall it. Its losses are checked once an epoch.
            if self.device.type == "cpu" and not math.isfinite(float(self.parts[step])):
                self._stop_unless_finite(batches)
            if stop.is_set():
                self._leave(checkpoint)
        self._stop_unless_finite(batches)
        mean = float(self.parts.mean())
        self.losses.append(mean)
        self.epoch, self.step = self.epoch + 1, 0
        _log.info("epoch %d: loss %.4f", self.epoch, mean)
        return mean

    def _one_step(self, index: Tensor) -> Tensor:
        batch = self._batch(index)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.objective(self.backbone, batch)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _batch(self, index: Tensor) -> Data:
        batch = self.samples.take(index)
        node = batch.node
        batch.is_coordinator = node >= self.joined.num_ordinary
        weight = self.joined.adj.weight
        batch.edge_weight = None if weight is None else weight[batch.edge]
        hubs = torch.nonzero(batch.is_coordinator).flatten()
        if hubs.numel():
            batch.edge_weight = vote_weights(batch.edge_index, batch.is_coordinator, batch.edge_weight)
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        batch.x = self.x.index_select(0, batch.node)
        if hubs.numel() and self.coordinators is not None:
            which = (node[hubs] - self.joined.num_ordinary).to(self.device, non_blocking=True)
            features = self.coordinators.features.index_select(0, which)
            batch.x = batch.x.index_copy(0, hubs.to(self.device, non_blocking=True), features)
        return batch

    def _stop_unless_finite(self, batches: list[Tensor]) -> None:
        bad = torch.nonzero(~torch.isfinite(self.parts)).flatten()
        if not bad.numel():
            return
        step = int(bad[0])
        domains = torch.unique(self.domain_of_sample[batches[step]])
        names = ", ".join(self.joined.names[int(d)] for d in domains)
        kept = f"the last good checkpoint is {self.last_good}" if self.last_good else "no checkpoint was written"
        raise PretrainingStopped(
            f"the loss is {float(self.parts[step])} in epoch {self.epoch + 1}, batch {step + 1} of {len(batches)} "
            f"(domains: {names}); {kept}. Lower lr ({self.settings['lr']}) or look at the features of these domains."
        )

    def _leave(self, checkpoint: str | os.PathLike[str] | None) -> None:
        if checkpoint is None:
            raise PretrainingStopped("stopped by SIGTERM; no checkpoint folder was given, so nothing was kept.")
        self.save(checkpoint)
        raise PretrainingStopped(f"stopped by SIGTERM in epoch {self.epoch + 1}; resume from {checkpoint}.")

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write everything that the rest of the run depends on."""
        tensors = {f"module.{k}": v for k, v in self.modules.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        tensors["parts"] = self.parts
        settings = {"run": self._identity(), "epoch": self.epoch, "step": self.step, "losses": self.losses}
        write_bundle(folder, "training", settings, tensors)
        self.last_good = f"{folder} (epoch {self.epoch})"

    def restore(self, folder: str | os.PathLike[str]) -> None:
        """Go on from what :meth:`save` wrote; starts afresh where nothing was saved yet.

        Raises:
            CheckpointError: a damaged state, or one of another run.
        """
        if not (Path(folder) / "training.json").exists():
            _log.info("%s holds no training state: starting from the beginning", folder)
            return
        settings, tensors = read_bundle(folder, "training")
        if settings["run"] != self._identity():
            differ = [k for k, v in self._identity().items() if settings["run"].get(k) != v]
            raise CheckpointError(f"{folder} belongs to another run (it differs in {differ}); give another folder.")
        self.modules.load_state_dict({k.removeprefix("module."): v for k, v in tensors.items() if k[:7] == "module."})
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, i, name = key.split(".")
                state.setdefault(int(i), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.parts = tensors["parts"].to(self.device)
        self.epoch, self.step, self.losses = settings["epoch"], settings["step"], settings["losses"]
        self.last_good = f"{folder} (epoch {self.epoch})"

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a state to be of this run; more epochs are welcome."""
        settings = {k: v for k, v in self.settings.items() if k != "epochs"}
        return settings | {
            "backbone": describe_module(self.backbone),
            "objective": type(self.objective).__name__,
            "coordinators": None if self.coordinators is None else describe_module(self.coordinators),
            "sources": self.joined.names,
            "samples": len(self.samples),
            "nodes": int(self.samples.node.sum()),
            "device": self.device.type,
        }


def _draw_samples(joined: JoinedGraph, share: float, length: int, hop: float, seed: int) -> Subgraphs:
    """Subgraphs induced by random walks; those below 5 nodes are dropped, as in GCOPE."""
    generator = torch.Generator().manual_seed(seed)
    count = max(2, round(share * joined.num_ordinary))
    start = torch.randperm(joined.num_ordinary, generator=generator)[:count]
    hubs = joined.num_ordinary if joined.coordinators is not None else None
    walks = random_walks(joined.adj, start, length, generator, hubs_from=hubs, hop=hop)
    samples = induced_subgraphs(joined.adj, walks)
    big = samples.ptr.diff() >= 5
    if int(big.sum()) < 2:
        raise ValueError(
            f"graphs: only {int(big.sum())} of {count} walks cover 5 nodes; at least 2 are needed. "
            "Use more or larger graphs, a larger start_share or longer walks."
        )
    return samples.select(big)


def epoch_batches(domain: Tensor, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Batches of one epoch, each domain spread evenly over all of them.

    Args:
        domain: ``[S]`` domain of each sample.
        batch_size: samples a batch; the batches are of nearly equal size, and of at least 2.
        seed: of the run.
        epoch: which epoch; the order depends on nothing else, so a resumed run draws the same.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) & 0x7FFF_FFFF_FFFF_FFFF)
    order = torch.randperm(domain.numel(), generator=generator)
    order = order[torch.argsort(domain[order], stable=True)]
    count = torch.bincount(domain)
    rank = torch.arange(order.numel()) - (torch.cumsum(count, 0) - count)[domain[order]]
    luck = torch.rand(order.numel(), generator=generator, dtype=torch.float64)
    position = (rank + luck) / count[domain[order]]
    order = order[torch.argsort(position, stable=True)]
    parts = max(1, min(-(-order.numel() // batch_size), order.numel() // 2))
    return list(order.tensor_split(parts))


def sampling_facts(samples: Subgraphs, joined: JoinedGraph, batches: list[Tensor], hops: int) -> dict[str, float]:
    """What the samples hold of several domains: shares in [0, 1], sizes as means a sample.

    ``nodes_reached`` is the share of ordinary nodes within ``hops`` steps of a node or coordinator of another domain.
    """
    count, domains = len(samples), len(joined.names)
    owner = torch.repeat_interleave(torch.arange(count), samples.ptr.diff())
    domain = joined.domain[samples.node]
    present = torch.zeros(count, domains, dtype=torch.bool)
    present[owner, domain] = True
    ordinary = samples.node < joined.num_ordinary
    edge_owner = torch.repeat_interleave(torch.arange(count), samples.edge_ptr.diff())
    source, target = samples.edge_index + samples.ptr[edge_owner]
    foreign = torch.zeros(samples.node.numel(), domains)
    foreign[torch.arange(samples.node.numel()), domain] = 1.0
    for _ in range(hops):
        foreign = foreign.index_add(0, target, foreign[source]).clamp_(max=1.0)
    reached = (foreign.sum(1) > 1) & ordinary
    several = torch.tensor([bool((present[b].any(0)).sum() > 1) for b in batches]).float().mean()
    return {
        "samples": float(count),
        "nodes_a_sample": samples.node.numel() / count,
        "edges_a_sample": samples.edge.numel() / count,
        "coordinators_a_sample": float((~ordinary).sum()) / count,
        "batches_of_several_domains": float(several),
        "samples_that_span_domains": float((present.sum(1) > 1).float().mean()),
        "nodes_reached_across_domains": float(reached.sum()) / max(float(ordinary.sum()), 1.0),
    }


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[threading.Event]:
    """Turn SIGTERM into a flag that is looked at between two steps; only the main thread can take signals."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_settings(
    graphs: Sequence[Data], backbone: nn.Module, epochs: int, batch_size: int, share: float, length: int, hop: float
) -> None:
    if not graphs:
        raise ValueError("graphs is empty; give at least one graph to pretrain on.")
    for name in ("in_channels", "out_channels"):
        if not isinstance(getattr(backbone, name, None), int):
            raise ValueError(f"backbone must have an integer attribute {name}; {type(backbone).__name__} has none.")
    if epochs < 0:
        raise ValueError(f"epochs must not be negative, got {epochs}.")
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2 (a contrast needs two graphs), got {batch_size}.")
    if not 0 < share <= 1:
        raise ValueError(f"start_share must lie in (0, 1], got {share}.")
    if length < 1:
        raise ValueError(f"walk_length must be at least 1, got {length}.")
    if not 0 <= hop < 1:
        raise ValueError(f"hop must lie in [0, 1), got {hop}.")


def _card(
    graphs: Sequence[Data],
    unifier: Unifier,
    joined: JoinedGraph,
    objective: nn.Module,
    run: _Run,
    settings: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    sources = [
        {"name": n, "nodes": int(g.num_nodes), "edges": int(g.num_edges), "features": p.width}
        for n, g, p in zip(joined.names, graphs, unifier.projections, strict=True)
    ]
    batches = epoch_batches(run.domain_of_sample, settings["batch_size"], settings["seed"], 0)
    hops = int(getattr(run.backbone, "num_hops", 2))
    sampling = sampling_facts(run.samples, joined, batches, hops)
    _log.info("sampling: %s", ", ".join(f"{k} {v:.3g}" for k, v in sampling.items()))
    return {
        "sources": sources,
        "objective": type(objective).__name__,
        "coordinators": None if run.coordinators is None else repr(run.coordinators),
        "settings": settings,
        "sampling": sampling,
        "history": {"loss": run.losses},
        "seconds": seconds,
        "device": str(run.device),
        "versions": environment(),
    }
