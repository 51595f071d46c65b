"""Pretrain one backbone on many graphs at once."""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Data

from graphfm.checkpoint import check_writable
from graphfm.coordinators import Coordinators
from graphfm.data.checks import check_graph, check_has_edges
from graphfm.data.features import Unifier
from graphfm.distributed import RankLost, Ranks, find_ranks, rank_device
from graphfm.fingerprint import fingerprint, source_digests
from graphfm.foreign import as_backbone, bare_backbone, redraw
from graphfm.history import history
from graphfm.joined import join
from graphfm.pretrained import Pretrained
from graphfm.progress import progress_bar
from graphfm.results import environment
from graphfm.rng import isolated_rng
from graphfm.samplers import RandomWalks
from graphfm.samplers.base import Sampler, check_integer
from graphfm.sigterm import stop_on_sigterm
from graphfm.tokens import Tokens
from graphfm.training import PretrainingStopped, TrainingRun

__all__ = ["PretrainingStopped", "pretrain"]

_log = logging.getLogger(__name__)
_SAME = "Give every rank the same graphs, settings and checkpoint."


def pretrain(
    graphs: Sequence[Data],
    *,
    backbone: nn.Module,
    objective: nn.Module,
    coordinators: Coordinators | Tokens | None = None,
    unifier: Unifier | None = None,
    epochs: int = 100,
    seed: int = 0,
    device: torch.device | str | None = None,
    sampler: Sampler | None = None,
    groups: int | None = None,
    lr: float = 1e-3,
    weight_decay: float = 1e-5,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 10,
    resume: bool = False,
    warm_start: bool = False,
    progress: bool = False,
) -> Pretrained:
    """Train ``backbone`` on all graphs, joined by coordinators (GCOPE, 2402.09834), with any objective and sampler.

    The arguments are not edited: backbone, objective and coordinators are copied, and drawn anew from ``seed``. Labels
    are never read. Graphs are taken as undirected.

    Under ``torchrun`` the processes share each batch (:mod:`graphfm.distributed`): every rank is to make the same call
    and gets the same model, which is, to the last bit, that of one process with the same ``groups``.

    Args:
        graphs: the sources; any feature widths, or none.
        backbone: from ``unifier.dim`` features to embeddings; one of :mod:`graphfm.backbones`, or any module with
            ``in_channels``, ``out_channels`` and their ``forward`` or PyG's ``forward(x, edge_index, edge_weight)``
            (``torch_geometric.nn.GCN`` and the like; see :func:`graphfm.foreign.as_backbone`).
        objective: one of :mod:`graphfm.objectives`, or a module with ``forward(backbone, batch)``; several losses
            are summed. ``bind(in_channels, out_channels)`` and ``follow(backbone)``, where it has them, are called
            once before the first step: to make its heads, and what it keeps of the backbone as it starts.
        coordinators: what joins the graphs, or tokens of :mod:`graphfm.tokens` in their place; ``None`` pretrains on
            the graphs side by side (isolated pretraining).
        unifier: how features are brought to one width; by default to the backbone's.
        epochs: passes over the samples.
        seed: of everything drawn.
        device: where to train; the CPU by default.
        sampler: what a step looks at: one of :mod:`graphfm.samplers`, by default ``RandomWalks()``.
        groups: parts of a batch with a loss of their own, averaged over the batch; by default one for each rank. A loss
            that is a mean over samples does not notice; a contrast is one among the samples of a group.
        lr: learning rate of Adam.
        weight_decay: of Adam.
        checkpoint: folder for the state to resume from; written every ``checkpoint_every`` epochs and on SIGTERM, by
            the first rank and read by all.
        checkpoint_every: epochs between two checkpoints.
        resume: go on from ``checkpoint`` if it holds a state of the same run; the result is the same to the last bit
            as that of a run never stopped (same device, same threads).
        warm_start: keep the weights of the backbone (and of coordinators that have theirs) instead of drawing anew.
        progress: show a progress bar.

    Returns:
        The backbone with its unifier, coordinators and card.

    Raises:
        ValueError: bad graphs or settings, a backbone whose input width is not the unifier's, or ranks that were given
            different ones.
        PretrainingStopped: a loss that is NaN, infinite or 1e6 times that of the first epoch, a SIGTERM, or a rank that
            died. The checkpoint is the last good one. A GPU is asked once an epoch, the CPU at every batch.
        CheckpointError: ``resume`` from a damaged state or from that of another run.
        OSError: ``checkpoint`` cannot be written; what was saved before stays whole.
    """
    graphs = _checked(graphs)
    network = as_backbone(copy.deepcopy(backbone))
    sampling: Sampler = RandomWalks() if sampler is None else sampler
    settings = {"epochs": epochs, "seed": seed, "lr": lr, "weight_decay": weight_decay, "warm_start": warm_start}
    _check_settings(settings, graphs, objective, sampling, checkpoint, checkpoint_every, resume)
    where = rank_device(device)
    ranks = find_ranks(where)
    settings |= {"groups": _groups(groups, ranks)} | sampling.settings()
    if checkpoint is not None and ranks.is_first:
        check_writable(checkpoint)
    inputs = {"graphs": fingerprint(graphs) if checkpoint is not None or ranks.size > 1 else ""}
    ranks.check_agree({"graphs": inputs["graphs"], "settings": repr(settings)}, _SAME)
    with isolated_rng(seed, where):
        unifier = _fitted(unifier, network, graphs)
        run = _prepare(graphs, unifier, network, objective, coordinators, where, settings, inputs, sampling, ranks)
        if checkpoint is not None and resume:
            run.restore(checkpoint)
        elif checkpoint is not None and ranks.is_first and (Path(checkpoint) / "training.json").exists():
            _log.warning("%s holds a training state, which this run replaces; resume=True goes on from it", checkpoint)
        ranks.check_agree(_parts_of(run), _SAME)
        _train(run, epochs, checkpoint, checkpoint_every, progress)
    if isinstance(run.coordinators, Tokens):
        run.coordinators.release()
    pretext: Any = getattr(run.objective, "pretext", None)
    tokens = pretext() if callable(pretext) else None
    return Pretrained(run.backbone.eval(), unifier, run.coordinators, _card(graphs, unifier, objective, run), tokens)


def _train(run: TrainingRun, epochs: int, checkpoint: Any, every: int, progress: bool) -> None:
    shown = progress and run.ranks.is_first
    try:
        with stop_on_sigterm() as stop, progress_bar(epochs, "pretraining", enabled=shown) as advance:
            advance(run.epoch)
            while run.epoch < epochs:
                loss = run.one_epoch(stop, checkpoint)
                advance(1, f"loss {loss:.4f}")
                if checkpoint is not None and (run.epoch % every == 0 or run.epoch == epochs):
                    run.save(checkpoint)
            if run.ranks.any(stop.is_set()):
                run.leave(checkpoint)
    except RankLost as error:
        kept = f"the last good checkpoint is {run.last_good}" if run.last_good else "no checkpoint was written"
        raise PretrainingStopped(f"{error}; {kept}. Start all ranks again, with resume=True to go on.") from error


def _groups(groups: int | None, ranks: Ranks) -> int:
    if groups is None:
        return ranks.size
    check_integer("groups", groups, 1)
    if groups < ranks.size:
        raise ValueError(f"groups is {groups}, with {ranks.size} ranks to share them; give at least one a rank.")
    return groups


def _parts_of(run: TrainingRun) -> dict[str, str]:
    """What ranks compare before the first step: the modules as they were described, and as they are."""
    if run.ranks.size == 1:
        return {}
    found = {k: repr(v) for k, v in run.identity().items() if k in ("unifier", "backbone", "objective", "coordinators")}
    state = sha256(f"{run.epoch} {run.step}".encode())
    for value in run.modules.state_dict().values():
        state.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found | {"weights or checkpoint": state.hexdigest()}


def _fitted(unifier: Unifier | None, network: Any, graphs: Sequence[Data]) -> Unifier:
    width = network.in_channels
    unifier = Unifier(width) if unifier is None else copy.deepcopy(unifier)
    if unifier.dim != width:
        raise ValueError(f"unifier.dim is {unifier.dim}, backbone.in_channels {width}; they must be equal.")
    return unifier.fit(graphs)


def _prepare(
    graphs: Sequence[Data],
    unifier: Unifier,
    network: nn.Module,
    objective: nn.Module,
    coordinators: Coordinators | Tokens | None,
    device: torch.device,
    settings: dict[str, Any],
    inputs: dict[str, Any],
    sampler: Sampler,
    ranks: Ranks,
) -> TrainingRun:
    """Join the graphs, draw samples and weights: everything before the first step."""
    objective, coordinators = copy.deepcopy(objective), copy.deepcopy(coordinators)
    if isinstance(coordinators, Tokens):
        if not settings["warm_start"] or not coordinators.is_bound:
            coordinators.bind(len(graphs), network)
        elif coordinators.arguments()["domains"] != len(graphs):
            raise ValueError(f"coordinators: the tokens are of {coordinators.arguments()['domains']} graphs.")
    elif coordinators is not None and not settings["warm_start"]:
        coordinators.features = None  # bound again, to these graphs
    joined = join(graphs, unifier, coordinators)
    samples = sampler.draw(joined, settings["seed"], settings["groups"])
    if not settings["warm_start"]:
        redraw(bare_backbone(network).cpu(), "backbone")
    bind = getattr(objective, "bind", None)
    if bind is not None:
        bind(network.in_channels, network.out_channels)
    elif not settings["warm_start"]:
        redraw(objective.cpu(), "objective")
    if joined.tokens is not None:
        joined.tokens.attach(network)
    follow = getattr(objective, "follow", None)
    if follow is not None:  # a target network exists before the first step, or a checkpoint could not be put back
        follow(network)
    inputs = inputs | {"unifier": [unifier.dim, unifier.rescale]}
    return TrainingRun(joined, samples, network, objective, device, settings, inputs, ranks, settings["groups"])


def _checked(graphs: Sequence[Data]) -> list[Data]:
    if isinstance(graphs, Data):
        raise TypeError("graphs must be a list of graphs, got one Data; write [graph].")
    found = [check_graph(g, f"graphs[{i}]", features=False) for i, g in enumerate(graphs)]
    if not found:
        raise ValueError("graphs is empty; give at least one graph to pretrain on.")
    return found


def _check_settings(
    settings: dict[str, Any],
    graphs: Sequence[Data],
    objective: object,
    sampler: object,
    checkpoint: object,
    every: int,
    resume: bool,
) -> None:
    if not isinstance(objective, nn.Module):
        raise TypeError(f"objective must be a torch.nn.Module such as GraphCL(), got {objective!r}.")
    if not isinstance(sampler, Sampler):
        raise TypeError(f"sampler must be one such as RandomWalks(), got {sampler!r}.")
    least = max(getattr(part, "least_graphs", 1) for part in objective.modules())
    if sampler.graph_is_source and len(graphs) < least:
        raise ValueError(
            f"objective contrasts {least} graphs of a batch, but {type(sampler).__name__} makes one of each source, of "
            f"which there are {len(graphs)}. Use RandomWalks, more sources, or an objective on nodes such as DGI."
        )
    for needy in (part for part in objective.modules() if getattr(part, "needs_edges", False)):
        for i, graph in enumerate(graphs):  # a batch may lack edges by chance
            check_has_edges(graph, f"graphs[{i}]", type(needy).__name__)
    check_integer("epochs", settings["epochs"], 0)
    ranges = {
        "lr": (lambda v: 0 < v < math.inf, "be positive and finite"),
        "weight_decay": (lambda v: 0 <= v < math.inf, "be finite and not negative"),
    }
    for name, (holds, text) in ranges.items():
        if not holds(settings[name]):
            raise ValueError(f"{name} must {text}, got {settings[name]!r}.")
    if every < 1:
        raise ValueError(f"checkpoint_every must be at least 1, got {every}.")
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint: the folder with the state to go on from.")


def _card(graphs: Sequence[Data], unifier: Unifier, objective: nn.Module, run: TrainingRun) -> dict[str, Any]:
    sources = [
        {
            "name": n,
            "nodes": int(g.num_nodes),
            "edges": int(g.num_edges),
            "features": 0 if g.x is None else p.width,
            "edge_digest": d,
        }
        for n, g, p, d in zip(unifier.names, graphs, unifier.projections, source_digests(run.joined), strict=True)
    ]
    hops = getattr(run.backbone, "num_hops", None)
    sampling = run.samples.facts(2 if hops is None else int(hops))
    _log.info("sampling: %s", ", ".join(f"{k} {v:.3g}" for k, v in sampling.items()))
    return {
        "sources": sources,
        "objective": type(objective).__name__,
        "coordinators": None if run.coordinators is None else repr(run.coordinators),
        "settings": run.settings,
        "sampling": sampling,
        "history": history(run.losses, run.told, run.objective),
        "seconds": run.seconds,
        "device": str(run.device),
        "versions": environment(),
    }
