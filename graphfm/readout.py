"""What a head sees of a node: its embedding and the averages around it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphfm.inputs import Inputs
from graphfm.nn import Adjacency
from graphfm.nn.spmm import csr_product

__all__ = ["Readout"]


class Readout(nn.Module):
    """``[h, A h, ..., A^k h, x, A x, ..., A^k x]`` with ``A = D^-1 A``, each part centred, its rows of unit length.

    Pretraining compares pooled subgraphs, so what it learned shows in averages over a neighbourhood, not in one row;
    with few labels the averages also carry most of the signal on homophilous graphs, and the node's own row on
    heterophilous ones. A head on all of them need not know which kind of graph it is on. The training-free rule
    :class:`graphfm.baselines.MultiHopCentroid` does the same with the features themselves; the unified features stand
    beside the embedding so that nothing a centroid could have seen is lost in the backbone.

    Args:
        channels: embedding width D.
        hops: k; 0 for the rows alone.
        skip_channels: width d of the features beside the embedding; 0 for none.
        plain: leave the parts as they are, neither centred nor of unit length.
    """

    centre: Tensor

    def __init__(self, channels: int, hops: int = 2, skip_channels: int = 0, plain: bool = False) -> None:
        super().__init__()
        if hops < 0:
            raise ValueError(f"hops must not be negative, got {hops}.")
        self.channels, self.hops, self.skip_channels = channels, hops, skip_channels
        self.plain = plain
        self.out_channels = (channels + skip_channels) * (hops + 1)
        self.register_buffer("centre", torch.zeros(self.out_channels))

    @torch.no_grad()
    def calibrate(self, h: Tensor, x: Tensor, adj: Adjacency) -> None:
        """Take the centre of each part from all nodes, ``h`` ``[N, D]`` and ``x`` ``[N, d]``; no labels are needed."""
        if self.plain:
            return
        self.centre.copy_(torch.cat([part.mean(0) for part in self._parts(h, x, adj)]))

    @torch.no_grad()
    def begin(self, network: nn.Module, inputs: Inputs, nodes: Tensor) -> Tensor:
        """:meth:`calibrate` by what ``network`` makes of a graph; then the output at ``nodes`` ``[T]``."""
        h = inputs.embed(network)
        self.calibrate(h, inputs.x, inputs.adj)
        return self(h, inputs.x, inputs.adj)[nodes]

    def everywhere(self, network: nn.Module, inputs: Inputs) -> Tensor:
        """The output at every node of a graph, ``[N, (k + 1) (D + d)]``."""
        return self(inputs.embed(network), inputs.x, inputs.adj)

    def of(self, nodes: Tensor, inputs: Inputs, reach: int | None) -> tuple[Inputs, Callable[[Tensor], Tensor]]:
        """The part of a graph that the output at ``nodes`` ``[T]`` depends on, and that from the part's embeddings.

        ``reach`` tells how many steps of the graph the network looks at; ``None`` where that is not known.
        """
        part, rows = inputs.near(nodes, None if reach is None else reach + self.hops)
        return part, self.at(rows, part.x, part.adj)

    def bare(self, channels: int) -> Readout:
        """One that leaves embeddings as they are, for a head that compares them."""
        return Readout(channels, hops=0, plain=True)

    def forward(self, h: Tensor, x: Tensor, adj: Adjacency) -> Tensor:
        """Embeddings ``h`` ``[N, D]`` and features ``x`` ``[N, d]`` to ``[N, (k + 1) (D + d)]``."""
        return self._normalised(self._parts(h, x, adj))

    def at(self, rows: Tensor, x: Tensor, adj: Adjacency) -> Callable[[Tensor], Tensor]:
        """A function from ``h`` ``[N, D]`` to the output at ``rows`` ``[T]`` alone, for many calls on few rows.

        The rows of ``A^0 ... A^k`` are kept as one dense ``[(k + 1) T, N]`` matrix; what comes of ``x`` is made once.
        """
        reach = self._rows_of_powers(rows, adj, x.dtype)
        fixed = [power @ x for power in reach] if self.skip_channels else []
        together = torch.cat(reach)

        def read(h: Tensor) -> Tensor:
            return self._normalised([*(together @ h).split(rows.numel()), *fixed])

        return read

    def _normalised(self, parts: list[Tensor]) -> Tensor:
        if self.plain:
            return torch.cat(parts, dim=1)
        centres = self.centre.split([p.size(1) for p in parts])
        return torch.cat([F.normalize(p - c, dim=1) for p, c in zip(parts, centres, strict=True)], dim=1)

    def _parts(self, h: Tensor, x: Tensor, adj: Adjacency) -> list[Tensor]:
        average = adj.mean(h.dtype)
        parts = []
        for level in (h, x) if self.skip_channels else (h,):
            parts.append(level)
            for _ in range(self.hops):
                parts.append(average.matmul(parts[-1]))
        return parts

    def _rows_of_powers(self, rows: Tensor, adj: Adjacency, dtype: torch.dtype) -> list[Tensor]:
        average = adj.mean(dtype)
        rowptr, col, order = average.transpose
        weight = average.values(dtype)[order]
        columns = torch.zeros(adj.num_nodes, rows.numel(), dtype=dtype, device=rows.device)
        columns[rows, torch.arange(rows.numel(), device=rows.device)] = 1.0
        powers = [columns]
        for _ in range(self.hops):
            powers.append(csr_product(rowptr, col, weight, powers[-1]))
        return [power.t().contiguous() for power in powers]
