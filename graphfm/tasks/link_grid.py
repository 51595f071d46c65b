"""Link prediction, measured: methods and rules on the same held-out edges and the same negatives."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.baselines.links import LinkFloor, link_floor
from graphfm.data.checks import check_graph
from graphfm.data.links import LinkSplit, link_split
from graphfm.data.negatives import NEGATIVES, draw_negatives
from graphfm.metrics import link_scores
from graphfm.pretrained import Pretrained
from graphfm.results import Result
from graphfm.tasks.grid import Cell, Grid, Output, check_methods, model_cells
from graphfm.tasks.links import LINK_METHODS, adapt_links, refuse_leaky

__all__ = ["evaluate_links"]

_CONTROLS = {"scratch": "finetune", "untrained": "probe"}


@dataclasses.dataclass(frozen=True)
class _Ranking:
    """Held-out edges ``[2, P]`` and the pairs that each is ranked among, as one tensor ``[2, P, 1 + K]``."""

    split: LinkSplit
    pairs: Tensor


def evaluate_links(
    pretrained: Pretrained | None,
    data: Data,
    *,
    methods: Sequence[str] = LINK_METHODS,
    seeds: Sequence[int] = tuple(range(5)),
    negatives: Sequence[str] = ("corrupt",),
    count: int = 100,
    val: float = 0.05,
    test: float = 0.1,
    disjoint: float = 0.2,
    shots: int | None = None,
    baselines: bool = True,
    device: torch.device | str | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> list[Result]:
    """Link prediction on ``data``: every method and every rule on the same splits and negatives.

    Results have ``task="link"`` and the metrics of :func:`graphfm.metrics.link_scores`; ``mrr`` comes first in reports.

    Args:
        pretrained: the model, or ``None`` for the rules alone.
        data: the target graph; labels are not used.
        methods: of :func:`graphfm.tasks.links.adapt_links`.
        seeds: one split (and one draw of negatives) a seed.
        negatives: one or more of :data:`graphfm.data.negatives.NEGATIVES`.
        count: negatives a held-out edge.
        val: share of edges for choosing the step.
        test: share of edges for the test.
        disjoint: share of the training edges that are hidden while they are learned from.
        shots: let models learn from this many training edges; with ``val=0`` no other edge chooses anything.
        baselines: measure the rules (:func:`graphfm.baselines.links.link_floor`) and, beside a model, two controls:
            ``scratch`` (random weights, fine-tuned) and ``untrained`` (random weights, frozen, a trained decoder).
        device: where models run; the rules run on the CPU.
        out: file of JSON lines; cells are appended as they come, and those that it holds are not run again.
        progress: show a progress bar.

    Raises:
        ValueError: bad data or options, or a model that was pretrained on held-out edges.
    """
    check_graph(data, "data", features=False)
    check_methods(pretrained, methods, LINK_METHODS)
    for kind in negatives:
        if kind not in NEGATIVES:
            raise ValueError(f"negatives holds {kind!r}; there are: {', '.join(NEGATIVES)}.")
    if not negatives:
        raise ValueError("negatives is empty; give at least one kind.")
    shares = {"val": val, "test": test, "disjoint": disjoint}
    if pretrained is not None and methods and str(data.get("name")) in _names(pretrained):
        for seed in seeds:  # before the first is measured
            refuse_leaky(pretrained, link_split(data, seed, **shares))
    cells: list[Cell[_Ranking]] = []
    if baselines:
        cells += [Cell(rule.name, {"group": "floor"}, _rule_runner(rule)) for rule in link_floor()]
    cells += model_cells(pretrained, methods, _CONTROLS if baselines else {}, _model_runner(device, shots))
    results = []
    for kind in negatives:
        settings = {"protocol": "honest", "negatives": kind, "count": count, **shares}
        settings |= {} if shots is None else {"train_edges": shots}
        pose = _poser(data, kind, count, shares)
        name = str(data.get("name", "data"))
        results += Grid("link", name, pose, _score, settings, device, out, progress).measure(cells, seeds)
    return results


def _names(pretrained: Pretrained) -> set[str]:
    return {source["name"] for source in pretrained.card.get("sources", [])}


def _poser(data: Data, kind: str, count: int, shares: dict[str, float]) -> Callable[[int], _Ranking]:
    def pose(seed: int) -> _Ranking:
        split = link_split(data, seed, **shares)
        drawn = draw_negatives(split, "test", kind=kind, count=count, seed=seed)
        return _Ranking(split, torch.cat([split.test.unsqueeze(2), drawn], dim=2))

    return pose


def _score(problem: _Ranking, scores: Tensor) -> dict[str, float]:
    return link_scores(scores[:, 0], scores[:, 1:])


def _rule_runner(rule: LinkFloor) -> Callable[[_Ranking, int], Tensor]:
    return lambda problem, seed: rule.fit(problem.split.graph).score(problem.pairs)


def _model_runner(
    device: torch.device | str | None, shots: int | None
) -> Callable[[Pretrained, str, _Ranking, int], Output]:
    def run(model: Pretrained, method: str, problem: _Ranking, seed: int) -> Output:
        fitted = adapt_links(model, problem.split, method=method, seed=seed, device=device, shots=shots)
        found = fitted.score(problem.split.graph, problem.pairs)
        return found, {"trained_parameters": fitted.card["trained_parameters"]}

    return run
