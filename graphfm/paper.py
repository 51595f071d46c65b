"""GCOPE's published few-shot protocol, its leak of test labels included. For comparison only.

A node is classified from its ego graph: two hops, grown up to five where that holds fewer than 10 nodes, cut at random
to 30. Where it is still too small it is filled up with nodes of the SAME TRUE LABEL, for test nodes too: the label that
is to be predicted decides what the network sees. Further: the shots are the first nodes of each class by index
(:func:`graphfm.data.splits.gcope_split`), and repeats go on training the weights of the repeat before
(:func:`graphfm.evaluate` does that under ``protocol="paper"``).
"""

from __future__ import annotations

import copy
import dataclasses
import os
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm.data.checks import check_labels
from graphfm.data.splits import Split
from graphfm.data.subgraphs import ego_nets, induced_subgraphs
from graphfm.device import as_device
from graphfm.fitted import Fitted
from graphfm.heads import LinearHead, PrototypeHead, fit_logistic
from graphfm.nn import Adjacency, sum_pool
from graphfm.pretrained import Pretrained
from graphfm.readout import Readout
from graphfm.rng import isolated_rng

__all__ = ["LeakyFitted", "adapt_as_published", "fill_by_label"]

_AT_LEAST, _AT_MOST = 10, 30
_CHUNK = 2048


def fill_by_label(members: Tensor, y: Tensor, centres: Tensor, at_least: int, generator: torch.Generator) -> Tensor:
    """Fill small ego graphs with random nodes of their centre's true label: the published leak.

    Args:
        members: ``[S, L]`` nodes, -1 for none.
        y: ``[N]`` true labels.
        centres: ``[S]`` nodes whose labels are, elsewhere, to be predicted.
        at_least: nodes that every ego graph shall hold (nodes drawn twice count once, so some stay below).
        generator: of the draw.
    """
    count = torch.bincount(y.clamp(min=0))
    order = torch.argsort(y.clamp(min=0), stable=True)
    first = torch.cumsum(count, 0) - count
    label = y[centres].clamp(min=0).unsqueeze(1)
    luck = torch.rand(centres.numel(), at_least, generator=generator, dtype=torch.float64)
    drawn = order[first[label] + (luck * count[label]).long()]
    slot = torch.arange(at_least)
    empty = slot >= (members >= 0).sum(1, keepdim=True)
    filled = members.clone()
    filled[:, :at_least] = torch.where(empty, drawn, members[:, :at_least])
    return filled


@dataclasses.dataclass
class LeakyFitted(Fitted):
    """A :class:`~graphfm.Fitted` that looks at ``data.y`` when it predicts, as the published protocol does."""

    seed: int = 0

    def embed(self, data: Data) -> Tensor:
        """Sum-pooled ego-graph embeddings ``[N, D]``; reads the label of every node."""
        target = self.inputs(data)
        x, adj = target.x, target.adj
        y = check_labels(data.y)
        with torch.no_grad():
            parts = [
                _pooled(self.backbone.eval(), x, adj, y, chunk, self.seed)
                for chunk in torch.arange(x.size(0)).split(_CHUNK)
            ]
        return torch.cat(parts)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Refused: what leaks is for measuring, not for keeping."""
        raise ValueError(f"a model of protocol='paper' is not saved (to {folder}): its predictions read test labels.")


def adapt_as_published(
    pretrained: Pretrained,
    data: Data,
    split: Split,
    *,
    method: str,
    seed: int,
    device: torch.device | str | None,
    epochs: int,
    lr: float,
) -> LeakyFitted:
    """:func:`graphfm.adapt` under ``protocol="paper"``; same arguments.

    Ego graphs are extracted on the CPU. The published grid over five learning rates, of which only test figures are
    written, is left to the caller (``lr``).
    """
    where = as_device(device)
    y = check_labels(data.y)
    classes = int(y.max()) + 1
    with isolated_rng(seed, where):
        backbone = copy.deepcopy(pretrained.backbone).to(where)
        width = cast(int, backbone.out_channels)
        head: LinearHead | PrototypeHead = (
            PrototypeHead(width, classes) if method == "prototype" else LinearHead(width, classes)
        )
        card = {"method": method, "protocol": "paper", "seed": seed}
        projection = pretrained.unifier.projection(data)
        # The published readout is the sum over the ego graph; nothing comes between it and the head.
        fitted = LeakyFitted(backbone, projection, Readout(width, 0), head.to(where), classes, card, seed=seed)
        y_train = y[split.train].to(where)
        if method == "finetune":
            _finetune(fitted, data, split.train, y, epochs, lr)
        else:
            h = fitted.embed(data)
            z = h[split.train.to(where)]
            if isinstance(head, PrototypeHead):
                head.fit(z, y_train)
            else:
                fit_logistic(head, z, y_train)
    return fitted


def _finetune(fitted: LeakyFitted, data: Data, train: Tensor, y: Tensor, epochs: int, lr: float) -> None:
    inputs = fitted.inputs(data)
    modules = nn.ModuleList([fitted.backbone, fitted.head])
    optimizer = torch.optim.Adam(modules.parameters(), lr=lr, weight_decay=1e-5)
    target = y[train].to(inputs.x.device)
    fitted.head.seen.copy_(torch.bincount(target, minlength=fitted.num_classes) > 0)
    modules.train()
    for _ in range(epochs):
        optimizer.zero_grad(set_to_none=True)
        scores = fitted.head(_pooled(fitted.backbone, inputs.x, inputs.adj, y, train, fitted.seed))
        F.cross_entropy(scores, target).backward()
        optimizer.step()
    modules.eval()


def _pooled(backbone: nn.Module, x: Tensor, adj: Adjacency, y: Tensor, centres: Tensor, seed: int) -> Tensor:
    """Sum-pooled embeddings of the label-filled ego graphs of ``centres``; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    host = adj.to("cpu") if adj.device.type != "cpu" else adj
    members = ego_nets(host, centres, at_least=_AT_LEAST, at_most=_AT_MOST, generator=generator)
    members = fill_by_label(members, y, centres, _AT_LEAST, generator)
    batch = induced_subgraphs(host, members).take(torch.arange(centres.numel())).to(x.device)
    inside = Adjacency.from_edges(batch.edge_index, batch.num_nodes)
    return sum_pool(backbone(x[batch.node], inside), batch.ptr, batch.batch)
