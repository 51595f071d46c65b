"""GIANT: an encoder that learns to tell from a text what lies around its node, before a graph network reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.backbones import GraphSAGE
from graphfm.data.splits import Split
from graphfm.graphllm.enhancers.neighbour_clusters import (
    cluster_tree,
    neighbour_words,
    shortlisted_hinge,
    touched,
)
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.stock import Remembered
from graphfm.graphllm.texts import adjacency, node_texts, num_classes
from graphfm.graphllm.training import train_nodes
from graphfm.graphllm.tuned import device_of, embed, fit_batches, tuned_copy
from graphfm.nn import Adjacency
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.sentence import SentenceEncoder

__all__ = ["GIANT"]


class GIANT(Supervised):
    """Self-supervised neighbourhood prediction, then GraphSAGE on the vectors (Chien et al., 2111.00064).

    Nodes are clustered by the TF-IDF vectors of the nodes adjacent to them, the clusters by k-means again, and so on.
    From its text alone the encoder learns which clusters hold neighbours of a node: multi-label, by the squared hinge
    loss, level by level, the encoder going on from where it is; on each level only parts of clusters that were right
    on the level above are asked for (PECOS's teacher-forced negatives), and their heads begin as copies of those. No
    label is used. Then the tuned encoder's vectors feed GraphSAGE, which learns from the labels.

    Trained: a copy of the encoder (all its weights, or LoRA) and a head for each level; then the GraphSAGE. What is
    given stays as it was, and nothing else is frozen but the encoder while the network is trained. Small here: two
    levels and ``steps`` batches on each, where PECOS makes passes over a tree down to single nodes; its clusters are
    balanced, and its heads start from a linear model.

    Published settings: GLBench's grid of the GraphSAGE (``models/enhancer/giant-xrt/run_all.sh``).

    Args:
        tunable: an encoder with ``model``, ``embed`` (with gradients) and ``encode``.
        branches: into how many clusters, level by level.
        at_most: nodes with that many neighbours or more are not learned from (as in PECOS); they are neighbours still.
        rank: train LoRA of that rank in the encoder; all its weights if not given.
        lm_lr: learning rate of the encoder, in AdamW.
        head_lr: learning rate of the heads.
        steps: batches on each level.
        batch: texts a step.
        hidden: width of the GraphSAGE.
        layers: of the GraphSAGE.
        dropout: rate in the GraphSAGE.
        lr: learning rate of Adam on it.
        weight_decay: of Adam.
        epochs: of the GraphSAGE, over the whole graph.
        seed: of clusters, weights and batches.
        device: where the GraphSAGE is trained; the encoder stays where it is.
    """

    needs = ("tunable",)
    family = "enhancer"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"lm_lr": (5e-5, 1e-5)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden": (64, 128, 256),
        "dropout": (0.3, 0.5, 0.6),
        "lr": (8e-4,),
    }

    def __init__(
        self,
        tunable: SentenceEncoder,
        *,
        branches: Sequence[int] = (8, 8),
        at_most: int = 1000,
        rank: int | None = None,
        lm_lr: float = 5e-5,
        head_lr: float = 1e-2,
        steps: int = 50,
        batch: int = 16,
        hidden: int = 64,
        layers: int = 2,
        dropout: float = 0.5,
        lr: float = 0.01,
        weight_decay: float = 5e-4,
        epochs: int = 200,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        if not branches or min(branches) < 2:
            raise ValueError(f"branches must name at least one level, each of at least 2 parts, got {tuple(branches)}.")
        self.tunable, self.branches, self.at_most, self.rank = tunable, tuple(branches), at_most, rank
        self.lm_lr, self.head_lr, self.steps, self.batch = lm_lr, head_lr, steps, batch
        self.hidden, self.layers, self.dropout = hidden, layers, dropout
        self.lr, self.weight_decay, self.epochs = lr, weight_decay, epochs

    def fit(self, data: Data, split: Split) -> GIANT:
        """Tune the encoder on the edges, then train the network on ``split.train``; the best is kept on ``split.val``.

        Raises:
            ValueError: a graph without edges, or without words.
        """
        split.check(int(data.num_nodes or 0))
        self.lm = tuned_copy(self.tunable, rank=self.rank, seed=self.seed)
        with isolated_rng(self.seed, device_of(self.lm)):
            self.learn_neighbours(node_texts(data), adjacency(data))
        self.reader = Remembered(self.lm)
        x, adj, y = self._vectors(data), adjacency(data, self.device), data.y.to(self.device)
        with isolated_rng(self.seed, self.device):
            self.network = GraphSAGE(x.size(1), self.hidden, self.layers, num_classes(data), dropout=self.dropout)
            self.network.to(self.device)
            train_nodes(
                self.network,
                lambda: self.network(x, adj),
                y,
                split,
                self.network.parameters(),
                lr=self.lr,
                weight_decay=self.weight_decay,
                epochs=self.epochs,
            )
        self.train_only({"lm": self.lm.model, "levels": self.levels, "network": self.network})
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Class probabilities ``[N, C]``."""
        return self.network(self._vectors(data), adjacency(data, self.device)).softmax(1).cpu()

    def learn_neighbours(self, texts: list[str], adj: Adjacency) -> None:
        """Tune the encoder level by level; ``levels`` holds the heads."""
        degree = adj.rowptr.diff()
        known = torch.nonzero((degree > 0) & (degree < self.at_most)).flatten()
        if not known.numel():
            raise ValueError("data has no edges to learn from; GIANT learns which neighbours a text has.")
        device, self.levels = device_of(self.lm), nn.ModuleList()
        shortlist = torch.ones(len(texts), 1, dtype=torch.bool)
        for level in cluster_tree(neighbour_words(texts, adj), self.branches, self.seed):
            head = nn.Linear(self.lm.dim, level.parent.numel()).to(device)
            if self.levels:
                _inherit(head, self.levels[-1], level.parent)
            self.levels.append(head)
            target, asked = touched(adj, level), shortlist[:, level.parent]

            def loss(nodes: Tensor, head: nn.Module = head, y: Tensor = target, m: Tensor = asked) -> Tensor:
                scores = head(embed(self.lm, [texts[i] for i in nodes.tolist()]))
                return shortlisted_hinge(scores, y[nodes].to(device), m[nodes].to(device))

            groups = [
                {"params": [p for p in self.lm.model.parameters() if p.requires_grad], "lr": self.lm_lr},
                {"params": list(head.parameters()), "lr": self.head_lr},
            ]
            drawn = _repeated(known, self.steps * self.batch)
            fit_batches([self.lm.model, head], groups, loss, drawn, batch=self.batch, epochs=1)
            shortlist = target

    def _vectors(self, data: Data) -> Tensor:
        return self.reader.encode(node_texts(data)).to(self.device)


def _inherit(head: nn.Linear, above: nn.Module, parent: Tensor) -> None:
    """A cluster's row begins as that of the cluster it is a part of."""
    with torch.no_grad():
        for own, theirs in zip(head.parameters(), above.parameters(), strict=True):
            own.copy_(theirs[parent.to(theirs.device)])


def _repeated(nodes: Tensor, number: int) -> Tensor:
    """``number`` of ``nodes``: all of them, in a random order, as often as needed."""
    rounds = max(1, math.ceil(number / nodes.numel()))
    return torch.cat([nodes[torch.randperm(nodes.numel())] for _ in range(rounds)])[:number]
