"""LLaGA: a node's neighbourhood as a few projected tokens before a frozen language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.data.neighbours import uniform_subsets
from graphfm.data.splits import Split
from graphfm.graphllm.backends.prompts import question
from graphfm.graphllm.method import Supervised
from graphfm.graphllm.predictors.answers import Prompts, answer_scores, frozen, pieces, readable, train_answers
from graphfm.graphllm.texts import adjacency, encode_together, node_texts
from graphfm.nn import Adjacency
from graphfm.nn.sampled import row_lengths
from graphfm.rng import isolated_rng

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM, TextEncoder

__all__ = ["LLaGA", "LLaGANeighbours", "hops", "neighbour_tree", "tree_encoding"]


class LLaGA(Supervised):
    """LLaGA with the hop-field template (Chen et al., 2402.08170, section 3.2).

    A node is five tokens ``W x_v, W (S x)_v, ..., W (S^4 x)_v`` with ``x`` the frozen text vectors and
    ``S = D^-1/2 (A + I) D^-1/2``, put into a prompt that names the classes. Trained: the projector ``W`` (with a bias),
    by the next-token loss of the class name. Frozen: the encoder and the language model, which never reads the node's
    text but through ``x``. An answer is the class name that is likeliest to follow, so none is unknown.

    Where it differs: the paper averages over neighbours alone, its code weighs by ``D^-1/2 A D^-1/2``; here a node
    counts among its own neighbours, as in the other methods. The paper trains on several tasks and graphs together,
    for one epoch, with an LM of 7 billion parameters; here it is one graph, and as many epochs as few labels need.

    Args:
        encoder: gives ``x``.
        lm: answers; its context must hold the prompt.
        lr: largest learning rate of AdamW.
        epochs: passes over the training nodes.
        batch: prompts a step.
        seed: of the projector, of the order of nodes and of what is drawn for a template.
        device: where graph vectors are computed; the language model stays where it is.
    """

    needs = ("encoder", "lm")
    family = "predictor"
    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (5e-3, 2e-2)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (2e-3, 5e-3, 2e-2)}
    num_hops: ClassVar[int] = 4

    def __init__(
        self,
        encoder: TextEncoder,
        lm: CausalLM,
        *,
        lr: float = 5e-3,
        epochs: int = 20,
        batch: int = 32,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(seed=seed, device=device)
        self.encoder, self.lm = encoder, lm
        self.lr, self.epochs, self.batch = lr, epochs, batch

    def template(self, data: Data) -> Callable[[Tensor], Tensor]:
        """A function from nodes ``[B]`` to what is projected, ``[B, K, F]``."""
        fields = hops(self._vectors(data), adjacency(data, self.device), self.num_hops)
        return lambda nodes: fields[nodes.to(fields.device)]

    def fit(self, data: Data, split: Split) -> LLaGA:
        """Train the projector on the answers of ``split.train``, keep the best on ``split.val``."""
        split.check(int(data.num_nodes or 0))
        self.labels = readable(data.label_text)
        rows = self.template(data)
        with isolated_rng(self.seed, self.device), frozen(self.lm.model):
            width = rows(split.train[:1]).size(-1)
            self.projector = nn.Linear(width, self.lm.dim).to(self.lm.embed(torch.zeros(1, dtype=torch.long)).device)
            parameters = self.train_only({"projector": self.projector})
            modules = {"projector": self.projector}
            train_answers(
                modules, self.lm, self._prompts(rows), self.labels, data.y, split, parameters,
                lr=self.lr, epochs=self.epochs, batch=self.batch,
            )  # fmt: skip
        return self

    @torch.no_grad()
    def predict(self, data: Data) -> Tensor:
        """Probabilities of the class names among themselves, ``[N, C]``."""
        nodes = torch.arange(int(data.num_nodes or 0))
        prompts = self._prompts(self.template(data))
        return answer_scores(self.lm, prompts, self.labels, nodes, 4 * self.batch).softmax(1)

    def _vectors(self, data: Data) -> Tensor:
        return encode_together(self.encoder, node_texts(data))[0].to(self.device)

    def _prompts(self, rows: Callable[[Tensor], Tensor]) -> Prompts:
        before, after = pieces(self.lm, f"{{}} {question(self.labels)}")

        def build(nodes: Tensor) -> tuple[Tensor, Tensor]:
            graph = self.projector(rows(nodes).to(before.device)).to(before.dtype)
            parts = [before.expand(len(nodes), -1, -1), graph, after.expand(len(nodes), -1, -1)]
            whole = torch.cat(parts, dim=1)
            return whole, torch.ones(whole.shape[:2], dtype=torch.long, device=whole.device)

        return build


class LLaGANeighbours(LLaGA):
    """LLaGA with the neighbourhood-detail template (2402.08170, section 3.2).

    A node is the tree of itself, ``fanout`` neighbours, and ``fanout`` neighbours of each, level by level; a place
    without a neighbour holds zeros. Beside ``x`` every place has its row of the eigenvectors of the Laplacian of the
    full tree, ``I - D^-1/2 A D^-1/2``. The published code decomposes a matrix that is not symmetric and loses 11 of 111
    dimensions; the symmetric one is used here. The neighbours are drawn once a graph, without replacement, from
    ``seed``. All else: :class:`LLaGA`.

    Not exported, so in no table: before a tiny Llama, with four neighbours a node, shuffled edges cost it five to ten
    points on the planted graph, depending on the number of epochs, where ten are asked for.

    Args:
        fanout: neighbours a node; 10 in the paper, 111 tokens a prompt.
    """

    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (5e-3, 2e-2)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (2e-3, 5e-3, 2e-2), "fanout": (10,)}

    def __init__(self, encoder: TextEncoder, lm: CausalLM, *, fanout: int = 10, **settings: Any) -> None:
        super().__init__(encoder, lm, **settings)
        if fanout < 1:
            raise ValueError(f"fanout must be at least 1, got {fanout}.")
        self.fanout = fanout

    def template(self, data: Data) -> Callable[[Tensor], Tensor]:
        """A function from nodes ``[B]`` to text vector and place in the tree, ``[B, 1 + f + f^2, F]``."""
        x = self._vectors(data)
        padded = torch.cat([x, x.new_zeros(1, x.size(1))])
        adj = adjacency(data, self.device)
        random = torch.Generator(device=self.device).manual_seed(self.seed)
        tree = neighbour_tree(adj, torch.arange(adj.num_nodes, device=self.device), self.fanout, random)
        places = tree_encoding(self.fanout).to(x)

        def rows(nodes: Tensor) -> Tensor:
            found = padded[tree[nodes.to(tree.device)]]
            return torch.cat([found, places.expand(len(nodes), -1, -1)], dim=-1)

        return rows


def hops(x: Tensor, adj: Adjacency, number: int) -> Tensor:
    """``x, S x, ..., S^number x``, ``[N, number + 1, F]``."""
    fields = [x]
    for _ in range(number):
        fields.append(adj.gcn(x.dtype).matmul(fields[-1]))
    return torch.stack(fields, dim=1)


def neighbour_tree(adj: Adjacency, roots: Tensor, fanout: int, generator: torch.Generator) -> Tensor:
    """Each root, ``fanout`` of its neighbours, ``fanout`` of each of theirs: ``[R, 1 + f + f^2]``, N for nobody."""
    first = _drawn(adj, roots, fanout, generator)
    second = _drawn(adj, first.flatten(), fanout, generator).view(len(roots), -1)
    return torch.cat([roots[:, None], first, second], dim=1)


def tree_encoding(fanout: int) -> Tensor:
    """Eigenvectors of the symmetric normalised Laplacian of the full two-level tree, a row for each place, float64."""
    size = 1 + fanout + fanout**2
    child = torch.arange(1, size)
    edges = torch.zeros(size, size, dtype=torch.float64)
    edges[(child - 1) // fanout, child] = 1
    edges = edges + edges.t()
    scale = edges.sum(1).rsqrt()
    laplacian = torch.eye(size, dtype=torch.float64) - scale[:, None] * edges * scale
    return torch.linalg.eigh(laplacian).eigenvectors


def _drawn(adj: Adjacency, nodes: Tensor, fanout: int, generator: torch.Generator) -> Tensor:
    """``fanout`` distinct neighbours of each of ``nodes`` ``[M]``, all where there are fewer: ``[M, fanout]``."""
    nobody = adj.num_nodes
    rowptr = torch.cat([adj.rowptr, adj.rowptr[-1:]])  # nobody has no neighbours
    start, degree = row_lengths(rowptr, nodes)
    place = torch.arange(fanout, device=nodes.device)[:, None].expand(-1, len(nodes)).contiguous()
    many = torch.nonzero(degree > fanout).flatten()
    place[:, many] = uniform_subsets(degree[many], fanout, generator)
    there = place < degree
    edge = torch.where(there, start + place, torch.zeros_like(place))
    found = torch.where(there, adj.col[edge].long() if adj.num_edges else edge, nobody)
    return found.t().contiguous()
