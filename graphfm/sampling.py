"""How batches are made: walks that cut subgraphs, batches that hold several domains, features and weights put in."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.coordinators import vote_weights
from graphfm.data.subgraphs import Subgraphs, induced_subgraphs, random_walks
from graphfm.joined import JoinedGraph

__all__ = ["draw_samples", "epoch_batches", "fill", "make_batch", "sampling_facts", "step_seed", "weigh"]

_log = logging.getLogger(__name__)
_SMALLEST = 5  # nodes; GCOPE drops smaller subgraphs, in which there is little to tell two views apart by
_ROUNDS = 3  # of drawing more samples from graphs that have too few


def draw_samples(
    joined: JoinedGraph, *, share: float, length: int, hop: float, batch_size: int, seed: int
) -> tuple[Subgraphs, Tensor]:
    """Subgraphs induced by random walks, and the domain ``[S]`` in which each walk began.

    Walks start at a random ``share`` of all nodes. Where one graph is so much larger than the others that they could
    not send one sample into every batch, more walks start in the others until they can, so at most one sample in
    ``batch_size`` is added.

    Args:
        joined: the sources.
        share: of the nodes, in (0, 1].
        length: steps a walk.
        hop: probability that a walk on a coordinator goes on to another coordinator.
        batch_size: samples a batch.
        seed: of the draw.

    Raises:
        ValueError: fewer than two walks that cover 5 nodes.
    """
    generator = torch.Generator().manual_seed(seed)
    domain = joined.domain[: joined.num_ordinary]
    count = max(2, round(share * joined.num_ordinary))
    start = torch.randperm(joined.num_ordinary, generator=generator)[:count]
    walks = _big_walks(joined, start, length, hop, generator)
    for _ in range(_ROUNDS):
        more = _starts_for_minor(domain, domain[walks[:, 0]], batch_size, len(joined.names), generator)
        if not more.numel():
            break
        walks = torch.cat([walks, _big_walks(joined, more, length, hop, generator)])
    if walks.size(0) < 2:
        raise ValueError(
            f"graphs: only {walks.size(0)} of {count} walks cover {_SMALLEST} nodes; at least 2 are needed. "
            "Use more or larger graphs, a larger start_share or longer walks, or join the graphs by coordinators."
        )
    home = domain[walks[:, 0]]
    absent = torch.bincount(home, minlength=len(joined.names)) == 0
    if bool(absent.any()):
        names = [joined.names[i] for i in torch.nonzero(absent).flatten().tolist()]
        _log.warning("no walk that began in %s covers %d nodes: nothing is learned from there", names, _SMALLEST)
    return induced_subgraphs(joined.adj, walks), home


def _big_walks(joined: JoinedGraph, start: Tensor, length: int, hop: float, generator: torch.Generator) -> Tensor:
    hubs = joined.num_ordinary if joined.coordinators is not None else None
    walks = random_walks(joined.adj, start, length, generator, hubs_from=hubs, hop=hop)
    ordered = walks.sort(dim=1).values
    size = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1)
    return walks[size >= _SMALLEST]


def _starts_for_minor(
    domain: Tensor, home: Tensor, batch_size: int, domains: int, generator: torch.Generator
) -> Tensor:
    """Further starts outside the largest domain, as many as the others lack for one sample in every batch."""
    count = torch.bincount(home, minlength=domains)
    largest = int(count.argmax())
    others = home.numel() - int(count[largest])
    # With m samples of the largest domain and o others there are (m + o) / batch_size batches; o is to reach that.
    lack = -(-int(count[largest]) // (batch_size - 1)) - others
    candidates = torch.nonzero(domain != largest).flatten()
    if lack <= 0 or not candidates.numel():
        return candidates[:0]
    return candidates[torch.randint(candidates.numel(), (lack,), generator=generator)]


def step_seed(seed: int, *place: int) -> int:
    """A seed of its own for a place in the run, such as ``(epoch, step, group)``; it depends on nothing else."""
    for number in place:
        seed = (seed * 1_000_003 + number + 1) & 0x7FFF_FFFF_FFFF_FFFF
        seed = (seed ^ (seed >> 29)) * 0xBF58476D1CE4E5B9 & 0x7FFF_FFFF_FFFF_FFFF
    return seed


def epoch_batches(domain: Tensor, batch_size: int, seed: int, epoch: int, least: int = 2) -> list[Tensor]:
    """Batches of one epoch, each domain spread evenly over all of them.

    The samples of a domain, in random order, are laid out at equal distances over the epoch, and so are those of all
    domains but the largest taken together: if they are as many as there are batches, one of them is in each.

    Args:
        domain: ``[S]`` domain of each sample.
        batch_size: samples a batch; the batches are of nearly equal size.
        seed: of the run.
        epoch: which epoch; the order depends on nothing else, so a resumed run draws the same.
        least: samples in the smallest batch.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) & 0x7FFF_FFFF_FFFF_FFFF)
    order = torch.randperm(domain.numel(), generator=generator)
    order = order[torch.argsort(domain[order], stable=True)]
    count = torch.bincount(domain)
    rank = torch.arange(order.numel()) - (torch.cumsum(count, 0) - count)[domain[order]]
    luck = torch.rand(count.numel(), generator=generator, dtype=torch.float64)
    position = (rank + luck[domain[order]]) / count[domain[order]]
    by_position = torch.argsort(position, stable=True)
    order, position = order[by_position], position[by_position]
    # Several small domains must not crowd into the same batches: together they keep equal distances as well.
    minor = torch.nonzero(domain[order] != count.argmax()).flatten()
    position[minor] = (torch.arange(minor.numel()) + luck[0]) / max(minor.numel(), 1)
    order = order[torch.argsort(position, stable=True)]
    parts = max(1, min(-(-order.numel() // batch_size), order.numel() // least))
    return list(order.tensor_split(parts))


def make_batch(joined: JoinedGraph, samples: Subgraphs, index: Tensor, x: Tensor) -> Data:
    """The samples ``index`` ``[B]``, cut from ``joined``, as one batch for an objective; see :func:`fill`."""
    batch = weigh(joined, samples.take(index))
    if x.is_cuda:
        batch = batch.pin_memory().to(x.device, non_blocking=True)
    return fill(joined, batch, x)


def weigh(joined: JoinedGraph, batch: Data) -> Data:
    """Put into a batch what its structure says: which rows are coordinators, and what its edges weigh.

    Args:
        joined: the sources.
        batch: ``node`` ``[N]`` (rows of ``joined``), ``edge`` ``[E]`` (places in ``joined.adj``), ``edge_index``.

    Returns:
        ``batch`` with ``is_coordinator``, ``edge_weight`` (``None`` where all count alike), ``votes`` (whether edges
        into coordinators are weighed by :func:`graphfm.coordinators.vote_weights`), ``hub``, the rows of coordinators,
        and ``domain`` ``[N]``, the source of each row.
    """
    weight, coordinators = joined.adj.weight, joined.coordinators
    batch.is_coordinator = batch.node >= joined.num_ordinary
    batch.edge_weight = None if weight is None else weight.index_select(0, batch.edge)
    batch.hub = torch.nonzero(batch.is_coordinator).flatten()
    batch.domain = joined.domain[batch.node]
    batch.votes = coordinators is not None and coordinators.votes
    if batch.votes and batch.hub.numel():
        batch.edge_weight = vote_weights(batch.edge_index, batch.is_coordinator, batch.edge_weight)
    return batch


def fill(joined: JoinedGraph, batch: Data, x: Tensor) -> Data:
    """Put features into a weighed batch, on the device of ``x``.

    Args:
        joined: the sources, with the coordinators that are being trained.
        batch: from :func:`weigh`.
        x: ``[N + D c, d]`` the features of ``joined``, where the batch is.

    Returns:
        ``Data`` with ``x`` (differentiable in coordinators and tokens) and the fields that the batch had:
        ``edge_index``, ``edge_weight``, ``batch``, ``ptr``, ``num_graphs``, ``is_coordinator``, ``domain``, ``votes``.
    """
    batch = copy.copy(batch)
    batch.x = x.index_select(0, batch.node)
    coordinators = joined.coordinators
    if batch.hub.numel() and coordinators is not None and coordinators.features is not None:
        features = coordinators.features.index_select(0, batch.node[batch.hub] - joined.num_ordinary)
        batch.x = batch.x.index_copy(0, batch.hub, features)
    return batch if joined.tokens is None else joined.tokens.dress(batch)


def sampling_facts(samples: Subgraphs, joined: JoinedGraph, batches: list[Tensor], hops: int) -> dict[str, float]:
    """What the samples hold of several domains: shares in [0, 1], sizes as means a sample.

    ``nodes_reached_across_domains`` is the share of ordinary nodes within ``hops`` steps, inside their sample, of a
    node or coordinator of another domain.
    """
    count, domains = len(samples), len(joined.names)
    owner = torch.repeat_interleave(torch.arange(count), samples.ptr.diff())
    domain = joined.domain[samples.node]
    present = torch.zeros(count, domains, dtype=torch.bool)
    present[owner, domain] = True
    ordinary = samples.node < joined.num_ordinary
    edge_owner = torch.repeat_interleave(torch.arange(count), samples.edge_ptr.diff())
    source, target = samples.edge_index + samples.ptr[edge_owner]
    seen = torch.zeros(samples.node.numel(), domains)
    seen[torch.arange(samples.node.numel()), domain] = 1.0
    for _ in range(hops):
        seen = seen.index_add(0, target, seen[source]).clamp_(max=1.0)
    reached = (seen.sum(1) > 1) & ordinary
    several = torch.tensor([int(present[b].any(0).sum()) > 1 for b in batches]).float().mean()
    return {
        "samples": count,
        "nodes_a_sample": samples.node.numel() / count,
        "edges_a_sample": samples.edge.numel() / count,
        "coordinators_a_sample": float((~ordinary).sum()) / count,
        "batches_of_several_domains": float(several),
        "samples_that_span_domains": float((present.sum(1) > 1).float().mean()),
        "nodes_reached_across_domains": float(reached.sum()) / max(float(ordinary.sum()), 1.0),
    }
