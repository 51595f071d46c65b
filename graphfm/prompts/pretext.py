"""Pretraining with a token for each pretext task at each layer: what MultiGPrompt composes its prompts of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.nn import Adjacency
from graphfm.objectives.dgi import DGI
from graphfm.objectives.graphcl import GraphCL
from graphfm.objectives.link import LinkPrediction
from graphfm.objectives.multitask import MultiTask
from graphfm.pareto import Combiner, WeightedSum
from graphfm.prompts.messages import call, layer_inputs, layer_widths
from graphfm.prompts.multigprompt import run_at

__all__ = ["PretextTokens"]


class PretextTokens(MultiTask):
    """Several pretexts, each seeing the network through tokens of its own (Yu et al., 2312.03731, section 4.2).

    Pretext k embeds by ``h = mean_l f(t_kl at layer l)``, where "at layer l" multiplies what goes into layer l in that
    pass alone; so pretexts that pull at one network have a place each in which to differ. The paper weighs layers and
    losses by constants, here they count alike unless ``combine`` says otherwise. The tokens are 1 at first. They are
    kept with the pretrained model (:attr:`graphfm.Pretrained.pretext`), and
    ``adapt(model, ..., prompt=MultiGPrompt(k))`` composes from them.

    Args:
        objectives: see :class:`graphfm.objectives.MultiTask`; by default the paper's three: DGI, GraphCL and link
            prediction.
        combine: one of :mod:`graphfm.pareto`; by default their sum.
    """

    def __init__(self, objectives: Sequence[nn.Module] | None = None, combine: Combiner | None = None) -> None:
        if objectives is None:
            objectives = [DGI(), GraphCL(reconstruction=0.0), LinkPrediction()]
        super().__init__(objectives, WeightedSum() if combine is None else combine)
        self.tokens = nn.ParameterList()

    def follow(self, backbone: nn.Module) -> PretextTokens:
        """Make the tokens ``[K, w]`` for each layer of the backbone."""
        width: Any = backbone.in_channels
        widths = [int(width), *layer_widths(backbone)]
        self.tokens = nn.ParameterList(torch.ones(len(self.objectives), w) for w in widths)
        super().follow(backbone)
        return self

    def forward(self, backbone: nn.Module, batch: Data) -> Tensor:
        """The losses ``[K]`` on ``batch``, in the order of the objectives.

        Raises:
            RuntimeError: no tokens yet.
        """
        if not len(self.tokens):
            raise RuntimeError("PretextTokens has no tokens yet; call follow(backbone) first.")
        through = [_Through(backbone, [t[k] for t in self.tokens]) for k in range(len(self.objectives))]
        pairs = zip(self.objectives, through, strict=True)
        return torch.stack([objective(view, batch).sum() for objective, view in pairs])

    def pretext(self) -> list[Tensor]:
        """The tokens ``[K, w]`` of each layer, as they are now."""
        return [token.detach().cpu().clone() for token in self.tokens]


class _Through(nn.Module):
    """The backbone as one pretext sees it, with tokens ``[w]`` for each layer."""

    def __init__(self, backbone: nn.Module, tokens: list[Tensor]) -> None:
        super().__init__()
        self.backbone, self.tokens = backbone, tokens

    def forward(self, x: Tensor, edge_index: Tensor | Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """``[N, F]`` to ``[N, D]``, the mean over layers."""

        def run(x: Tensor) -> Tensor:
            if isinstance(edge_index, Adjacency):
                return call(self.backbone, x, edge_index)
            return self.backbone(x, edge_index, edge_weight)

        layers = layer_inputs(self.backbone)
        levels = [run_at(run, layers, x, place, token) for place, token in enumerate(self.tokens)]
        return torch.stack(levels).mean(0)
