"""ZeroG: one space for the texts of nodes and classes, tuned on source graphs through propagation."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.graphllm.enhancers.ego_prompts import egos
from graphfm.graphllm.method import ZeroShot
from graphfm.graphllm.texts import adjacency, class_texts, node_texts
from graphfm.graphllm.tuned import embed, tuned_copy
from graphfm.graphllm.zeroshot.propagation import spread
from graphfm.nn import Adjacency
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.sentence import SentenceEncoder

__all__ = ["SpreadTexts", "Vectors", "ZeroG", "standardised", "with_hub"]

Vectors = tuple[Tensor, Tensor, Tensor]
"""Vectors of nodes ``[n, D]``, of the graph's description ``[1, D]`` and of the classes ``[C, D]``."""


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


def describe(data: Data) -> str:
    """What is said of a graph as a whole: its description if it has one, else the names of its classes."""
    given = data.get("description")
    return str(given) if given else "A graph of texts, to be sorted into: " + "; ".join(class_texts(data))


class SpreadTexts(ZeroShot):
    """What ZeroG and its frozen form share: everything but what turns texts into vectors.

    Args:
        rounds: R.
        hops: how far neighbourhoods reach.
        at_most: nodes a neighbourhood.
        lr: learning rate of AdamW.
        steps: batches, of one source each, in turn.
        batch_size: neighbourhoods a batch.
        seed: of weights, neighbourhoods and batches.
        device: where vectors are spread.

    Attributes:
        all_nodes: whether all labelled nodes of a neighbourhood are told, or its centre alone.
    """

    family = "zero-shot"
    descriptions: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    all_nodes: ClassVar[bool]

    def __init__(
        self,
        *,
        rounds: int,
        hops: int,
        at_most: int,
        lr: float,
        steps: int,
        batch_size: int,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        self.rounds, self.hops, self.at_most = rounds, hops, at_most
        self.lr, self.steps, self.batch_size = lr, steps, batch_size

    @abc.abstractmethod
    def start(self) -> dict[str, nn.Module]:
        """What is trained, as new."""

    @abc.abstractmethod
    def reader(self, data: Data) -> Callable[[Tensor], Vectors]:
        """Gives the vectors of some nodes of a graph, the description and the classes, with gradients."""

    @abc.abstractmethod
    def whole(self, data: Data) -> Vectors:
        """The vectors of all nodes, the description and the classes, without gradients."""

    def fit(self, sources: Iterable[Data]) -> SpreadTexts:
        """Tune on labelled nodes of the sources, one source a step in turn.

        Raises:
            ValueError: no sources, or an encoder whose vectors of two calls cannot be compared.
        """
        graphs = list(sources)
        if not graphs:
            raise ValueError(
                f"sources is empty; {type(self).__name__} learns from labelled graphs before it is asked about another."
            )
        with isolated_rng(self.seed, self.device):
            modules = self.start()
            optimiser = torch.optim.AdamW(self.train_only(modules), lr=self.lr, fused=True)
            ready = [(graph, self.reader(graph), adjacency(graph)) for graph in graphs]
            generator = torch.Generator().manual_seed(self.seed)
            for module in modules.values():
                module.train()
            for step in range(self.steps):
                graph, read, adj = ready[step % len(ready)]
                loss = self._loss(graph, read, adj, generator)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            for module in modules.values():
                module.eval()
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Cosines ``[N, C]``."""
        x, about, classes = self.whole(data)
        edges = adjacency(data, self.device).edge_index
        adj = with_hub(edges, torch.zeros(x.size(0), dtype=torch.long, device=self.device), 1)
        h = self.nodes(x, about, adj)[: x.size(0)]
        return (F.normalize(h, dim=1) @ F.normalize(standardised(classes), dim=1).t()).cpu()

    def nodes(self, x: Tensor, about: Tensor, adj: Adjacency) -> Tensor:
        """Nodes ``[T, D]`` and hubs ``[B, D]``, standardised and spread: ``[T + B, D]``."""
        return spread(adj, standardised(torch.cat([x, about])), self.rounds)

    def _loss(
        self, graph: Data, read: Callable[[Tensor], Vectors], adj: Adjacency, generator: torch.Generator
    ) -> Tensor:
        labelled = torch.nonzero(graph.y >= 0).flatten()
        centre = labelled[torch.randperm(labelled.numel(), generator=generator)[: self.batch_size]]
        found = egos(adj, centre, hops=self.hops, at_most=self.at_most, generator=generator)
        batch = found.graphs.take(torch.arange(centre.numel()))
        told = graph.y[batch.node] >= 0 if self.all_nodes else batch.node == centre[batch.batch]
        rows = torch.nonzero(told).flatten()
        # A node that stands in several neighbourhoods is read once.
        once, where = batch.node.unique(return_inverse=True)
        x, about, classes = read(once)
        joined = with_hub(batch.edge_index, batch.batch, centre.numel()).to(self.device)
        h = self.nodes(x[where.to(self.device)], about.expand(centre.numel(), -1), joined)[rows.to(self.device)]
        logits = h @ standardised(classes).t() / h.size(1) ** 0.5
        return F.cross_entropy(logits, graph.y[batch.node[rows]].to(self.device))


class ZeroG(SpreadTexts):
    """Neighbourhoods with a node that carries the graph's description, texts and classes in one space (2402.11235).

    On sources: the vectors of a batch of neighbourhoods and of the classes are standardised, spread by ``rounds``
    rounds of S without parameters, and their products with the classes' vectors, h_v . e_c, are trained by
    cross-entropy. On the target: the same on the whole graph, argmax of the cosine. The number of steps is fixed; the
    target is not looked at (the authors' code scores it after every epoch and names no rule to choose).

    Frozen: the encoder's weights. Trained: LoRA on its queries and values, of rank 4 with scale 8 / 4, in a copy; what
    is given stays as it was. Small here: 4 neighbourhoods of at most 24 nodes a step, where the authors take up to 100
    nodes. Vectors are standardised over the batch of neighbourhoods and not over each by itself, which is nearer to
    the whole graph of the target; products are divided by sqrt(D), without which cross-entropy on standardised vectors
    is saturated from the start; LoRA has no dropout; the encoder's own pooling is read, not [CLS]. All labelled nodes
    of a neighbourhood are told, as in the code of LLMNodeBed, since their texts are read anyway.

    Args:
        tunable: an encoder with ``model``, ``embed`` (with gradients) and ``encode``.
        rank: of LoRA.
        rounds: R.
        hops: how far neighbourhoods reach.
        at_most: nodes a neighbourhood.
        lr: learning rate of AdamW.
        steps: batches, of one source each, in turn.
        batch_size: neighbourhoods a batch.
        seed: of LoRA's start, neighbourhoods and batches.
        device: where vectors are spread; the encoder stays where it is.
    """

    needs = ("tunable",)
    all_nodes = True

    def __init__(
        self,
        tunable: SentenceEncoder,
        *,
        rank: int = 4,
        rounds: int = 10,
        hops: int = 2,
        at_most: int = 24,
        lr: float = 1e-4,
        steps: int = 100,
        batch_size: int = 4,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(
            rounds=rounds,
            hops=hops,
            at_most=at_most,
            lr=lr,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            device=device,
        )
        self.tunable, self.rank = tunable, rank

    def start(self) -> dict[str, nn.Module]:
        """The copy of the encoder, LoRA in it."""
        self.lm = tuned_copy(self.tunable, rank=self.rank, seed=self.seed)
        return {"lm": self.lm.model}

    def reader(self, data: Data) -> Callable[[Tensor], Vectors]:
        """Reads texts anew at each call."""
        texts, about, classes = node_texts(data), describe(data), class_texts(data)

        def read(nodes: Tensor) -> Vectors:
            found = embed(self.lm, [*(texts[i] for i in nodes.tolist()), about, *classes]).to(self.device)
            x, hub, labels = found.split([nodes.numel(), 1, len(classes)])
            return x, hub, labels

        return read

    def whole(self, data: Data) -> Vectors:
        """Reads all texts, in the encoder's own batches."""
        texts, classes = node_texts(data), class_texts(data)
        found = self.lm.encode([*texts, describe(data), *classes]).to(self.device)
        x, hub, labels = found.split([len(texts), 1, len(classes)])
        return x, hub, labels
