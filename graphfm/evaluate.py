"""Methods against the floor, over the same splits, one measured cell at a time."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.adapt import METHODS, PROTOCOLS, adapt
from graphfm.baselines import Floor, GraphFeatures, floor
from graphfm.data.checks import check_graph, check_labels
from graphfm.data.features import Unifier
from graphfm.data.splits import Split, few_shot, gcope_split
from graphfm.egos import Egos
from graphfm.fitted import Fitted
from graphfm.foreign import redraw
from graphfm.methods import describe, parse
from graphfm.metrics import classification_scores
from graphfm.pretrained import Pretrained
from graphfm.progress import progress_bar
from graphfm.results import Result, append, cell_key, environment, peak_memory, read
from graphfm.rng import isolated_rng

__all__ = ["evaluate", "untrained"]

_log = logging.getLogger(__name__)
_TASK = "node-classification"
Where = torch.device | str | None
Outcome = tuple[Tensor, dict[str, Any]]  # probabilities, and what is known of a cell only once it has run


def evaluate(
    pretrained: Pretrained | None,
    data: Data,
    *,
    methods: Sequence[str] = METHODS,
    shots: Sequence[int] = (1, 3, 5),
    seeds: Sequence[int] = tuple(range(10)),
    baselines: bool = True,
    protocol: str = "honest",
    ego: Egos | None = None,
    device: torch.device | str | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> list[Result]:
    """Few-shot node classification on ``data``: every method and every baseline on the same random splits.

    Every repeat starts from a fresh copy of ``pretrained``; cells do not depend on their order. The test labels are
    read by the score alone. Under ``protocol="paper"`` GCOPE's published protocol is run instead, leak included: see
    :mod:`graphfm.paper`; there, repeats go on training the weights of the repeat before.

    Args:
        pretrained: the model, or ``None`` to measure the floor alone.
        data: the target graph with class labels.
        methods: of :func:`graphfm.adapt`, ``"adapter:LoRA(rank=8)"`` among them.
        shots: labelled nodes a class.
        seeds: one split a seed.
        baselines: measure the floor (:mod:`graphfm.baselines`) and, beside a model, two controls: ``scratch`` (the
            same backbone, fine-tuned from random weights) and ``untrained`` (random weights, frozen, with a probe).
        protocol: ``"honest"`` or ``"paper"``.
        ego: let models read each node from its ego graph, see :func:`graphfm.adapt`; the floor reads the whole graph.
        device: where models run; the floor runs on the CPU.
        out: file of JSON lines; cells are appended as they come, and those that it holds are not run again.
        progress: show a progress bar.

    Returns:
        All cells asked for, those read from ``out`` included.

    Raises:
        ValueError: bad data, an unknown method or protocol, methods without a model.
    """
    _check(pretrained, methods, shots, seeds, protocol)
    if ego is not None and protocol == "paper":
        raise ValueError("protocol='paper' has ego graphs of its own; give ego with protocol='honest'.")
    check_graph(data, "data", features=False)
    y = check_labels(data.y)
    cells = list(_cells(pretrained, data, methods, baselines, protocol, device, ego))
    finished = {cell_key(r): r for r in read(out)} if out is not None and os.path.exists(out) else {}
    results = []
    total = len(cells) * len(shots) * len(seeds)
    with progress_bar(total, f"evaluating on {data.get('name', 'data')}", enabled=progress) as advance:
        for k in shots:
            for cell in cells:
                for seed in seeds:
                    results.append(_one(cell, data, y, k, seed, protocol, device, finished, out))
                    advance(1, f"{cell.method}, {k} shots")
                cell.forget()
    return results


def untrained(pretrained: Pretrained, seed: int, data: Data | None = None) -> Pretrained:
    """A copy with the backbone's weights drawn anew from ``seed``: the control that was never pretrained."""
    backbone = copy.deepcopy(pretrained.backbone)
    with isolated_rng(seed):
        redraw(backbone, "backbone")
    unifier = Unifier(pretrained.unifier.dim, rescale=pretrained.unifier.rescale)
    if data is not None:
        unifier.names, unifier.projections = [str(data.get("name", ""))], [pretrained.unifier.projection(data)]
    return Pretrained(backbone, unifier, None, {"sources": []})


class _Cell:
    """One method: how to get probabilities for a split, and the settings that tell it from others."""

    def __init__(self, method: str, settings: dict[str, Any], run: Callable[[Split, int], Outcome]) -> None:
        self.method, self.settings, self.run = method, settings, run

    def forget(self) -> None:
        """Drop what one repeat hands to the next; only the published protocol has that."""


class _CarriedCell(_Cell):
    """A method whose repeats go on training the weights of the repeat before, as GCOPE's code does."""

    def __init__(self, method: str, settings: dict[str, Any], start: Pretrained, data: Data, device: Where) -> None:
        self.start, self.now = start, start

        def run(split: Split, seed: int) -> Outcome:
            fitted = adapt(self.now, data, split, method=method, seed=seed, device=device, protocol="paper")
            self.now = Pretrained(fitted.backbone, start.unifier, None, {})
            return _outcome(fitted, data)

        super().__init__(method, settings, run)

    def forget(self) -> None:
        self.now = self.start


def _cells(
    pretrained: Pretrained | None,
    data: Data,
    methods: Sequence[str],
    baselines: bool,
    protocol: str,
    device: torch.device | str | None,
    ego: Egos | None,
) -> Iterator[_Cell]:
    if baselines:
        features = GraphFeatures(data)
        for rule in floor():
            yield _Cell(rule.name, {"group": "floor"}, _floor_runner(rule, features))
    if pretrained is None:
        return
    pretrained = _with_target(pretrained, data)
    about = identity(pretrained)
    through = {} if ego is None else {"ego": repr(ego)}
    if baselines and protocol == "honest":
        control = {
            "group": "control",
            "backbone": about["backbone"],
            "width": pretrained.backbone.out_channels,
            "layers": getattr(pretrained.backbone, "num_layers", None),
            **through,
        }
        for name, method in (("scratch", "finetune"), ("untrained", "probe")):
            yield _Cell(name, control, _control_runner(pretrained, data, method, device, ego))
    for method in methods:
        settings = {"group": "pretrained", **about, **describe(parse(method)), **through}
        if protocol == "paper":
            yield _CarriedCell(method, settings, pretrained, data, device)
        else:
            yield _Cell(method, settings, _model_runner(pretrained, data, method, device, ego))


def _floor_runner(rule: Floor, features: GraphFeatures) -> Callable[[Split, int], Outcome]:
    return lambda split, seed: (rule.fit(features, split).predict(), {})


def _outcome(fitted: Fitted, data: Data) -> Outcome:
    trained = fitted.card.get("trained_parameters")
    return fitted.predict(data), {} if trained is None else {"trained_parameters": trained}


def _control_runner(
    pretrained: Pretrained, data: Data, method: str, device: torch.device | str | None, ego: Egos | None
) -> Callable[[Split, int], Outcome]:
    def run(split: Split, seed: int) -> Outcome:
        fresh = untrained(pretrained, seed, data)
        return _outcome(adapt(fresh, data, split, method=method, seed=seed, device=device, ego=ego), data)

    return run


def _model_runner(
    pretrained: Pretrained, data: Data, method: str, device: torch.device | str | None, ego: Egos | None
) -> Callable[[Split, int], Outcome]:
    def run(split: Split, seed: int) -> Outcome:
        return _outcome(adapt(pretrained, data, split, method=method, seed=seed, device=device, ego=ego), data)

    return run


def _one(
    cell: _Cell,
    data: Data,
    y: Tensor,
    shots: int,
    seed: int,
    protocol: str,
    device: torch.device | str | None,
    finished: dict[str, Result],
    out: str | os.PathLike[str] | None,
) -> Result:
    settings = {"shots": shots, "protocol": protocol, "device": str(device or "cpu"), **cell.settings}
    name = str(data.get("name", "data"))
    key = cell_key(Result(_TASK, name, cell.method, seed, {}, settings, 0.0, 0, {}))
    if key in finished:
        return finished[key]
    split = gcope_split(y, shots, seed) if protocol == "paper" else few_shot(y, shots, seed)
    started = time.perf_counter()
    probabilities, facts = cell.run(split, seed)
    settings |= facts
    seconds = time.perf_counter() - started
    scores = classification_scores(probabilities[split.test], y[split.test])
    result = Result(_TASK, name, cell.method, seed, scores, settings, seconds, peak_memory(device), environment())
    if out is not None:
        append(out, result)
    return result


def _with_target(pretrained: Pretrained, data: Data) -> Pretrained:
    """Fit the target's projection once: it needs no labels, so all splits share it."""
    unifier = Unifier(pretrained.unifier.dim, rescale=pretrained.unifier.rescale)
    data_name = str(data.get("name", "data"))
    unifier.names, unifier.projections = [data_name], [pretrained.unifier.projection(data)]
    return dataclasses.replace(pretrained, unifier=unifier)


def identity(pretrained: Pretrained) -> dict[str, Any]:
    """The settings that tell the results of one pretrained model from those of another."""
    return {
        "sources": [s["name"] for s in pretrained.card.get("sources", [])],
        "checkpoint": fingerprint(pretrained),
        "backbone": type(pretrained.backbone).__name__,
        "objective": pretrained.card.get("objective"),
        "coordinators": pretrained.card.get("coordinators"),
        "pretrain_seed": pretrained.card.get("settings", {}).get("seed"),
    }


def fingerprint(pretrained: Pretrained) -> str:
    """Twelve hex digits of the backbone's weights, to tell checkpoints apart in a results file."""
    digest = hashlib.sha256()
    for name, value in sorted(pretrained.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _check(
    pretrained: Pretrained | None, methods: Sequence[str], shots: Sequence[int], seeds: Sequence[int], protocol: str
) -> None:
    for method in methods:
        if protocol == "paper" and method not in METHODS:
            raise ValueError(f"protocol='paper' has {', '.join(METHODS)} alone, got {method!r}.")
        try:
            parse(method)
        except ValueError as error:
            raise ValueError(f"methods holds {method!r}: {error}") from error
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {PROTOCOLS}, got {protocol!r}.")
    if pretrained is None and methods and tuple(methods) != METHODS:
        raise ValueError("methods need a pretrained model; pass one, or methods=[] for the floor alone.")
    if not shots or min(shots) < 1:
        raise ValueError(f"shots must be positive numbers, got {list(shots)}.")
    if not seeds:
        raise ValueError("seeds is empty; give at least one.")
