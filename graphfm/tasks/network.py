"""A task's own copy of the backbone, and what of it is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Data

from graphfm.beside import check_meant_for, put
from graphfm.data.features import Projection, raw_features
from graphfm.inputs import Inputs
from graphfm.joined import undirected
from graphfm.methods import Recipe
from graphfm.nn import Adjacency
from graphfm.pretrained import Pretrained

__all__ = ["Attach", "card_of", "own_network", "read_graph"]

# A prompt or an adapter, as a task sees it: from the frozen copy and the graph that is learned from to a network with
# the same call, ``(x, adjacency) -> [N, D]``. What of it requires a gradient is trained; what a method ``penalty()`` of
# it gives is added to the loss.
Attach = Callable[[nn.Module, Inputs], nn.Module]


def read_graph(data: Data, projection: Projection, device: torch.device) -> Inputs:
    """``data`` as a backbone sees it: unified features and undirected edges on ``device``."""
    edge_index, weight = undirected(data)
    x = projection(raw_features(data)).to(device)
    return Inputs(x, Adjacency.from_edges(edge_index, x.size(0), weight, batch=data.get("batch")).to(device))


def own_network(
    pretrained: Pretrained, recipe: Recipe, attach: Attach | None, inputs: Inputs, device: torch.device, seed: int = 0
) -> nn.Module:
    """A copy of the backbone on ``device``; trained as a whole, or what stands beside it, or nothing.

    Raises:
        ValueError: something attached to a method that trains no network, or in two ways at once.
    """
    network = copy.deepcopy(pretrained.backbone).to(device).eval()
    if recipe.adapter is not None or recipe.prompt is not None:
        if attach is not None:
            raise ValueError("attach= and an adapter or a prompt do not go together; put them into one function.")
        check_meant_for(recipe.prompt, pretrained.card)
        return put(network, recipe, seed, pretrained.pretext)[0]
    if attach is None:
        return network.requires_grad_(recipe.method == "finetune")
    if recipe.method != "finetune":
        raise ValueError(
            f"attach needs method='finetune': {recipe.method!r} trains no network, so it would stay as it starts."
        )
    network = attach(network.requires_grad_(False), inputs).to(device)
    if network.out_channels != pretrained.backbone.out_channels:
        raise ValueError("attach must give a network with the backbone's out_channels.")
    return network


def card_of(pretrained: Pretrained, data: Data, **facts: Any) -> dict[str, Any]:
    """JSON-able facts of a fitted model."""
    sources = [source["name"] for source in pretrained.card.get("sources", [])]
    return {"target": str(data.get("name", "")), "sources": sources, **facts}
