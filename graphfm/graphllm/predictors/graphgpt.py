"""GraphGPT: a graph network grounded in texts, and a projector that learns to make its rows readable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.backbones import GCN
from graphfm.data.splits import Split
from graphfm.graphllm.backends.prompts import question
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.predictors.answers import Scores, named, step
from graphfm.graphllm.predictors.predictor import Predictor
from graphfm.graphllm.predictors.relations import chosen, pagerank, rings
from graphfm.graphllm.predictors.sequences import NOTHING, embedded, joined, opening, slots, texts, words
from graphfm.graphllm.stages import Stage
from graphfm.graphllm.texts import adjacency, node_texts
from graphfm.nn import Adjacency

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM, TextEncoder

__all__ = ["GraphGPT", "Grounding"]

# What grounding and matching depend on, beside the models and the graph.
_FIRST = (
    "hidden", "grounding", "grounding_lr", "matching", "matching_lr", "neighbours", "tokens", "title", "batch", "seed",
    "device",
)  # fmt: skip

_TEMPERATURE, _SHARES = 0.07, (1.0, 10.0, 10.0)
_RESTART, _STEPS = 0.15, 20


class Grounding(nn.Module):
    """Text-graph grounding (2310.13023, section 3.1): nodes, their texts and the texts around them, brought together.

    With ``H`` the graph network's rows, ``T`` those of the texts, ``T'`` the mean of ``T`` over neighbours, all of
    length 1, ``G_1 = H T^t / 0.07``, ``G_2 = H T'^t / 0.07``, ``G_3 = T T'^t / 0.07``, the loss is
    ``sum_i s_i / 2 (CE(G_i) + CE(G_i^t))``, where each row's class is its own column, and ``s = (1, 10, 10)``.

    Args:
        in_channels: width of the text vectors.
        hidden: width of all three.
    """

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.graph = GCN(in_channels, hidden, 2)
        self.text = nn.Linear(in_channels, hidden)

    def forward(self, x: Tensor, adj: Adjacency, nodes: Tensor) -> Tensor:
        """The loss ``[]`` of ``nodes`` ``[B]`` under text vectors ``x`` ``[N, F]``."""
        t = self.text(x)
        kinds = (self.graph(x, adj), t, adj.mean(t.dtype).matmul(t))
        h, own, around = (F.normalize(rows[nodes], dim=1) for rows in kinds)
        right = torch.arange(len(nodes), device=x.device)
        alike = (one @ other.t() / _TEMPERATURE for one, other in ((h, own), (h, around), (own, around)))
        each = (F.cross_entropy(rows, right) + F.cross_entropy(rows.t(), right) for rows in alike)
        return torch.stack([share / 2 * loss for share, loss in zip(_SHARES, each, strict=True)]).sum()


class GraphGPT(Predictor):
    """Graph instruction tuning in two stages after text-graph grounding (Tang et al., 2310.13023).

    1. Grounding, see :class:`Grounding`: a graph network learns from all texts and edges, and is frozen.
    2. Matching, without labels: the node and its neighbours up to two hops as projected tokens, their texts in another
       order; the language model is to tell the texts in the order of the tokens, by next-token loss.
    3. Answers: the tokens, the node's own text and the question, by the next-token loss of the class name. Class names
       are scored, so no answer is unknown.

    Trained: the grounding (first stage), a linear ``projector`` of the rows of ``H``, all of one length (second and
    third). Frozen: the text encoder and the language model. What is small here: texts are grounded by a linear map of
    frozen vectors, the paper trains a transformer; the graph network is a GCN, the paper's a graph transformer; ``T'``
    is of all neighbours, not of three. Chains of thought, which the paper distils from a larger model, are left out.
    Published settings: the learning rate of the third stage in the authors' ``graphgpt_stage2.sh``, the passes of the
    second in ``graphgpt_stage1.sh``.

    Args:
        hidden: width of the grounding.
        grounding: passes over the nodes in the first stage.
        grounding_lr: learning rate of the first stage.
        matching: passes over the nodes in the second stage; 0 leaves it out.
        matching_lr: learning rate of the second stage.
        neighbours: most nodes a distance, one hop and two.
        tokens: most tokens of the node's own text.
        title: most tokens of a text that is to be matched.
        settings: of :class:`~graphfm.graphllm.predictors.predictor.Predictor`.
    """

    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (5e-3, 2e-2)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (2e-5,), "matching": (3,)}

    def __init__(
        self,
        encoder: TextEncoder,
        lm: CausalLM,
        *,
        hidden: int = 128,
        grounding: int = 10,
        grounding_lr: float = 1e-2,
        matching: int = 1,
        matching_lr: float = 2e-3,
        neighbours: int = 5,
        tokens: int = 64,
        title: int = 8,
        **settings: Any,
    ) -> None:
        super().__init__(encoder, lm, **settings)
        if min(hidden, neighbours, tokens, title) < 1 or min(grounding, matching) < 0:
            raise ValueError(
                "hidden, neighbours, tokens and title must be at least 1, grounding and matching at least 0; "
                f"got {hidden}, {neighbours}, {tokens}, {title}, {grounding}, {matching}."
            )
        self.hidden, self.grounding, self.grounding_lr = hidden, grounding, grounding_lr
        self.matching, self.matching_lr = matching, matching_lr
        self.neighbours, self.tokens, self.title = neighbours, tokens, title
        self.stage: Stage | None = None
        self.taken: Stage | None = None

    def go_on_from(self, other: Supervised) -> None:
        """Take over grounding and matching, if all that they depend on is the same."""
        same = isinstance(other, GraphGPT) and all(getattr(self, key) == getattr(other, key) for key in _FIRST)
        alike = same and other.lm is self.lm and other.encoder is self.encoder  # type: ignore[attr-defined]
        self.taken = other.stage if alike else None  # type: ignore[attr-defined]

    def make(self, data: Data, x: Tensor, split: Split) -> dict[str, nn.Module]:
        """Grounds the graph network first; the projector."""
        self.grounded = Grounding(x.size(1), self.hidden).to(self.device)
        if self.stage is None:
            self._ground(x, adjacency(data, self.device))
        return {"projector": nn.Linear(self.hidden, self.lm.dim)}

    def fit(self, data: Data, split: Split) -> GraphGPT:
        """Ground, match, then train on the answers of ``split.train``; the best on ``split.val`` is kept."""
        self.stage, self.taken = self.taken, None  # another fit may be on another graph
        super().fit(data, split)
        self.trained |= {f"grounding.{name}": value for name, value in self.grounded.named_parameters()}
        return self

    def before(self, data: Data, x: Tensor) -> None:
        """Match texts to tokens."""
        found = [self.grounded, self.modules["projector"]]
        if self.stage is not None:
            self.stage.restore(found, self.device)
            self.grounded.eval()
            return
        loss, parameters = self.matched(data, x), list(self.modules["projector"].parameters())
        optimiser = torch.optim.AdamW(parameters, self.matching_lr, weight_decay=0.0)
        for _ in range(self.matching):
            for part in torch.randperm(int(data.num_nodes or 0)).split(self.batch):
                step(optimiser, parameters, loss(part))
        self.stage = Stage.of(found, self.device)

    def matched(self, data: Data, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The mean next-token loss ``[]`` of texts told in the order of their nodes' tokens, of nodes ``[B]``."""
        around, vectors = self._around(data, random=True), self._vectors_of(data, x)
        nobody = int(data.num_nodes or 0)
        titles = texts(self.lm, node_texts(data), self.title)
        titles = torch.cat([titles, titles.new_full((1, titles.size(1)), NOTHING)]).to(self.device)
        stop, ask, end = (self._words(part) for part in (";", "Which text is of which node?", "Answer:"))
        ended = torch.cat([titles, stop.expand(len(titles), -1)], dim=1)
        ended[-1] = NOTHING

        def loss(nodes: Tensor) -> Tensor:
            ids = around(nodes)
            mixed = ids.gather(1, torch.rand(ids.shape).argsort(1).to(ids.device))
            start = opening(self.lm).to(self.device)
            parts = [start, slots(ids, nobody), ask, ended[mixed].flatten(1), end, ended[ids].flatten(1)]
            numbers, mask = joined(parts)
            answer = joined([torch.where(part == NOTHING, NOTHING, int(part is parts[-1])) for part in parts])[0] == 1
            told = int(answer.sum(1).max())  # at the end of every row
            logits = self.lm.forward(embedded(self.lm, numbers, vectors), mask, keep=told + 1)[0][:, :-1]
            wanted, right = (part[:, -told:].to(logits.device) for part in (answer, numbers))
            return F.cross_entropy(logits[wanted].float(), right[wanted])

        return loss

    def scores(self, data: Data, x: Tensor) -> Scores:
        """Likelihood of the class names after the tokens, the node's text and the question."""
        around, vectors = self._around(data), self._vectors_of(data, x)
        own = texts(self.lm, node_texts(data), self.tokens).to(self.device)
        start, asked = opening(self.lm).to(self.device), self._words(question(self.labels))

        def prompts(nodes: Tensor) -> tuple[Tensor, Tensor]:
            there = slots(around(nodes), int(data.num_nodes or 0))
            numbers, mask = joined([start, there, own[nodes.to(self.device)], asked])
            return embedded(self.lm, numbers, vectors), mask

        return named(self.lm, prompts, self.labels)

    def _ground(self, x: Tensor, adj: Adjacency) -> None:
        parameters = list(self.grounded.parameters())
        optimiser = torch.optim.Adam(parameters, self.grounding_lr)
        for _ in range(self.grounding):
            for part in torch.randperm(adj.num_nodes).split(2 * self.batch):
                step(optimiser, parameters, self.grounded(x, adj, part.to(x.device)))
        self.grounded.eval()

    def _around(self, data: Data, random: bool = False) -> Callable[[Tensor], Tensor]:
        """Nodes ``[B]`` to themselves and those one and two hops away, ``[B, 1 + 2 neighbours]``, N for nobody."""
        adj = adjacency(data, self.device)

        def around(nodes: Tensor) -> Tensor:
            roots = nodes.to(self.device)
            members = rings(adj, roots, 2)
            order = torch.rand(members[0].shape) if random else pagerank(adj, roots, _RESTART, _STEPS)
            drawn = [chosen(each, order.to(each.device), self.neighbours) for each in members]
            return torch.cat([roots[:, None], *drawn], dim=1)

        return around

    def _vectors_of(self, data: Data, x: Tensor) -> Callable[[Tensor], Tensor]:
        with torch.no_grad():
            rows = self.grounded.graph(x, adjacency(data, self.device)).to(self.place)
            rows = F.normalize(rows, dim=1) * self.hidden**0.5  # grounding is of directions alone
        project = self.modules["projector"]
        return lambda node: project(rows[node.to(rows.device)])

    def _words(self, text: str) -> Tensor:
        return words(self.lm, text).to(self.device)
