"""One measurement: a method on a graph under a seed, what it is shown, and what it answers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.data.splits import Split, few_shot
from graphfm.graphllm.choose import choose, points
from graphfm.graphllm.fingerprint import graph_fingerprint, method_fingerprint
from graphfm.graphllm.fits import Fit, Fits
from graphfm.graphllm.method import Method, Supervised, ZeroShot
from graphfm.graphllm.overlap import check_disjoint
from graphfm.graphllm.protocol import glbench_split, rule_of
from graphfm.graphllm.setup import Setup
from graphfm.graphllm.stock import Stock
from graphfm.graphllm.texts import as_tag, only_labels_of, without_labels
from graphfm.results import Result

__all__ = ["TASK", "Answer", "Cell", "Target", "make_target"]

TASK = "text-node-classification"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Target:
    """A graph to be answered on, with all its labels for the score; its sources; hashes of all, and of the sources."""

    data: Data
    sources: tuple[Data, ...]
    left_out: Tensor
    fingerprint: str
    taught: str = ""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came of a cell: scores ``[N, C]``, the method, the settings chosen; zero-shot, the fit on the sources."""

    scores: Tensor
    method: Method
    chosen: dict[str, Any]
    fit: Fit | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """One method on one graph under one seed."""

    target: Target
    method: type[Method]
    seed: int
    setup: Setup
    stock: Stock

    def empty(self) -> Result:
        """The cell before it is measured: its identity."""
        setup, zero = self.setup, self.setup.setting == "zero-shot"
        few = setup.setting == "few-shot"
        settings: dict[str, Any] = {
            "protocol": setup.setting,
            "group": self.method.family,
            "labels": setup.labels if self.method.descriptions else "names",
            "split": f"{setup.shots} a class / rest" if few else rule_of(self.target.data).name,
            "shots": setup.shots if few else 0,
            "device": str(setup.device or "cpu"),
            "method_hash": method_fingerprint(self.method, setup.grid),
            "data_hash": self.target.fingerprint,
            **self.stock.names(self.method),
        }
        if zero:
            settings["sources"] = [str(one.name) for one in self.target.sources]
        elif not few:
            settings["grid"] = setup.grid
        name = str(self.target.data.name)
        return Result(TASK, name, self.method.__name__, self.seed, {}, settings, 0.0, 0, {})

    def split(self) -> Split:
        """The parts under this cell's seed."""
        if self.setup.setting == "few-shot":
            return few_shot(self.target.data.y, self.setup.shots, self.seed)
        split = glbench_split(self.target.data, self.seed)
        if self.setup.setting == "zero-shot":
            return Split(split.train, split.val, split.test[~self.target.left_out[split.test]])
        return split

    def answer(self, split: Split, fits: Fits) -> Answer:
        """Fit and predict; what was fitted on the same sources before is taken from ``fits``."""
        kind, given = self.method, {**self.stock.of(self.method), "seed": self.seed, "device": self.setup.device}
        if issubclass(kind, ZeroShot):
            sources = self.target.sources
            fit = fits.of(kind, self.seed, self.target.taught, lambda: kind(**given).fit(sources), self.stock)
            return Answer(fit.method.predict(without_labels(self.target.data, split.test)), fit.method, {}, fit)
        grid = self.setup.grid if self.setup.setting == "supervised" else "one"
        if not issubclass(kind, Supervised):
            raise ValueError(f"{kind.__name__} is neither Supervised nor ZeroShot.")
        shown = only_labels_of(self.target.data, split)
        method, setting, scores = choose(lambda s: kind(**given, **s), points(kind, grid), shown, split)
        return Answer(scores, method, setting)


def make_target(data: Data, setup: Setup, sources: Sequence[Data], leave_out: bool) -> Target:
    """Check a graph and find the sources that it may be answered from.

    Raises:
        ValueError: bad data, or a source that overlaps with it and is not to be left out.
    """
    tag = as_tag(data, str(data.get("name", "data")), descriptions=setup.labels == "descriptions")
    tag.name = str(data.get("name", "data"))
    if setup.setting != "zero-shot":
        return Target(tag, (), torch.zeros(tag.y.numel(), dtype=torch.bool), graph_fingerprint(tag))
    kept: list[Data] = []
    seen = torch.zeros(tag.y.numel(), dtype=torch.bool)
    for source in _as_tags(sources, setup):
        try:
            seen |= check_disjoint([source], tag, before=kept)
            kept.append(source)
        except ValueError as error:
            if not leave_out:
                raise
            _log.info("%s", error)
    return Target(tag, tuple(kept), seen, graph_fingerprint(tag, *kept), graph_fingerprint(*kept))


def _as_tags(sources: Sequence[Data], setup: Setup) -> Iterator[Data]:
    for source in sources:
        name = str(source.get("name", "source"))
        tag = as_tag(source, name, descriptions=setup.labels == "descriptions")
        tag.name = name
        yield tag
