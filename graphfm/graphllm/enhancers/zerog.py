"""ZeroG: one space for the texts of nodes and classes, tuned on source graphs through propagation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.graphllm.enhancers.ego_prompts import egos
from graphfm.graphllm.enhancers.ofa import refuse_transductive
from graphfm.graphllm.method import ZeroShot
from graphfm.graphllm.texts import adjacency, class_texts, encode_together, node_texts
from graphfm.graphllm.zeroshot.propagation import spread
from graphfm.nn import Adjacency
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import TextEncoder

__all__ = ["LowRank", "ZeroG", "standardised", "with_hub"]


class LowRank(nn.Module):
    """``x + x A B`` with ``A`` ``[D, r]`` random and ``B`` ``[r, D]`` zero at first, so that it starts as nothing.

    Args:
        channels: D.
        rank: r.
    """

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(channels, rank) / channels**0.5)
        self.up = nn.Parameter(torch.zeros(rank, channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D] -> [..., D]``."""
        return x + x @ self.down @ self.up


def standardised(x: Tensor) -> Tensor:
    """Each column of ``[n, D]`` with mean 0 and deviation 1 over the rows; a constant column is 0."""
    spread_ = x.std(0, correction=0)
    return (x - x.mean(0)) / torch.where(spread_ > 1e-6, spread_, torch.ones_like(spread_))


def with_hub(edge_index: Tensor, batch: Tensor, count: int) -> Adjacency:
    """Graphs side by side, each with one more node that is joined to all of its nodes, both ways.

    Args:
        edge_index: ``[2, K]``.
        batch: ``[T]`` graph of each node.
        count: B graphs; their hubs are the nodes T .. T + B - 1.
    """
    spokes = torch.stack([torch.arange(batch.numel(), device=batch.device), batch.numel() + batch])
    edges = torch.cat([edge_index, spokes, spokes.flip(0)], dim=1)
    return Adjacency.from_edges(edges, batch.numel() + count)


class ZeroG(ZeroShot):
    """Neighbourhoods with a node that carries the graph's description, texts and classes in one space (2402.11235).

    On sources: the vectors of a batch of neighbourhoods and of the classes are standardised, spread by ``rounds``
    rounds of S without parameters, and their products with the classes' vectors are trained by cross-entropy. On the
    target: the same on the whole graph, argmax of the cosine. The number of steps is fixed; the target is not looked
    at (the authors' code scores it after every epoch and names no rule to choose).

    Frozen: the encoder. Trained: a low-rank map ``x + x A B`` on its vectors. The paper adapts the encoder's own
    queries and values by LoRA of the same rank; that needs gradients through the encoder, this does not, and starts
    at the same place. Products are divided by sqrt(D), without which cross-entropy on standardised vectors is
    saturated from the start.

    Args:
        encoder: embeds nodes, classes and descriptions.
        rank: of the map.
        rounds: R.
        hops: how far neighbourhoods reach.
        at_most: nodes a neighbourhood.
        lr: learning rate of AdamW.
        steps: batches, of one source each, in turn.
        batch_size: neighbourhoods a batch.
        seed: of weights, neighbourhoods and batches.
        device: where it is trained.
    """

    needs = ("encoder",)
    family = "zero-shot"

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        rank: int = 4,
        rounds: int = 10,
        hops: int = 2,
        at_most: int = 24,
        lr: float = 1e-3,
        steps: int = 100,
        batch_size: int = 64,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        self.encoder, self.rank, self.rounds, self.hops = encoder, rank, rounds, hops
        self.at_most, self.lr, self.steps, self.batch_size = at_most, lr, steps, batch_size

    def fit(self, sources: Iterable[Data]) -> ZeroG:
        """Tune on all labelled nodes of the sources, one source a step in turn.

        Raises:
            ValueError: no sources, or an encoder whose vectors of two calls cannot be compared.
        """
        graphs = list(sources)
        if not graphs:
            raise ValueError("sources is empty; ZeroG learns from labelled graphs before it is asked about another.")
        refuse_transductive(self.encoder, "ZeroG")
        ready = [(graph, self._vectors(graph), adjacency(graph)) for graph in graphs]
        with isolated_rng(self.seed, self.device):
            self.map = LowRank(self.encoder.dim, self.rank).to(self.device)
            optimiser = torch.optim.AdamW(self.train_only({"map": self.map}), lr=self.lr)
            generator = torch.Generator().manual_seed(self.seed)
            for step in range(self.steps):
                graph, vectors, adj = ready[step % len(ready)]
                loss = self._loss(graph, vectors, adj, generator)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Cosines ``[N, C]``."""
        x, about, classes = self._vectors(data)
        edges = adjacency(data, self.device).edge_index
        adj = with_hub(edges, torch.zeros(x.size(0), dtype=torch.long, device=self.device), 1)
        h = self.nodes(x, about, adj)[: x.size(0)]
        return F.cosine_similarity(h.unsqueeze(1), standardised(self.map(classes)), dim=2).cpu()

    def nodes(self, x: Tensor, about: Tensor, adj: Adjacency) -> Tensor:
        """Nodes ``[T, D]`` and hubs ``[B, D]``, mapped, standardised and spread: ``[T + B, D]``."""
        return spread(adj, standardised(self.map(torch.cat([x, about]))), self.rounds)

    def _vectors(self, data: Data) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors of nodes ``[N, D]``, of the description ``[1, D]`` and of the classes ``[C, D]``."""
        x, about, classes = encode_together(self.encoder, node_texts(data), [describe(data)], class_texts(data))
        return x.to(self.device), about.to(self.device), classes.to(self.device)

    def _loss(
        self, graph: Data, vectors: tuple[Tensor, Tensor, Tensor], adj: Adjacency, generator: torch.Generator
    ) -> Tensor:
        x, about, classes = vectors
        labelled = torch.nonzero(graph.y >= 0).flatten()
        centre = labelled[torch.randperm(labelled.numel(), generator=generator)[: self.batch_size]]
        found = egos(adj, centre, hops=self.hops, at_most=self.at_most, generator=generator)
        batch = found.graphs.take(torch.arange(centre.numel()))
        at = torch.nonzero(batch.node == centre[batch.batch]).flatten().to(self.device)
        joined = with_hub(batch.edge_index, batch.batch, centre.numel()).to(self.device)
        h = self.nodes(x[batch.node.to(self.device)], about.expand(centre.numel(), -1), joined)[at]
        logits = h @ standardised(self.map(classes)).t() / h.size(1) ** 0.5
        return F.cross_entropy(logits, graph.y[centre].to(self.device))


def describe(data: Data) -> str:
    """What is said of a graph as a whole: its description if it has one, else the names of its classes."""
    given = data.get("description")
    return str(given) if given else "A graph of texts, to be sorted into: " + "; ".join(class_texts(data))
