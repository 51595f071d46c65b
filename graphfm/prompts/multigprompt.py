"""MultiGPrompt: prompts composed of pretext tokens beside open ones, each in every layer by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.prompts.base import Network, Prompt, checked_count
from graphfm.prompts.similarity import SimilarityHead

__all__ = ["MultiGPrompt", "run_at"]


class MultiGPrompt(Prompt):
    """``d_1 mean_l f(c_l at layer l) + d_2 mean_l f(o_l at layer l)`` (Yu et al., 2312.03731).

    "At layer l" multiplies what goes into layer l, feature by feature, in that pass alone. The composed prompt is a
    mixture ``c_l = sum_k g_lk t_kl`` of the tokens of K pretext tasks, which stay as they were pretrained; the open
    prompt o_l is free. A model pretrained by :class:`graphfm.prompts.PretextTokens` has such tokens, and adaptation
    takes them (:meth:`take`). Without them there is nothing to compose from: random ones near 1 stand in. The
    paper weighs layers by constants, here they count alike, and its second mixture is learned as in the authors' code.
    o is 1 at first, g 1/K, d 1/2.

    Args:
        k: number of pretext tasks.
        temperature: of the similarity loss of :meth:`head`.

    Raises:
        ValueError: ``k`` below 1, a temperature that is not positive.
    """

    acts_on_layers: ClassVar[bool] = True
    mix: nn.ParameterList
    open: nn.ParameterList
    balance: Tensor

    def __init__(self, k: int = 3, *, temperature: float = 0.1) -> None:
        super().__init__()
        self.k, self.temperature = checked_count("k", k), temperature
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")

    def make(self, in_channels: int, out_channels: int, *, layers: list[int], messages: list[int]) -> None:
        """Tokens ``[k, w]``, their mixture ``[k]`` and an open prompt ``[w]`` for each layer; two shares."""
        widths = [in_channels, *layers]
        for place, width in enumerate(widths):
            self.register_buffer(f"tokens{place}", 1 + 0.1 * torch.randn(self.k, width))
        self.mix = nn.ParameterList(torch.full((self.k,), 1 / self.k) for _ in widths)
        self.open = nn.ParameterList(torch.ones(width) for width in widths)
        self.balance = nn.Parameter(torch.full((2,), 0.5))

    def take(self, tokens: Sequence[Tensor]) -> MultiGPrompt:
        """Compose from pretrained tokens, ``[k, w]`` for each layer.

        Raises:
            ValueError: not bound yet; another number of layers, or other shapes.
        """
        if not self.is_bound:
            raise ValueError("bind the prompt first: its tokens are as wide as the network's layers.")
        wanted = [list(self._tokens(place).shape) for place in range(len(self.open))]
        found = [list(token.shape) for token in tokens]
        if found != wanted:
            raise ValueError(f"tokens must have the shapes {wanted}, one a layer, got {found}.")
        for place, token in enumerate(tokens):
            self._tokens(place).copy_(token.detach())
        return self

    def _tokens(self, place: int) -> Tensor:
        return getattr(self, f"tokens{place}")

    def encode(self, network: Network, data: Data) -> Tensor:
        """A pass for each layer and kind of prompt."""
        places = range(len(self.open))
        composed = [self._at(network, data, place, self.mix[place] @ self._tokens(place)) for place in places]
        free = [self._at(network, data, place, self.open[place]) for place in places]
        return (self.balance[0] * sum(composed) + self.balance[1] * sum(free)) / len(places)

    def head(self, num_classes: int) -> SimilarityHead:
        """Cosine to the mean of each class."""
        if self.sizes is None:
            raise ValueError("bind the prompt first: its head is as wide as the network.")
        return SimilarityHead(self.sizes["out_channels"], num_classes, self.temperature)

    def _at(self, network: Network, data: Data, place: int, factor: Tensor) -> Tensor:
        return run_at(lambda x: network.run(x, data.adj), network.layers, data.x, place, factor)


def run_at(
    run: Callable[[Tensor], Tensor], layers: Sequence[nn.Module], x: Tensor, place: int, factor: Tensor
) -> Tensor:
    """One pass ``run(x)`` with what goes into one layer multiplied by ``factor``.

    Args:
        run: the network.
        layers: its layers after the first.
        x: ``[N, F]``.
        place: of the layer, 0 for the first.
        factor: as wide as what goes into it.
    """
    if place == 0:
        return run(x * factor)

    def multiply(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return given[0] * factor, *given[1:]

    handle = layers[place - 1].register_forward_pre_hook(multiply)
    try:
        return run(x)
    finally:
        handle.remove()
