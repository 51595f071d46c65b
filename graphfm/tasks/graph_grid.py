"""Graph classification, measured: methods and rules on the same few labelled graphs."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.baselines.graphs import GraphFloor, check_graphs, graph_floor
from graphfm.data.features import raw_features
from graphfm.data.splits import Split, few_shot
from graphfm.metrics import classification_scores
from graphfm.pretrained import Pretrained
from graphfm.results import Result
from graphfm.tasks.graphs import GRAPH_METHODS, adapt_graphs
from graphfm.tasks.grid import Cell, Grid, Output, check_methods, model_cells

__all__ = ["evaluate_graphs"]

_CONTROLS = {"scratch": "finetune", "untrained": "probe"}


def evaluate_graphs(
    pretrained: Pretrained | None,
    data: Data,
    *,
    methods: Sequence[str] = GRAPH_METHODS,
    shots: Sequence[int] = (1, 5),
    seeds: Sequence[int] = tuple(range(10)),
    pool: str = "sum",
    transductive: bool = False,
    baselines: bool = True,
    device: torch.device | str | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> list[Result]:
    """Few-shot graph classification on ``data``: every method and every rule on the same labelled graphs.

    Results have ``task="graph"`` and the metrics of :func:`graphfm.metrics.classification_scores`.

    Args:
        pretrained: the model, or ``None`` for the rules alone.
        data: a batch of graphs with labels ``y`` ``[G]``, as ``load("proteins")`` gives.
        methods: of :func:`graphfm.tasks.graphs.adapt_graphs`.
        shots: labelled graphs a class.
        seeds: one split a seed.
        pool: ``"sum"`` or ``"mean"``.
        transductive: let models see the features of all graphs; the rules never do.
        baselines: measure the rules (:func:`graphfm.baselines.graphs.graph_floor`) and, beside a model, two controls:
            ``scratch`` (random weights, fine-tuned) and ``untrained`` (random weights, frozen, with a probe).
        device: where models run; the rules run on the CPU.
        out: file of JSON lines; cells are appended as they come, and those that it holds are not run again.
        progress: show a progress bar.

    Raises:
        ValueError: bad data or options.
    """
    y = check_graphs(data)
    check_methods(pretrained, methods, GRAPH_METHODS)
    if not shots or min(shots) < 1:
        raise ValueError(f"shots must be positive numbers, got {list(shots)}.")

    featured = copy.copy(data)
    if pretrained is not None:
        featured.x = raw_features(data)  # structural ones, where there are none, take their time: once, not a split

    def run(model: Pretrained, method: str, split: Split, seed: int) -> Output:
        fitted = adapt_graphs(
            model, featured, split, method=method, seed=seed, device=device, pool=pool, transductive=transductive
        )
        return fitted.predict(featured), {"trained_parameters": fitted.card["trained_parameters"]}

    def score(split: Split, probabilities: Tensor) -> dict[str, float]:
        return classification_scores(probabilities[split.test], y[split.test])

    cells: list[Cell[Split]] = []
    if baselines:
        cells += [Cell(rule.name, {"group": "floor"}, _rule_runner(rule, data)) for rule in graph_floor()]
    for cell in model_cells(pretrained, methods, _CONTROLS if baselines else {}, run):
        cells.append(Cell(cell.method, {**cell.settings, "pool": pool, "transductive": transductive}, cell.run))
    results = []
    name = str(data.get("name", "data"))
    for k in shots:
        settings = {"protocol": "honest", "shots": k}
        grid = Grid("graph", name, _drawer(y, k), score, settings, device, out, progress)
        results += grid.measure(cells, seeds)
    return results


def _drawer(y: Tensor, shots: int) -> Callable[[int], Split]:
    return lambda seed: few_shot(y, shots, seed)


def _rule_runner(rule: GraphFloor, data: Data) -> Callable[[Split, int], Tensor]:
    return lambda split, seed: rule.fit(data, split).predict()
