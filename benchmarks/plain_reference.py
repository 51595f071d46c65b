"""GCOPE's steps the plain way, to be timed beside ours: one graph at a time, PyG's own layers and utilities.

No step here is slowed down on purpose; each is what one writes first: a Python walk over neighbour lists, one
``subgraph`` call a sample, one ``Data`` a view, ``Batch.from_data_list`` and ``FAConv``.
"""

from __future__ import annotations

import copy
import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.nn import FAConv, global_add_pool
from torch_geometric.utils import k_hop_subgraph, subgraph


def reduce_features(x: Tensor, width: int) -> Tensor:
    """``x`` on its leading singular directions by a dense SVD."""
    u, s, _ = torch.linalg.svd(x.float(), full_matrices=False)
    return u[:, :width] * s[:width]


def neighbour_lists(edge_index: Tensor, nodes: int) -> list[list[int]]:
    """The neighbours of every node."""
    near: list[list[int]] = [[] for _ in range(nodes)]
    for a, b in edge_index.t().tolist():
        near[a].append(b)
    return near


def cut_samples(
    edge_index: Tensor, near: list[list[int]], starts: list[int], length: int, hop: float, first_hub: int
) -> list[tuple[Tensor, Tensor]]:
    """One walk and one induced subgraph a start; ``(nodes, edge_index)`` of those with 5 nodes and more."""
    found, nodes = [], len(near)
    for at in starts:
        seen = {at}
        for _ in range(length):
            hubs = [n for n in near[at] if n >= first_hub] if at >= first_hub else []
            choices = hubs if hubs and random.random() < hop else near[at]
            at = random.choice(choices) if choices else at
            seen.add(at)
        if len(seen) >= 5:
            chosen = torch.tensor(sorted(seen))
            found.append((chosen, subgraph(chosen, edge_index, relabel_nodes=True, num_nodes=nodes)[0]))
    return found


class PlainFAGCN(nn.Module):
    """The FAGCN of GCOPE from PyG's layers."""

    def __init__(self, inside: int, hidden: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inside, hidden), nn.Linear(hidden, hidden)
        self.convs = nn.ModuleList(FAConv(hidden, eps=0.1, dropout=0.2) for _ in range(2))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """``[N, F] -> [N, D]``."""
        h = first = F.dropout(self.first(x).relu(), 0.2, self.training)
        for conv in self.convs:
            h = conv(h, first, edge_index)
        return self.last(h)


class PlainPretraining(nn.Module):
    """Backbone, decoder, projection head and coordinators, trained on a list of small graphs."""

    def __init__(self, width: int, hidden: int, coordinators: int) -> None:
        super().__init__()
        self.backbone = PlainFAGCN(width, hidden)
        self.decoder = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.coordinators = nn.Parameter(torch.randn(coordinators, width) / width**0.5)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=1e-5)

    def graph(self, x: Tensor, first_hub: int, nodes: Tensor, edge_index: Tensor) -> Data:
        """A sample with its features, the coordinators' taken from their parameter."""
        rows = [self.coordinators[n - first_hub] if n >= first_hub else x[n] for n in nodes.tolist()]
        return Data(x=torch.stack(rows), edge_index=edge_index)

    def graphcl_step(self, graphs: list[Data]) -> float:
        """Two augmented views a graph, NT-Xent on the pooled embeddings, feature reconstruction."""
        views = [Batch.from_data_list([_augment(g) for g in graphs]) for _ in range(2)]
        hidden = [self.backbone(v.x, v.edge_index) for v in views]
        a, b = (global_add_pool(h, v.batch) for h, v in zip(hidden, views, strict=True))
        loss = _nt_xent(a, b)
        for h, v in zip(hidden, views, strict=True):
            loss = loss + 0.2 * F.mse_loss(self.decoder(h), v.x.detach())
        return self._step(loss)

    def simgrace_step(self, graphs: list[Data]) -> float:
        """The second view from a copy of the encoder with noise on its weights."""
        batch = Batch.from_data_list(graphs)
        other = copy.deepcopy(self.backbone)
        for weight in other.parameters():
            if weight.numel() > 1:
                weight.data += 0.1 * weight.data.std() * torch.randn_like(weight)
        h = self.backbone(batch.x, batch.edge_index)
        with torch.no_grad():
            second = self.head(global_add_pool(other(batch.x.detach(), batch.edge_index), batch.batch))
        loss = _nt_xent(self.head(global_add_pool(h, batch.batch)), second)
        return self._step(loss + 0.2 * F.mse_loss(self.decoder(h), batch.x.detach()))

    def _step(self, loss: Tensor) -> float:
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class PlainFinetuning:
    """Every labelled node as its 2-hop ego graph, pooled, one step on all of them an epoch."""

    def __init__(self, x: Tensor, edge_index: Tensor, train: Tensor, y: Tensor, classes: int, hidden: int) -> None:
        self.model, self.head = PlainFAGCN(x.size(1), hidden), nn.Linear(hidden, classes)
        self.optimizer = torch.optim.Adam([*self.model.parameters(), *self.head.parameters()], lr=1e-3)
        self.graphs = []
        for node, label in zip(train.tolist(), y.tolist(), strict=True):
            nodes, edges, _, _ = k_hop_subgraph(node, 2, edge_index, relabel_nodes=True, num_nodes=x.size(0))
            self.graphs.append(Data(x=x[nodes], edge_index=edges, y=torch.tensor([label])))

    def epoch(self) -> float:
        """One step."""
        batch = Batch.from_data_list(self.graphs)
        z = global_add_pool(self.model(batch.x, batch.edge_index), batch.batch)
        loss = F.cross_entropy(self.head(z), batch.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def _augment(graph: Data) -> Data:
    kind, rate = random.choice(["drop", "perturb", "mask"]), random.uniform(0.1, 0.3)
    x, edge_index, nodes = graph.x, graph.edge_index, graph.x.size(0)
    if kind == "drop":
        keep = torch.rand(nodes) >= rate
        keep[0] = True
        return Data(x=x[keep], edge_index=subgraph(keep, edge_index, relabel_nodes=True, num_nodes=nodes)[0])
    if kind == "perturb":
        hit = torch.rand(edge_index.size(1)) < rate
        fresh = torch.randint(nodes, (2, int(hit.sum())))
        return Data(x=x, edge_index=torch.cat([edge_index[:, ~hit], fresh], dim=1))
    return Data(x=x * (torch.rand(nodes, 1) >= rate), edge_index=edge_index)


def _nt_xent(a: Tensor, b: Tensor, temperature: float = 0.5) -> Tensor:
    similarity = torch.exp(F.normalize(a, dim=1) @ F.normalize(b, dim=1).t() / temperature)
    positive = similarity.diagonal()
    return -torch.log(positive / (similarity.sum(1) - positive)).mean()
