"""Edges that are hidden, pairs that are none, and telling the two apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.nn import Adjacency
from graphfm.objectives.fields import Kin, chosen, ordinary, reweighted
from graphfm.objectives.pairs import pair_key, uniform

__all__ = ["LinkDecoder", "hide_edges", "non_edges"]

_TRIES = 10  # a pair that met an edge in every draw is left out


def hide_edges(batch: Data, adj: Adjacency, rate: float) -> tuple[Adjacency, Tensor]:
    """Take a random share of the linked pairs out of a graph, both directions and all copies of each.

    Loops, edges of coordinators and edges of weight 0 are no candidates. At least one pair is hidden, if there is any.

    Args:
        batch: which rows are coordinators.
        adj: all of its edges.
        rate: share of the pairs.

    Returns:
        What is left (hidden edges have weight 0), and the hidden pairs ``[2, P]``, each once.
    """
    source, target = adj.col, adj.row
    keep = ordinary(batch)
    candidate = keep[source] & keep[target] & (source != target)
    if adj.weight is not None:
        candidate = candidate & (adj.weight != 0)
    hidden = chosen(uniform(pair_key(adj.edge_index, adj.num_nodes)), candidate, rate)
    taken = torch.nonzero(hidden).flatten()
    source, target = source[taken], target[taken]
    low, high = torch.minimum(source, target), torch.maximum(source, target)
    key = torch.unique(low * adj.num_nodes + high)
    pairs = torch.stack([torch.div(key, adj.num_nodes, rounding_mode="floor"), key % adj.num_nodes])
    return reweighted(adj, (~hidden).to(batch.x.dtype)), pairs


def non_edges(batch: Data, adj: Adjacency, pairs: Tensor) -> Tensor:
    """For each of ``pairs`` ``[2, P]`` a random pair of kin nodes with no edge between them in either direction.

    Kin is of the same graph, domain and ``node_type``, see :class:`graphfm.objectives.fields.Kin`. A pair for which
    none was found (in a complete graph there is none) is left out, so the result ``[2, Q]`` may be shorter.
    """
    kin, nodes = Kin(batch), adj.num_nodes
    keys = adj.row * nodes + adj.col  # sorted
    drawn, wrong = pairs.clone(), torch.arange(pairs.size(1), device=pairs.device)
    for _ in range(_TRIES):
        source, target = kin.draw(pairs[0, wrong]), kin.draw(pairs[1, wrong])
        drawn[0, wrong], drawn[1, wrong] = source, target
        met = (source == target) | _among(target * nodes + source, keys) | _among(source * nodes + target, keys)
        wrong = wrong[met]
        if not wrong.numel():
            return drawn
    good = torch.ones(pairs.size(1), dtype=torch.bool, device=pairs.device)
    good[wrong] = False
    return drawn[:, good]


def _among(query: Tensor, keys: Tensor) -> Tensor:
    if not keys.numel():
        return torch.zeros_like(query, dtype=torch.bool)
    place = torch.searchsorted(keys, query).clamp_(max=keys.numel() - 1)
    return keys[place] == query


class LinkDecoder(nn.Module):
    """``Linear-ReLU-Linear`` on the product of two embeddings: the logit of an edge, alike in both directions.

    Args:
        channels: embedding width D.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 1))

    def forward(self, h: Tensor, pairs: Tensor) -> Tensor:
        """``h`` ``[N, D]``, ``pairs`` ``[2, P]``, to logits ``[P]``."""
        return self.layers(h.index_select(0, pairs[0]) * h.index_select(0, pairs[1])).squeeze(1)

    def loss(self, h: Tensor, edges: Tensor, others: Tensor) -> Tensor:
        """Binary cross-entropy, edges ``[2, P]`` and non-edges ``[2, Q]`` weighing half each; Q may be 0.

        Without edges it is 0, with a gradient of 0: a batch may hold none by chance.
        """
        if not edges.size(1):
            return self(h, edges).sum()
        error = F.softplus(-self(h, edges)).mean()
        return (error + F.softplus(self(h, others)).mean()) / 2 if others.size(1) else error / 2
