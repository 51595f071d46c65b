"""GLEM: a language model and a graph network teach one another by pseudo-labels."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.backbones import GraphSAGE
from graphfm.data.splits import Split
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.stock import Remembered
from graphfm.graphllm.texts import adjacency, node_texts, num_classes
from graphfm.graphllm.training import accuracy
from graphfm.graphllm.tuned import embed, tuned_copy
from graphfm.nn import Adjacency
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.sentence import SentenceEncoder

__all__ = ["GLEM", "em_loss"]


def em_loss(logits: Tensor, y: Tensor, gold: Tensor, pseudo: Tensor, weight: float) -> Tensor:
    """``(1 - w) CE(gold nodes, labels) + w CE(other nodes, pseudo-labels)``; a part without nodes counts 0.

    Without other nodes it is the cross-entropy of the gold nodes alone (as in PyG).

    Args:
        logits: ``[M, C]``.
        y: ``[M]`` labels, read where ``gold``.
        gold: ``[M]`` bool.
        pseudo: ``[M]`` labels of the other model, read elsewhere.
        weight: w, the paper's alpha in the E-step and beta in the M-step.
    """
    if bool(gold.all()):
        return F.cross_entropy(logits, y)
    other = weight * F.cross_entropy(logits[~gold], pseudo[~gold])
    return other + (1 - weight) * F.cross_entropy(logits[gold], y[gold]) if bool(gold.any()) else other


class GLEM(Supervised):
    """Variational EM between a language model and a graph network (Zhao et al., 2210.14709, eq. 5-10).

    First the language model learns the training labels. Then, in each round, the M-step trains the graph network on
    the vectors of the language model, by labels and by the language model's pseudo-labels, and the E-step trains the
    language model by labels and by the network's pseudo-labels. A last M-step closes; the network answers.

    Trained: a copy of the encoder with all its weights and a linear head; a GraphSAGE, anew in each M-step. What is
    given stays as it was. Small here: few rounds and steps, pseudo-labels on all nodes that are not trained on (hard,
    as in PyG's ``GLEM``), the graph network in full batch, no dropout in the language model. Of the rounds, the one
    best on validation nodes is kept.
    Published settings: the weights and learning rates in the authors' commands for RevGAT and GCN
    (``OGB/ogbn-arxiv/README.md``), all combined; GLBench runs the first of each.

    Args:
        tunable: an encoder with ``model``, ``embed`` (with gradients) and ``encode``.
        rounds: of EM.
        alpha: weight of pseudo-labels in the E-step.
        beta: weight of pseudo-labels in the M-step.
        steps: of AdamW on the language model, in each E-step and before the first.
        batch: labelled texts a step, and as many others.
        lm_lr: learning rate of the language model.
        head_lr: learning rate of its head, which starts anew and may read vectors of length 1, as MiniLM's are.
        hidden: width of the graph network.
        lr: of Adam on the graph network.
        epochs: of the graph network, in each M-step.
        seed: of weights and batches.
        device: where the graph network is trained; the language model stays where it is.
    """

    needs = ("tunable",)
    family = "alignment"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"alpha": (0.8,), "beta": (0.05,)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {
        "alpha": (0.8, 0.5),
        "beta": (0.05, 0.7),
        "lm_lr": (2e-5, 3e-5),
    }

    def __init__(
        self,
        tunable: SentenceEncoder,
        *,
        rounds: int = 1,
        alpha: float = 0.8,
        beta: float = 0.05,
        steps: int = 50,
        batch: int = 16,
        lm_lr: float = 5e-5,
        head_lr: float = 1e-2,
        hidden: int = 64,
        lr: float = 0.01,
        epochs: int = 100,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        if rounds < 0 or not (0 <= alpha <= 1 and 0 <= beta <= 1):
            raise ValueError(
                f"rounds must not be negative, alpha and beta in [0, 1], got {rounds}, {alpha} and {beta}."
            )
        self.tunable, self.rounds, self.alpha, self.beta = tunable, rounds, alpha, beta
        self.steps, self.batch, self.lm_lr, self.head_lr = steps, batch, lm_lr, head_lr
        self.hidden, self.lr, self.epochs = hidden, lr, epochs

    def fit(self, data: Data, split: Split) -> GLEM:
        """Alternate on the labels of ``split.train``; keep the best round on ``split.val``."""
        split.check(int(data.num_nodes or 0))
        texts, adj, y = node_texts(data), adjacency(data, self.device), data.y.to(self.device)
        classes, self.lm = num_classes(data), tuned_copy(self.tunable)
        best, kept = -1.0, None
        with isolated_rng(self.seed, self.device):
            self.head = nn.Linear(self.lm.dim, classes)
            self._teach(texts, data.y, split.train, None)
            for turn in range(self.rounds + 1):
                reader = Remembered(self.lm)
                x = reader.encode(texts)
                network, logits = self._m_step(x, adj, y, split, classes)
                right = accuracy(logits, data.y, split.val) if split.val.numel() else float(turn)
                if right > best:
                    best, kept = right, (network, copy.deepcopy(self.lm.model.state_dict()), reader)
                if turn < self.rounds:
                    self._teach(texts, data.y, split.train, logits.argmax(1))
        if kept is not None:
            self.network, state, self.reader = kept
            self.lm.model.load_state_dict(state)
        self.train_only({"lm": self.lm.model, "head": self.head, "network": self.network})
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """The graph network's class probabilities ``[N, C]``."""
        x = self.reader.encode(node_texts(data)).to(self.device)
        return self.network(x, adjacency(data, self.device)).softmax(1).cpu()

    def _teach(self, texts: list[str], y: Tensor, train: Tensor, pseudo: Tensor | None) -> None:
        """The E-step; without pseudo-labels, on labels alone."""
        gold = torch.zeros(len(texts), dtype=torch.bool)
        gold[train] = True
        others = torch.nonzero(~gold).flatten()
        groups = [
            {"params": self.lm.model.parameters(), "lr": self.lm_lr},
            {"params": self.head.parameters(), "lr": self.head_lr},
        ]
        optimiser = torch.optim.AdamW(groups, fused=True)
        for _ in range(self.steps):
            nodes = _some(train, self.batch)
            if pseudo is not None:
                nodes = torch.cat([nodes, _some(others, self.batch)])
            logits = self.head(embed(self.lm, [texts[i] for i in nodes.tolist()]).to(self.head.weight.device))
            told = y if pseudo is None else pseudo
            loss = em_loss(logits, y[nodes], gold[nodes], told[nodes], self.alpha)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    def _m_step(self, x: Tensor, adj: Adjacency, y: Tensor, split: Split, classes: int) -> tuple[GraphSAGE, Tensor]:
        """A graph network on the vectors ``[N, D]``, and its logits ``[N, C]`` on the CPU."""
        with torch.no_grad():
            pseudo = self.head(x).argmax(1).to(self.device)
        x = x.to(self.device)
        gold = torch.zeros_like(y, dtype=torch.bool)
        gold[split.train.to(y.device)] = True
        network = GraphSAGE(x.size(1), self.hidden, 2, classes, dropout=0.5).to(self.device)
        optimiser = torch.optim.Adam(network.parameters(), lr=self.lr, weight_decay=5e-4)
        for _ in range(self.epochs):
            optimiser.zero_grad(set_to_none=True)
            em_loss(network(x, adj), y, gold, pseudo, self.beta).backward()
            optimiser.step()
        network.eval()
        with torch.no_grad():
            return network, network(x, adj).cpu()


def _some(nodes: Tensor, number: int) -> Tensor:
    """Up to ``number`` of ``nodes``, drawn from torch's current state."""
    return nodes[torch.randperm(nodes.numel())[:number]]
