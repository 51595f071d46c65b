"""The neighbourhoods that subgraph prompts are built on, and OFA's prompts: all of a batch at once."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from graphfm.data.subgraphs import Subgraphs, ego_nets, induced_subgraphs
from graphfm.nn import Adjacency

__all__ = ["RELATIONS", "Egos", "Prompts", "egos", "prompts"]

RELATIONS = ("edge", "node to prompt", "prompt to node", "prompt to class", "class to prompt")


@dataclasses.dataclass(frozen=True)
class Egos:
    """The neighbourhood of each centre as a graph of its own.

    Attributes:
        centre: ``[S]`` nodes of the big graph.
        graphs: S subgraphs, on the CPU.
    """

    centre: Tensor
    graphs: Subgraphs


def egos(adj: Adjacency, centre: Tensor, *, hops: int, at_most: int, generator: torch.Generator | None = None) -> Egos:
    """What lies within ``hops`` of each ``centre`` ``[S]``; where that is more, ``at_most`` nodes drawn at random."""
    members = ego_nets(adj, centre, hops=hops, max_hops=hops, at_least=1, at_most=at_most, generator=generator)
    return Egos(centre, induced_subgraphs(adj, members))


@dataclasses.dataclass(frozen=True)
class Prompts:
    """A batch of OFA's prompt graphs, side by side.

    Attributes:
        row: ``[T]`` for each node, its row in a table of vectors: those of the big graph's N nodes, then the prompt's,
            then those of the C classes.
        relations: one adjacency for each of :data:`RELATIONS`.
        answer: ``[B, C]`` the nodes that stand for the classes.
    """

    row: Tensor
    relations: tuple[Adjacency, ...]
    answer: Tensor

    def to(self, device: torch.device) -> Prompts:
        """On another device."""
        return Prompts(self.row.to(device), tuple(adj.to(device) for adj in self.relations), self.answer.to(device))


def prompts(found: Egos, chosen: Tensor, num_nodes: int, num_classes: int) -> Prompts:
    """Neighbourhoods, each with a prompt node and C class nodes (One for All, 2310.00149, section 3.2).

    Edges lead from the centre to the prompt node, from there to every class node, and back.

    Args:
        found: neighbourhoods.
        chosen: ``[B]`` which of them.
        num_nodes: N.
        num_classes: C.
    """
    batch = found.graphs.take(chosen)
    size, count = batch.node.numel(), chosen.numel()
    centre = torch.nonzero(batch.node == found.centre[chosen][batch.batch]).flatten()
    prompt = size + torch.arange(count)
    answer = size + count + torch.arange(count * num_classes).view(count, num_classes)
    asked = torch.stack([centre, prompt])
    named = torch.stack([prompt.repeat_interleave(num_classes), answer.flatten()])
    total = size + count * (1 + num_classes)
    edges = (batch.edge_index, asked, asked.flip(0), named, named.flip(0))
    row = torch.cat(
        [batch.node, torch.full((count,), num_nodes), num_nodes + 1 + torch.arange(num_classes).repeat(count)]
    )
    return Prompts(row, tuple(Adjacency.from_edges(edge, total) for edge in edges), answer)
