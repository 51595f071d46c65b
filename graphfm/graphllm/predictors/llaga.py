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
from graphfm.graphllm.predictors.answers import Prompts, Scores, named, pieces
from graphfm.graphllm.predictors.predictor import Predictor
from graphfm.graphllm.texts import adjacency
from graphfm.nn import Adjacency
from graphfm.nn.sampled import row_lengths

if TYPE_CHECKING:
    from graphfm.graphllm.backends.base import CausalLM, TextEncoder

__all__ = ["LLaGA", "LLaGANeighbours", "Template", "hops", "neighbour_tree", "tree_encoding"]

Template = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Nodes ``[B]`` to what is projected to K tokens, ``[B, K, F]``, and which of them are more than zeros, ``[B, K]``."""


class LLaGA(Predictor):
    """LLaGA with the hop-field template (Chen et al., 2402.08170, section 3.2).

    A node is five tokens ``W x_v, W (S x)_v, ..., W (S^4 x)_v`` with ``x`` the frozen text vectors and
    ``S = D^-1/2 (A + I) D^-1/2``, put into a prompt that names the classes. Trained: the projector ``W`` (with a bias),
    by the next-token loss of the class name. Frozen: the encoder and the language model, which never reads the node's
    text but through ``x``. An answer is the class name that is likeliest to follow, so none is unknown.

    Where it differs: the paper averages over neighbours alone, its code weighs by ``D^-1/2 A D^-1/2``; here a node
    counts among its own neighbours, as in the other methods. The paper trains on several tasks and graphs together,
    for one epoch, with an LM of 7 billion parameters; here it is one graph, and as many epochs as few labels need.
    Published settings: the learning rate of the authors' ``scripts/train.sh``.

    Arguments are those of :class:`~graphfm.graphllm.predictors.predictor.Predictor`.
    """

    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (5e-3, 2e-2)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (2e-3,)}
    num_hops: ClassVar[int] = 4

    def template(self, data: Data, x: Tensor) -> Template:
        """What is projected of each of ``[B]`` nodes."""
        fields = hops(x, adjacency(data, self.device), self.num_hops)
        everyone = torch.ones(fields.shape[:2], dtype=torch.bool, device=fields.device)
        return lambda nodes: (fields[nodes.to(fields.device)], everyone[nodes.to(fields.device)])

    def width(self, x: Tensor) -> int:
        """F, of what is projected."""
        return x.size(1)

    def make(self, data: Data, x: Tensor, split: Split) -> dict[str, nn.Module]:
        """The projector."""
        return {"projector": nn.Linear(self.width(x), self.lm.dim)}

    def scores(self, data: Data, x: Tensor) -> Scores:
        """Likelihood of the class names after the projected template and the question."""
        return named(self.lm, self._prompts(self.template(data, x)), self.labels)

    def _prompts(self, rows: Template) -> Prompts:
        before, after = pieces(self.lm, f"{{}} {question(self.labels)}")
        project = self.modules["projector"]

        def build(nodes: Tensor) -> tuple[Tensor, Tensor]:
            fields, there = (part.to(before.device) for part in rows(nodes))
            graph = project(fields).to(before.dtype) * there.unsqueeze(-1)
            parts = [before.expand(len(nodes), -1, -1), graph, after.expand(len(nodes), -1, -1)]
            whole = torch.cat(parts, dim=1)
            return whole, torch.ones(whole.shape[:2], dtype=torch.long, device=whole.device)

        return build


class LLaGANeighbours(LLaGA):
    """LLaGA with the neighbourhood-detail template (2402.08170, section 3.2).

    A node is the tree of itself, ``fanout`` neighbours, and ``fanout`` neighbours of each, level by level; a place
    without a neighbour is a token of zeros. Beside ``x`` every place has its row of the eigenvectors of the Laplacian
    of the full tree, ``I - D^-1/2 A D^-1/2``. The published code decomposes a matrix that is not symmetric and loses 11
    of 111 dimensions; the symmetric one is used here. The neighbours are drawn once a graph, without replacement, from
    ``seed``. What is trained and what is frozen, and all else: :class:`LLaGA`. Published settings: learning rate and
    fan-out of the authors' ``scripts/train.sh``.

    Args:
        fanout: neighbours a node; 10 in the paper, 111 tokens a prompt.
    """

    grid: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (5e-3, 2e-2)}
    published: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (2e-3,), "fanout": (10,)}

    def __init__(self, encoder: TextEncoder, lm: CausalLM, *, fanout: int = 10, **settings: Any) -> None:
        super().__init__(encoder, lm, **settings)
        if fanout < 1:
            raise ValueError(f"fanout must be at least 1, got {fanout}.")
        self.fanout = fanout

    def width(self, x: Tensor) -> int:
        """Of a text vector and a place in the tree."""
        return x.size(1) + 1 + self.fanout + self.fanout**2

    def template(self, data: Data, x: Tensor) -> Template:
        """Text vector and place in the tree, ``[B, 1 + f + f^2, F]``, and which places hold a node."""
        padded = torch.cat([x, x.new_zeros(1, x.size(1))])
        adj = adjacency(data, self.device)
        random = torch.Generator(device=self.device).manual_seed(self.seed)
        tree = neighbour_tree(adj, torch.arange(adj.num_nodes, device=self.device), self.fanout, random)
        places = tree_encoding(self.fanout).to(x)

        def rows(nodes: Tensor) -> tuple[Tensor, Tensor]:
            found = tree[nodes.to(tree.device)]
            placed = torch.cat([padded[found], places.expand(len(nodes), -1, -1)], dim=-1)
            return placed, found < adj.num_nodes

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
