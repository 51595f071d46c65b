"""ENGINE: a ladder of graph layers beside a frozen language model, one rung for each of its layers that is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.backbones.sage import SAGELayer
from graphfm.data.splits import Split
from graphfm.graphllm.backends.cache import cached_hidden
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.texts import adjacency, node_texts, num_classes
from graphfm.graphllm.training import train_nodes
from graphfm.nn import Adjacency, dropout
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM

__all__ = ["ENGINE", "EncoderENGINE", "Ladder"]


class Ladder(nn.Module):
    """``z_l = GNN_l(a_l P_l(H_l) + (1 - a_l) z_{l-1})``, ``a_l = sigmoid(alpha_l / T)``, ``a_1 = 1`` (2401.15569).

    As in the authors' code ``P(h) = W_2 relu(LN(W_1 h + b_1)) + b_2`` and the graph layers are SAGE's.

    Args:
        in_channels: width of the language model's states.
        hidden: width of the ladder.
        rungs: layers of the language model that are read.
        out_channels: classes.
        rate: dropout.
        temperature: T.
    """

    def __init__(
        self, in_channels: int, hidden: int, rungs: int, out_channels: int, rate: float, temperature: float = 0.1
    ) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Sequential(nn.Linear(in_channels, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, hidden))
            for _ in range(rungs)
        )
        self.layers = nn.ModuleList(SAGELayer(hidden, hidden) for _ in range(rungs))
        self.alpha = nn.Parameter(torch.zeros(rungs - 1))
        self.answer = nn.Linear(2 * hidden, out_channels)
        self.rate, self.temperature = rate, temperature

    def forward(self, states: Tensor, adj: Adjacency) -> Tensor:
        """States ``[N, L, D]`` to logits ``[N, C]``: of each node beside the mean of its neighbours."""
        share = torch.sigmoid(self.alpha / self.temperature)
        z = states.new_zeros(states.size(0), self.answer.in_features // 2)
        for rung, (project, layer) in enumerate(zip(self.project, self.layers, strict=True)):
            mixed = project(states[:, rung])
            if rung:
                mixed = share[rung - 1] * mixed + (1 - share[rung - 1]) * z
            z = dropout(layer(mixed, adj).relu(), self.rate, self.training)
        return self.answer(torch.cat([z, adj.mean(z.dtype).matmul(z)], dim=1))


class ENGINE(Supervised):
    """Graph layers beside a frozen language model whose states are computed once (Zhu et al., 2401.15569).

    Frozen: the language model. Trained: projections, graph layers, the shares alpha, the answer. The paper trains on
    sampled subgraphs of each node and reads out the root and the subgraph's mean; here the whole graph takes a step,
    and the mean is over the neighbours. Small here: two layers of the language model are read, the authors read seven;
    each rung is one graph layer with ReLU, theirs one or two, mostly with ELU; the ladder is 64 wide, theirs 128; and
    the optimiser is Adam, theirs AdamW. Their early exit is left out. Published settings: the values in the authors'
    ``configs/*/engine.yaml``, all combined, and the width in their ``main.py``.

    Args:
        lm: gives the states, a text's tokens averaged.
        layers: which of its layers are read, from the first to the last; a middle one and the last if not given.
        scaled: bring each layer's states to one size, as layers differ in it; the paper does not. Whether to is a
            point of the grid, chosen on validation nodes.
        hidden: width of the ladder.
        dropout: rate.
        lr: learning rate of Adam.
        weight_decay: of Adam.
        epochs: steps over the whole graph.
        seed: of weights and dropout.
        device: where the ladder is trained.
    """

    needs = ("lm",)
    family = "enhancer"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"hidden": (64,), "lr": (0.005,), "scaled": (True, False)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden": (128,),
        "lr": (5e-5, 1e-4, 1e-3, 1e-2),
        "dropout": (0.2, 0.5),
        "weight_decay": (1e-4, 5e-4, 5e-3),
        "scaled": (False,),
    }

    def __init__(
        self,
        lm: CausalLM,
        *,
        layers: Sequence[int] | None = None,
        scaled: bool = True,
        hidden: int = 64,
        dropout: float = 0.2,
        lr: float = 0.005,
        weight_decay: float = 5e-4,
        epochs: int = 200,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        self.lm, self.scaled, self.hidden, self.dropout = lm, scaled, hidden, dropout
        self.layers = tuple(layers) if layers is not None else (lm.num_layers // 2, lm.num_layers)
        if not self.layers:
            raise ValueError("layers is empty; name at least one layer of the language model, -1 for the last.")
        self.lr, self.weight_decay, self.epochs = lr, weight_decay, epochs

    def states(self, data: Data) -> Tensor:
        """``[N, L, D]`` on the device, cached on disk; ``scaled`` to mean square 1 a node and layer, if asked for."""
        found = self.read(node_texts(data)).to(self.device)
        if not self.scaled:
            return found
        return found / found.square().mean(dim=2, keepdim=True).sqrt().clamp(min=1e-6)

    def fit(self, data: Data, split: Split) -> ENGINE:
        """Train on ``split.train``, keep the best state on ``split.val``."""
        split.check(int(data.num_nodes or 0))
        states, adj, y = self.states(data), adjacency(data, self.device), data.y.to(self.device)
        with isolated_rng(self.seed, self.device):
            self.ladder = Ladder(states.size(2), self.hidden, len(self.layers), num_classes(data), self.dropout)
            self.ladder.to(self.device)
            train_nodes(
                self.ladder,
                lambda: self.ladder(states, adj),
                y,
                split,
                self.train_only({"ladder": self.ladder}),
                lr=self.lr,
                weight_decay=self.weight_decay,
                epochs=self.epochs,
            )
        return self

    def read(self, texts: list[str]) -> Tensor:
        """States ``[N, L, D]`` of the layers, cached on disk."""
        return cached_hidden(self.lm, texts, self.layers)

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Class probabilities ``[N, C]``."""
        return self.ladder(self.states(data), adjacency(data, self.device)).softmax(1).cpu()


class EncoderENGINE(ENGINE):
    """:class:`ENGINE` beside a text encoder, whose layers are read in place of a causal language model's.

    The paper has no such form, it reads causal models of 7 billion weights. All else is ENGINE.

    Args:
        states: an encoder with ``hidden`` and ``num_layers``; the mean of a text's tokens is read of each layer.
    """

    needs = ("states",)

    def __init__(self, states: Any, **settings: Any) -> None:
        super().__init__(states, **settings)

    def read(self, texts: list[str]) -> Tensor:
        """States ``[N, L, D]`` of the layers."""
        return self.lm.hidden(texts, self.layers)
