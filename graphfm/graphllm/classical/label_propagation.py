"""Label propagation: the labels that are known spread over the edges; texts are not read."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.baselines import LabelPropagation as Rule
from graphfm.data.splits import Split
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.texts import num_classes

__all__ = ["LabelPropagation", "rule_scores"]


def rule_scores(rule: Any, x: Tensor, data: Data, split: Split) -> Tensor:
    """Probabilities ``[N, C]`` of a training-free rule of :mod:`graphfm.baselines` on features ``x`` ``[N, D]``.

    Classes that no training node has get 0.
    """
    y = torch.full_like(data.y, -1).index_copy(0, split.train, data.y[split.train])
    graph = Data(x=x, edge_index=data.edge_index, edge_weight=data.get("edge_weight"), y=y)
    found = rule.fit(graph, Split(split.train, split.val[:0], split.test[:0])).predict()
    scores = found.new_zeros(found.size(0), num_classes(data))
    scores[:, : found.size(1)] = found
    return scores


class LabelPropagation(Supervised):
    """``Y <- alpha S Y + (1 - alpha) Y_0`` (Zhou et al., NIPS 2003), :class:`graphfm.baselines.LabelPropagation`.

    Nothing is trained; the text is not read. Published settings: .9 and .5, which the code of Correct & Smooth takes
    for ogbn-arxiv and ogbn-products (``run_experiments.py``, with 50 steps as here), and .99 of Zhou et al.

    Args:
        alpha: share that comes from the neighbours.
        steps: iterations.
        seed: not used.
        device: not used: it runs on the CPU.
    """

    family = "classical"
    uses = frozenset({"structure"})
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"alpha": (0.9, 0.5, 0.99)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = grid

    def __init__(self, *, alpha: float = 0.9, steps: int = 50, seed: int = 0, device: str | None = None) -> None:
        super().__init__(seed=seed, device=device)
        self.alpha, self.steps = alpha, steps

    def fit(self, data: Data, split: Split) -> LabelPropagation:
        """Spread the labels of ``split.train``."""
        split.check(int(data.num_nodes or 0))
        x = torch.zeros(int(data.num_nodes or 0), 1)
        self._scores = rule_scores(Rule(self.alpha, self.steps), x, data, split)
        return self

    def predict(self, data: Data) -> Tensor:
        """Scores ``[N, C]`` of the graph that was fitted."""
        return self._scores
