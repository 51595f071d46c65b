"""Node tasks through ego graphs: each node is read from the graph around it, cut out and run by itself."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.data.subgraphs import ego_nets, induced_subgraphs
from graphfm.inputs import Inputs
from graphfm.nn import Adjacency, mean_pool
from graphfm.objectives.pairs import mix, uniform

__all__ = ["EgoReadout", "Egos"]

POOLS = ("mean", "root")
_PAIRS = 2_000_000  # steps from a centre that are followed at once: bounds memory at some 100 MB
_ROWS = 100_000  # in one pass of the network, at most, unless one ego graph has more
_CENTRED_ON = 2048  # nodes whose ego graphs give the centre


@dataclasses.dataclass(frozen=True)
class Egos:
    """What an ego graph is: ``adapt(..., ego=Egos())``.

    The nodes within ``hops`` steps; of more than ``at_most`` the centre and a random choice, which for a centre is the
    same wherever it is asked for. Nothing but structure is looked at, and a small ego graph stays small: an isolated
    node is one of a single node.

    Args:
        hops: steps.
        at_most: nodes.
        pool: ``"mean"`` over the nodes, or the ``"root"`` alone.

    Raises:
        ValueError: one out of its range.
    """

    hops: int = 2
    at_most: int = 30
    pool: str = "mean"

    def __post_init__(self) -> None:
        for name, value, least in (("hops", self.hops, 0), ("at_most", self.at_most, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        if self.pool not in POOLS:
            raise ValueError(f"pool must be one of {POOLS}, got {self.pool!r}.")


class EgoReadout(nn.Module):
    """``[pool(h), pool(x)]`` over each node's ego graph, each part centred, its rows of unit length.

    Degrees, and so the normalisation of message passing, are the ego graph's own.

    Args:
        channels: embedding width D.
        hops: see :class:`Egos`.
        at_most: see there.
        pool: see there.
        skip_channels: width d of the features beside the embedding; 0 for none.
        plain: leave the parts as they are, neither centred nor of unit length.
        seed: of the choice where an ego graph is cut.
    """

    centre: Tensor

    def __init__(
        self,
        channels: int,
        hops: int = 2,
        at_most: int = 30,
        pool: str = "mean",
        skip_channels: int = 0,
        plain: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        Egos(hops, at_most, pool)  # complains
        self.channels, self.hops, self.at_most, self.pool = channels, hops, at_most, pool
        self.skip_channels, self.plain, self.seed = skip_channels, plain, seed
        self.out_channels = channels + skip_channels
        self.register_buffer("centre", torch.zeros(self.out_channels))

    def bare(self, channels: int) -> EgoReadout:
        """One of the same ego graphs that leaves embeddings as they are, for a head that compares them."""
        return EgoReadout(channels, self.hops, self.at_most, self.pool, plain=True, seed=self.seed)

    @torch.no_grad()
    def begin(self, network: nn.Module, inputs: Inputs, nodes: Tensor) -> Tensor:
        """Take the centre of each part from at most 2,048 nodes, no labels; then what the head sees of ``nodes``."""
        if not self.plain:
            chosen = torch.arange(inputs.x.size(0))
            if chosen.numel() > _CENTRED_ON:
                order = torch.randperm(chosen.numel(), generator=torch.Generator().manual_seed(self.seed))
                chosen = order[:_CENTRED_ON]
            rows = [torch.cat(parts, dim=1) for parts in self._in_parts(network, inputs, chosen)]
            self.centre.copy_(torch.cat(rows).mean(0))
        return torch.cat([self._normalised(parts) for parts in self._in_parts(network, inputs, nodes.cpu())])

    @torch.no_grad()
    def everywhere(self, network: nn.Module, inputs: Inputs) -> Tensor:
        """What the head sees of every node, ``[N, D + d]``, some ego graphs at a time."""
        every = torch.arange(inputs.x.size(0))
        return torch.cat([self._normalised(parts) for parts in self._in_parts(network, inputs, every)])

    def of(self, nodes: Tensor, inputs: Inputs, reach: int | None) -> tuple[Inputs, Callable[[Tensor], Tensor]]:
        """The ego graphs of ``nodes`` ``[T]`` side by side, and a function from their embeddings to what the head sees.

        ``reach`` does not matter here: what is farther away is not in them.
        """
        host = inputs.adj.to("cpu")
        part, data = self._cut(inputs, host, bounded(host, nodes.cpu(), self.hops, self.at_most))
        return part, lambda h: self._normalised(self._parts(h, part.x, data))

    def _in_parts(self, network: nn.Module, inputs: Inputs, nodes: Tensor) -> Iterator[list[Tensor]]:
        host = inputs.adj.to("cpu")
        for chunk in bounded(host, nodes, self.hops, self.at_most):
            part, data = self._cut(inputs, host, [chunk])
            yield self._parts(part.embed(network), part.x, data)

    def _cut(self, inputs: Inputs, host: Adjacency, chunks: list[Tensor]) -> tuple[Inputs, Data]:
        """The ego graphs of all chunks side by side, found chunk by chunk."""
        most = min(self.at_most, host.num_nodes)
        how: Any = {"hops": self.hops, "max_hops": self.hops, "at_least": 0, "at_most": most, "luck": self._luck}
        centres = torch.cat([torch.empty(0, dtype=torch.long), *chunks])
        members = torch.cat([torch.empty(0, most, dtype=torch.long), *(ego_nets(host, c, **how) for c in chunks)])
        data = induced_subgraphs(host, members).take(torch.arange(centres.numel()))
        data.root = torch.nonzero(data.node == centres[data.batch]).flatten()
        weight = None if host.weight is None else host.weight[data.edge]
        inside = Adjacency.from_edges(data.edge_index, data.num_nodes, weight, is_sorted=True, batch=data.batch)
        data = data.to(str(inputs.x.device))
        return Inputs(inputs.x[data.node], inside.to(inputs.x.device), prompts=inputs.prompts), data

    def _luck(self, centre: Tensor, node: Tensor) -> Tensor:
        """Of a node in the ego graph of a centre; which others are asked for does not matter."""
        return uniform(mix(mix(mix(centre + 1) + self.seed) + node))

    def _parts(self, h: Tensor, x: Tensor, data: Data) -> list[Tensor]:
        levels = (h, x) if self.skip_channels else (h,)
        if self.pool == "root":
            return [level[data.root] for level in levels]
        return [mean_pool(level, data.ptr, data.batch) for level in levels]

    def _normalised(self, parts: list[Tensor]) -> Tensor:
        if self.plain:
            return torch.cat(parts, dim=1)
        centres = self.centre.split([p.size(1) for p in parts])
        return torch.cat([F.normalize(p - c, dim=1) for p, c in zip(parts, centres, strict=True)], dim=1)


def bounded(adj: Adjacency, nodes: Tensor, hops: int, at_most: int) -> list[Tensor]:
    """``nodes`` in parts whose ego graphs take bounded memory, to find and to run; a hub may be one by itself."""
    size = max(1, _ROWS // max(1, min(at_most, adj.num_nodes)))
    plain, walks = adj.with_weight(None), torch.ones(adj.num_nodes, 1, dtype=torch.float64)
    cost = torch.ones_like(walks)
    for _ in range(hops):
        walks = plain.matmul(walks)
        cost += walks
    place = torch.cumsum(cost[nodes, 0], 0)
    edges = torch.nonzero(torch.diff(torch.div(place, _PAIRS, rounding_mode="floor"))).flatten() + 1
    ends = [0, *edges.tolist(), nodes.numel()]
    return [part for low, high in itertools.pairwise(ends) if low < high for part in nodes[low:high].split(size)]
