"""GraphAdapter: a graph network beside a frozen language model, taught by foretelling the words of the nodes' texts."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.backbones import GraphSAGE
from graphfm.data.splits import Split
from graphfm.graphllm.backends.cache import cached_hidden
from graphfm.graphllm.backends.prompts import question
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.predictors.answers import frozen, step
from graphfm.graphllm.stages import Stage
from graphfm.graphllm.texts import adjacency, node_texts, num_classes
from graphfm.graphllm.training import train_nodes
from graphfm.nn import Adjacency
from graphfm.nn.adjacency import neighbours
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM

__all__ = ["Adapter", "Foretold", "GraphAdapter", "foretold"]

# What foretelling depends on, beside the language model and the graph.
_FIRST = ("hidden", "dropout", "foretelling_lr", "rounds", "batch", "positions", "characters", "seed", "device")


class Adapter(nn.Module):
    """``fuse(z_v, h) = W_2 silu(W_1 [W_g z_v, W_t h])`` (2402.12984, section 3), ``z`` of two maps and a GraphSAGE.

    The maps are those of the published code, ``norm(W_b silu(W_a x))``, before the graph network. ``extend`` takes the
    fusion back to the width of the language model, ``answer`` to the classes.

    Args:
        width: D, of the language model's states.
        hidden: of the graph network and the fusion.
        out_channels: classes.
        dropout: in the graph network.
    """

    def __init__(self, width: int, hidden: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.widen = nn.Linear(width, 2 * hidden, bias=False)
        self.shrink = nn.Linear(2 * hidden, hidden, bias=False)
        self.norm = nn.RMSNorm(hidden)
        self.graph = GraphSAGE(hidden, hidden, 2, dropout=dropout)
        self.from_graph = nn.Linear(hidden, hidden, bias=False)
        self.from_token = nn.Linear(width, hidden, bias=False)
        self.mix = nn.Linear(2 * hidden, 10 * hidden, bias=False)
        self.narrow = nn.Linear(10 * hidden, hidden, bias=False)
        self.extend = nn.Linear(hidden, width, bias=False)
        self.answer = nn.Linear(hidden, out_channels)

    def forward(self, x: Tensor, adj: Adjacency, states: Tensor, node: Tensor | None = None) -> Tensor:
        """States ``[M, D]`` of tokens of ``node`` ``[M]`` (of node 0, 1, ... if not given) to ``[M, hidden]``."""
        z = self.graph(self.norm(self.shrink(F.silu(self.widen(x)))), adj)
        both = torch.cat([self.from_graph(z if node is None else z[node]), self.from_token(states)], dim=1)
        return self.narrow(F.silu(self.mix(both)))


@dataclasses.dataclass(frozen=True)
class Foretold:
    """The tokens of all texts end to end, each with what the language model knew before the next one came.

    Attributes:
        ptr: ``[N + 1]`` first token of each node.
        state: ``[M, D]`` last states, in half precision as published.
        target: ``[M]`` the next token.
        weight: ``[M]`` of each token, such that a word that comes n times in a text counts 1 / n each, and all tokens
            of a node 1 together.
        known: ``[M]`` log-probability that the language model gives the next token.
    """

    ptr: Tensor
    state: Tensor
    target: Tensor
    weight: Tensor
    known: Tensor


class GraphAdapter(Supervised):
    """A graph network as an adapter of a frozen language model (Huang et al., 2402.12984).

    First without labels: the states ``h_t`` of all tokens are computed once; with their mean in each text as ``x`` the
    adapter learns ``p = 1/2 softmax(head(h_t)) + 1/2 softmax(head(extend(fuse(z_v, h_t))))`` of the next token.
    Then with labels: a linear map of ``fuse(z_v, h)`` where ``h`` is the last state of text and question. The answer
    is a class, so none is unknown.

    Trained: the adapter (graph network, fusion) in both stages, and the linear map in the second. Frozen: the language
    model and its head. Where it differs: the graph network is this library's GraphSAGE; the published code takes a
    text's last state for ``x``, smooths the next token's label by 0.1, and does not foretell a text's first word.
    Small here: ``rounds`` passes of the first stage, each over at most ``positions`` tokens a batch. Published
    settings: the learning rate of the authors' ``finetune.py``, the width of GLBench's ``run_GraphAdapter.sh``.

    Args:
        lm: gives the states and the head.
        hidden: width of the adapter.
        dropout: in its graph network.
        lr: learning rate of the second stage.
        weight_decay: of the second stage.
        foretelling_lr: learning rate of the first stage.
        rounds: passes over the nodes in the first stage; 0 leaves it out.
        batch: nodes a step there.
        positions: most tokens a step there, drawn where there are more.
        epochs: steps over the whole graph in the second stage.
        characters: of a text that are told.
        seed: of weights, order and dropout.
        device: where the adapter is trained; the language model stays where it is.
    """

    needs: ClassVar[tuple[str, ...]] = ("lm",)
    family = "predictor"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (2e-3, 5e-3)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (1e-4,), "hidden": (64,)}

    def __init__(
        self,
        lm: CausalLM,
        *,
        hidden: int = 64,
        dropout: float = 0.0,
        lr: float = 2e-3,
        weight_decay: float = 1e-3,
        foretelling_lr: float = 5e-4,
        rounds: int = 5,
        batch: int = 32,
        positions: int = 2048,
        epochs: int = 200,
        characters: int = 1000,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        if min(hidden, batch, positions, epochs, characters) < 1 or rounds < 0:
            raise ValueError(
                "hidden, batch, positions, epochs and characters must be at least 1, rounds at least 0; "
                f"got {hidden}, {batch}, {positions}, {epochs}, {characters}, {rounds}."
            )
        self.lm, self.hidden, self.dropout, self.lr, self.weight_decay = lm, hidden, dropout, lr, weight_decay
        self.foretelling_lr, self.rounds, self.batch, self.positions, self.epochs = (
            foretelling_lr, rounds, batch, positions, epochs,
        )  # fmt: skip
        self.characters = characters
        self.stage: Stage | None = None
        self.taken: Stage | None = None

    def go_on_from(self, other: Supervised) -> None:
        """Take over what was foretold, if all that it depends on is the same."""
        same = isinstance(other, GraphAdapter) and all(getattr(self, key) == getattr(other, key) for key in _FIRST)
        self.taken = other.stage if same and other.lm is self.lm else None  # type: ignore[attr-defined]

    def fit(self, data: Data, split: Split) -> GraphAdapter:
        """Foretell all texts, then learn the answers of ``split.train``; the best on ``split.val`` is kept."""
        split.check(int(data.num_nodes or 0))
        x, prompts, adj = self.states(data)
        with isolated_rng(self.seed, self.device):
            self.adapter = Adapter(self.lm.dim, self.hidden, num_classes(data), self.dropout).to(self.device)
            parameters = self.train_only({"adapter": self.adapter})
            self.stage, self.taken = self.taken, None  # another fit may be on another graph
            if self.stage is not None:
                self.stage.restore([self.adapter], self.device)
            elif self.rounds:
                self._foretell(foretold(self.lm, self._texts(data), self.batch), x, adj)
                self.stage = Stage.of([self.adapter], self.device)
            train_nodes(
                self.adapter, lambda: self.adapter.answer(self.adapter(x, adj, prompts)), data.y.to(self.device),
                split, parameters, lr=self.lr, weight_decay=self.weight_decay, epochs=self.epochs,
            )  # fmt: skip
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Class probabilities ``[N, C]``."""
        x, prompts, adj = self.states(data)
        return self.adapter.answer(self.adapter(x, adj, prompts)).softmax(1).cpu()

    def states(self, data: Data) -> tuple[Tensor, Tensor, Adjacency]:
        """Mean states of the texts, the last of the texts with the question, ``[N, D]`` each, and the graph."""
        texts, asked = self._texts(data), question(data.label_text)
        x = cached_hidden(self.lm, texts)[:, 0]
        prompts = cached_hidden(self.lm, [f"{text} {asked}" for text in texts], pool="last")[:, 0]
        return x.to(self.device), prompts.to(self.device), adjacency(data, self.device)

    def loss(self, told: Foretold, rows: Tensor, node: Tensor, x: Tensor, adj: Adjacency) -> Tensor:
        """Minus the log of the mixed probability of the next token, the weighted mean over ``rows`` of ``node``."""
        head = self.lm.model.get_output_embeddings()  # type: ignore[operator]
        state, target, weight, known = (
            part[rows].to(self.device).float() if part.is_floating_point() else part[rows].to(self.device)
            for part in (told.state, told.target, told.weight, told.known)
        )
        fused = self.adapter.extend(self.adapter(x, adj, state, node.to(self.device)))
        logits = head(fused.to(head.weight.device, head.weight.dtype)).float().to(self.device)
        learned = logits.log_softmax(1).gather(1, target[:, None])[:, 0]
        return -(weight * (torch.logaddexp(known, learned) - math.log(2))).sum() / weight.sum()

    def _foretell(self, told: Foretold, x: Tensor, adj: Adjacency) -> None:
        parameters = [value for name, value in self.adapter.named_parameters() if not name.startswith("answer")]
        optimiser = torch.optim.AdamW(parameters, self.foretelling_lr)
        written = torch.nonzero(told.ptr.diff()).flatten()
        self.adapter.train()
        with frozen(self.lm.model):
            for _ in range(self.rounds):
                for part in written[torch.randperm(written.numel())].split(self.batch):
                    rows, owner = neighbours(told.ptr, part)
                    kept = torch.randperm(rows.numel())[: self.positions]
                    step(optimiser, parameters, self.loss(told, rows[kept], part[owner[kept]], x, adj))

    def _texts(self, data: Data) -> list[str]:
        return [text[: self.characters] for text in node_texts(data)]


@torch.no_grad()
def foretold(lm: CausalLM, texts: list[str], batch: int) -> Foretold:
    """What the language model foretells of each text, ``batch`` at a time; nothing of texts of no words."""
    head = lm.model.get_output_embeddings()  # type: ignore[operator]
    count, states, targets, known = torch.zeros(len(texts), dtype=torch.long), [], [], []
    full = [index for index, text in enumerate(texts) if text.strip()]
    for at in range(0, len(full), batch):
        part = full[at : at + batch]
        told = lm.token_states([texts[index] for index in part])
        follows = told.mask[:, 1:].bool()
        count[part] = follows.sum(1)
        state, target = told.states[:, 0, :-1][follows], told.ids[:, 1:][follows]
        logits = head(state.to(head.weight.device, head.weight.dtype)).float()
        known.append(logits.log_softmax(1).cpu().gather(1, target[:, None])[:, 0])
        states.append(state.half())
        targets.append(target)
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    empty = torch.zeros(0, dtype=torch.long)
    target = torch.cat([*targets, empty])
    node = torch.repeat_interleave(torch.arange(len(texts)), count)
    _, kind, times = torch.unique(torch.stack([node, target]), dim=1, return_inverse=True, return_counts=True)
    weight = 1.0 / times[kind].float()
    whole = torch.zeros(len(texts)).index_add(0, node, weight)
    state = torch.cat([*states, torch.zeros(0, lm.dim, dtype=torch.float16)])
    return Foretold(ptr, state, target, weight / whole[node], torch.cat([*known, torch.zeros(0)]))
