"""OFA: one network for all graphs, which are asked through prompt nodes and class nodes with texts of their own."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.data.splits import Split
from graphfm.graphllm.enhancers.ego_prompts import Egos, egos, prompts
from graphfm.graphllm.enhancers.ofa_network import OFANetwork
from graphfm.graphllm.method import Method, Supervised, ZeroShot
from graphfm.graphllm.texts import adjacency, class_texts, encode_together, node_texts, num_classes
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import TextEncoder

__all__ = ["OFA", "OFAZeroShot"]

QUESTION = "Prompt node. Node classification: to which of the categories does this node's text belong?"


class _Asked:
    """A graph ready to be asked: its vectors, the neighbourhoods of some nodes, their labels if known."""

    def __init__(self, vectors: Tensor, found: Egos, data: Data) -> None:
        self.vectors, self.found = vectors, found
        self.num_nodes, self.num_classes = int(data.num_nodes or 0), num_classes(data)
        self.y = data.y[found.centre] if data.get("y") is not None else None

    def logits(self, network: OFANetwork, chosen: Tensor) -> Tensor:
        """``[B, C]`` for the ``chosen`` ``[B]`` of the nodes."""
        device = self.vectors.device
        return network(self.vectors, prompts(self.found, chosen, self.num_nodes, self.num_classes).to(device))

    @torch.no_grad()
    def all_logits(self, network: OFANetwork, size: int = 512) -> Tensor:
        """``[S, C]`` for all its nodes, on the CPU."""
        network.eval()
        whole = torch.arange(self.found.centre.numel())
        return torch.cat([self.logits(network, part).cpu() for part in whole.split(size)])


class _OFA(Method):
    """What the supervised and the zero-shot form share; described there."""

    needs = ("encoder",)
    descriptions: ClassVar[bool] = True

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        hidden: int = 64,
        layers: int = 4,
        hops: int = 2,
        at_most: int = 24,
        dropout: float = 0.15,
        lr: float = 1e-3,
        steps: int = 600,
        batch_size: int = 64,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        self.encoder, self.hidden, self.layers, self.hops = encoder, hidden, layers, hops
        self.at_most, self.dropout, self.lr, self.steps = at_most, dropout, lr, steps
        self.batch_size = batch_size

    def ask(self, data: Data, nodes: Tensor) -> _Asked:
        """Prepare ``nodes`` ``[S]`` of a graph."""
        groups = encode_together(self.encoder, node_texts(data), [QUESTION], class_texts(data))
        vectors = F.normalize(torch.cat(groups), dim=1).to(self.device)
        vectors = vectors * vectors.size(1) ** 0.5  # entries of size 1, as the layers' initial weights expect
        generator = torch.Generator().manual_seed(self.seed)
        found = egos(adjacency(data), nodes, hops=self.hops, at_most=self.at_most, generator=generator)
        return _Asked(vectors, found, data)

    def train(self, graphs: list[_Asked], val: _Asked | None) -> None:
        """Take ``steps`` steps, each on the next graph."""
        with isolated_rng(self.seed, self.device):
            self.network = OFANetwork(graphs[0].vectors.size(1), self.hidden, self.layers, self.dropout)
            self.network.to(self.device)
            optimiser = torch.optim.AdamW(self.train_only({"network": self.network}), lr=self.lr)
            generator = torch.Generator().manual_seed(self.seed)
            best, kept = (-1.0, -torch.inf), None
            for step in range(self.steps):
                self._step(graphs[step % len(graphs)], optimiser, generator)
                if val is not None and (step + 1) % 10 == 0:
                    score = _score(val.all_logits(self.network), val.y)
                    if score > best:
                        best, kept = score, copy.deepcopy(self.network.state_dict())
            if kept is not None:
                self.network.load_state_dict(kept)

    def _step(self, graph: _Asked, optimiser: torch.optim.Optimizer, generator: torch.Generator) -> None:
        self.network.train()
        chosen = torch.randperm(graph.found.centre.numel(), generator=generator)[: self.batch_size]
        logits = graph.logits(self.network, chosen)
        target = F.one_hot(graph.y[chosen], logits.size(1)).to(logits)  # type: ignore[index]
        optimiser.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(logits, target).backward()
        optimiser.step()

    def predict(self, data: Data) -> Tensor:
        """``[N, C]`` chances of each class by itself; they need not sum to 1."""
        return self.ask(data, torch.arange(int(data.num_nodes or 0))).all_logits(self.network).sigmoid()


def _score(logits: Tensor, y: Tensor | None) -> tuple[float, float]:
    """Accuracy and negative loss."""
    if y is None:
        raise ValueError("data.y is missing; validation needs labels.")
    loss = F.binary_cross_entropy_with_logits(logits, F.one_hot(y, logits.size(1)).to(logits))
    return float((logits.argmax(1) == y).double().mean()), -float(loss)


class OFA(_OFA, Supervised):
    """OFA trained on the labelled nodes of the graph that it answers on.

    Frozen: the encoder. Trained: an R-GCN on prompt graphs (Liu et al., 2310.00149): the neighbourhood of a node, a
    prompt node linked to it, a node a class linked to that; relations are {edge, node to prompt, prompt to class, and
    the two reverses}; binary cross-entropy on the class nodes. Where the authors train five or seven layers of 768 on
    many datasets at once for all tasks, this is small: ``layers`` of ``hidden``, node classification alone, no
    batch normalisation (layers add to their input), neighbourhoods drawn once. Published settings: the values of the
    authors' ``default_config.yaml``, ``e2e_all_config.yaml`` and ``lr_all_config.yaml``, all combined. The defaults of
    learning rate and dropout are theirs; they were the best of seven on validation nodes of the CiteSeer texts.

    Args:
        encoder: embeds nodes, classes and the prompt.
        hidden: width.
        layers: relational layers.
        hops: how far neighbourhoods reach.
        at_most: nodes a neighbourhood.
        dropout: rate.
        lr: learning rate of AdamW.
        steps: batches; in the supervised form the state that is best on validation nodes is kept.
        batch_size: nodes a batch.
        seed: of weights, neighbourhoods and batches.
        device: where it is trained.
    """

    family = "enhancer"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (1e-3,)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (1e-3, 1e-4),
        "dropout": (0.15, 0.0),
        "layers": (7, 5),
        "hidden": (768,),
    }

    def fit(self, data: Data, split: Split) -> OFA:
        """Train on ``split.train``; the state that is best on ``split.val`` is kept."""
        split.check(int(data.num_nodes or 0))
        self.train([self.ask(data, split.train)], self.ask(data, split.val) if split.val.numel() else None)
        return self


class OFAZeroShot(_OFA, ZeroShot):
    """OFA trained on source graphs for a fixed number of steps, then asked about a graph of other classes.

    From a few small sources it learns their classes and not to match a text with a class that it has never seen: on
    real graphs it is far below plain propagation (``benchmarks/README.md``), which says nothing of one trained on many.
    Its default settings were chosen in the supervised form, on one of the graphs that it is measured on. Frozen and
    trained parts, what is small here, and arguments: :class:`OFA`.
    """

    family = "zero-shot"
    learns: ClassVar[bool] = True

    def fit(self, sources: Iterable[Data]) -> OFAZeroShot:
        """Train on all labelled nodes of the sources, one source a step in turn.

        Raises:
            ValueError: no sources, or an encoder whose vectors of two calls cannot be compared.
        """
        graphs = list(sources)
        if not graphs:
            raise ValueError("sources is empty; OFA learns from labelled graphs before it is asked about another.")
        refuse_transductive(self.encoder, type(self).__name__)
        self.train([self.ask(graph, torch.nonzero(graph.y >= 0).flatten()) for graph in graphs], None)
        return self


def refuse_transductive(encoder: TextEncoder, method: str) -> None:
    """Refuse an encoder whose vectors of sources and target cannot be compared.

    Raises:
        ValueError: it is one.
    """
    if getattr(encoder, "transductive", False):
        raise ValueError(
            f"{method} learns on sources and answers on a target, whose vectors {encoder.name} cannot compare; "
            "take a pretrained encoder, such as graphfm.graphllm.SentenceEncoder."
        )
