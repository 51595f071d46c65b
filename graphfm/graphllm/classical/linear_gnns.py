"""Closed-form linear GNNs on frozen text vectors: GraphAny without its attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from torch_geometric.data import Data

from graphfm.baselines import LinearGNNs as Rule
from graphfm.data.splits import Split
from graphfm.graphllm.classical.label_propagation import rule_scores
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.texts import encode_together, node_texts

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import TextEncoder

__all__ = ["LinearGNNs"]


class LinearGNNs(Supervised):
    """Mean of five least-squares classifiers on X, A X, A^2 X, (I - A) X, (I - A)^2 X (GraphAny, 2405.20445, eq. 2).

    Frozen: the encoder. Trained: nothing by gradients. Where it differs: GraphAny weighs the five by an attention that
    is trained on the labels of another graph, here they count alike; and it has no ridge. Without one, about as many
    labels as columns of X give classifiers of noise, so whether to have one is a point of the grid, chosen on
    validation nodes. See :class:`graphfm.baselines.LinearGNNs`. Published settings: no ridge (eq. 2).

    Args:
        encoder: gives X.
        ridge: of each classifier, times the mean squared norm of its labelled rows.
        seed: not used.
        device: not used: it runs on the CPU.
    """

    needs = ("encoder",)
    family = "classical"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"ridge": (0.0, 0.1, 1.0)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {"ridge": (0.0,)}

    def __init__(self, encoder: TextEncoder, *, ridge: float = 0.0, seed: int = 0, device: str | None = None) -> None:
        super().__init__(seed=seed, device=device)
        self.encoder, self.rule = encoder, Rule(ridge)

    def fit(self, data: Data, split: Split) -> LinearGNNs:
        """Solve on the labels of ``split.train``."""
        split.check(int(data.num_nodes or 0))
        x = encode_together(self.encoder, node_texts(data))[0]
        self._scores = rule_scores(self.rule, x, data, split)
        return self

    def predict(self, data: Data) -> Tensor:
        """Scores ``[N, C]`` of the graph that was fitted."""
        return self._scores
