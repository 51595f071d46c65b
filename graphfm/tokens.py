"""Tokens: what joins domains without joining their graphs, a learnable vector for each (MDGPT, SAMGPT)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch_geometric.data import Data

from graphfm.beside import base_of
from graphfm.checkpoint import CheckpointError, load_state
from graphfm.nn import Adjacency

__all__ = ["DomainTokens", "StructureTokens", "TokenPrompts", "Tokens", "build_tokens", "describe_tokens", "layers_of"]

_LARGEST = 1_000_000


class Tokens(nn.Module):
    """Vectors ``[D, w]`` of D domains, for one or several places in a network, by which rows are multiplied.

    They are 1 at first, which changes nothing. ``pretrain(..., coordinators=tokens)`` takes them in the place of
    coordinators: the sources then stay apart, and only the backbone and the tokens know of one another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.ParameterList()

    @property
    def is_bound(self) -> bool:
        """Whether there are vectors."""
        return len(self.places) > 0

    def make(self, domains: int, widths: list[int]) -> Tokens:
        """Make the vectors anew, all 1: ``[domains, w]`` for each of ``widths``."""
        self.places = nn.ParameterList(torch.ones(domains, width) for width in widths)
        return self

    def bind(self, domains: int, backbone: nn.Module) -> Tokens:
        """Make the vectors for a number of domains and a backbone.

        Raises:
            ValueError: a backbone without the places that they act on.
        """
        raise NotImplementedError

    def attach(self, backbone: nn.Module) -> None:
        """Let the tokens act inside the backbone, on batches that went through :meth:`dress`."""

    def release(self) -> None:
        """Leave the backbone alone again."""

    def dress(self, batch: Data) -> Data:
        """Let the tokens act on a batch with features ``x`` ``[N, d]`` and ``domain`` ``[N]``, in place."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def fits(self, domains: int, backbone: nn.Module) -> bool:
        """Whether the vectors are what :meth:`bind` would make."""
        return self.arguments() == type(self)().bind(domains, backbone).arguments()

    def arguments(self) -> dict[str, Any]:
        """What :meth:`make` needs, as JSON."""
        widths = [int(place.size(1)) for place in self.places]
        return {"domains": int(self.places[0].size(0)) if widths else 0, "widths": widths}


class DomainTokens(Tokens):
    """A token a domain on the unified features: ``x_i <- t_domain(i) * x_i`` (MDGPT, 2405.13934, section 4.1).

    The paper draws its tokens at random; these are 1 at first. What of a token is negative turns the sign of a
    direction, which the decomposition that unifies features leaves to chance.
    """

    def bind(self, domains: int, backbone: nn.Module) -> DomainTokens:
        """One place: the features that the backbone takes."""
        self.make(domains, [cast(int, backbone.in_channels)])
        return self

    def dress(self, batch: Data) -> Data:
        """Multiply the features."""
        batch.x = batch.x * self.places[0].index_select(0, batch.domain)
        return batch


class StructureTokens(Tokens):
    """A token a domain and layer on what message passing gives: ``h_i <- t_domain(i) * layer(h)_i``.

    So SAMGPT's code has it (2502.05424; the paper writes the token into the aggregation). There a second pass with
    tokens on the features is added to the embedding; here it is one or the other. The layers are those in the
    backbone's ``convs``. An objective must keep the rows of the batch in their order; several views of them one after
    the other are understood.
    """

    def __init__(self) -> None:
        super().__init__()
        self._domain: Tensor | None = None
        self._handles: list[RemovableHandle] = []

    def bind(self, domains: int, backbone: nn.Module) -> StructureTokens:
        """A place for each layer, as wide as its output.

        Raises:
            ValueError: a backbone without ``convs``.
        """
        self.make(domains, _widths(backbone))
        return self

    def dress(self, batch: Data) -> Data:
        """Remember whose the rows are."""
        self._domain = batch.domain
        return batch

    def attach(self, backbone: nn.Module) -> None:
        """Multiply the output of every layer from now on."""
        self._handles += hooked(backbone, self._factor)

    def release(self) -> None:
        """Leave the layers alone again."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._domain = [], None

    def _factor(self, layer: int, rows: int) -> Tensor:
        if self._domain is None:
            raise RuntimeError("StructureTokens saw no batch yet; dress() it first.")
        views, rest = divmod(rows, self._domain.numel())
        if rest:
            raise ValueError(
                f"a layer gave {rows} rows for a batch of {self._domain.numel()}: StructureTokens needs an objective "
                "that keeps the rows of the batch, such as GraphCL, DGI or GraphMAE."
            )
        return self.places[layer].index_select(0, self._domain.repeat(views))


class TokenPrompts(nn.Module):
    """Dual prompts that carry tokens to a new graph (MDGPT, section 4.2; SAMGPT, section 4.3).

    ``h = (f_u(x) + f_m(x)) / 2``, where f_u is the backbone with prompts u of its own in the tokens' places (MDGPT's
    unifying, SAMGPT's holistic prompt), and f_m with mixtures ``sum_d a_d t_d`` of the sources' tokens (mixing,
    specific prompt). u is 1 and a is 1/D at first, so where the tokens never moved nothing changes. The papers weigh
    the second part by a constant to be tuned; here it counts as much as the first.

    Args:
        kind: ``"DomainTokens"`` or ``"StructureTokens"``.
        domains: D.
        widths: of the places.
    """

    def __init__(self, kind: str, domains: int, widths: list[int]) -> None:
        super().__init__()
        if kind not in (DomainTokens.__name__, StructureTokens.__name__):
            raise ValueError(f"kind must be 'DomainTokens' or 'StructureTokens', got {kind!r}.")
        self.kind, self.domains, self.widths = kind, domains, list(widths)
        self.own = nn.ParameterList(torch.ones(width) for width in widths)
        self.mix = nn.ParameterList(torch.full((domains,), 1 / max(domains, 1)) for _ in widths)
        self.sources = nn.ParameterList(
            nn.Parameter(torch.ones(domains, width), requires_grad=False) for width in widths
        )

    @classmethod
    def of(cls, tokens: Tokens) -> TokenPrompts:
        """Prompts at their beginning, for tokens that were trained.

        Raises:
            ValueError: tokens that were never bound.
        """
        if not tokens.is_bound:
            raise ValueError("these tokens were never bound to graphs; pretrain with them first.")
        made = cls(type(tokens).__name__, **tokens.arguments())
        for mine, place in zip(made.sources, tokens.places, strict=True):
            mine.data.copy_(place.detach())
        return made

    def fits(self, backbone: nn.Module) -> bool:
        """Whether the prompts are as wide as the places in the backbone."""
        kind = DomainTokens if self.kind == DomainTokens.__name__ else StructureTokens
        return self.widths == kind().bind(self.domains, backbone).arguments()["widths"]

    def arguments(self) -> dict[str, Any]:
        """How it was made, as JSON."""
        return {"kind": self.kind, "domains": self.domains, "widths": self.widths}

    def forward(self, backbone: nn.Module, x: Tensor, adj: Adjacency) -> Tensor:
        """Embeddings ``[N, D]`` of ``x`` ``[N, d]`` by the prompted backbone."""
        mixed = [a @ t for a, t in zip(self.mix, self.sources, strict=True)]
        first, second = (self._run(backbone, x, adj, factors) for factors in ([*self.own], mixed))
        return (first + second) / 2

    def _run(self, backbone: nn.Module, x: Tensor, adj: Adjacency, factors: list[Tensor]) -> Tensor:
        if self.kind == DomainTokens.__name__:
            return backbone(x * factors[0], adj)
        handles = hooked(backbone, lambda layer, rows: factors[layer])
        try:
            return backbone(x, adj)
        finally:
            for handle in handles:
                handle.remove()


def layers_of(backbone: nn.Module) -> list[nn.Module]:
    """The message-passing layers of a backbone, from the input on.

    Raises:
        ValueError: none that can be told: the backbone has no ``convs``.
    """
    base = base_of(backbone)
    found = getattr(base, "convs", None)
    if not isinstance(found, nn.ModuleList) or not len(found):
        raise ValueError(
            f"StructureTokens act on the layers in backbone.convs; {type(base).__name__} has none. "
            "Use DomainTokens, or a backbone such as GCN, GAT or FAGCN."
        )
    return list(found)


def hooked(backbone: nn.Module, factor: Callable[[int, int], Tensor]) -> list[RemovableHandle]:
    """Multiply the output of layer l ``[N, w]`` by ``factor(l, N)``, until the handles are removed."""

    def hook_of(layer: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        return lambda module, given, out: out * factor(layer, out.size(0))

    return [conv.register_forward_hook(hook_of(layer)) for layer, conv in enumerate(layers_of(backbone))]


@torch.no_grad()
def _widths(backbone: nn.Module) -> list[int]:
    """Output width of each layer, found on a copy and a graph of two nodes."""
    network: Any = copy.deepcopy(backbone).cpu().eval()
    widths: list[int] = [0] * len(layers_of(network))

    def look(layer: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, given: Any, out: Tensor) -> None:
            widths[layer] = out.size(1)

        return hook

    for layer, conv in enumerate(layers_of(network)):
        conv.register_forward_hook(look(layer))
    with torch.random.fork_rng(devices=[]):
        network(torch.zeros(2, network.in_channels), Adjacency.from_edges(torch.tensor([[0, 1], [1, 0]]), 2))
    return widths


def describe_tokens(tokens: Tokens | TokenPrompts) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Class and arguments as JSON, and tensors, of tokens or prompts, for a checkpoint."""
    return {"class": type(tokens).__name__, "arguments": tokens.arguments()}, dict(tokens.state_dict())


def build_tokens(described: dict[str, Any], state: dict[str, Tensor]) -> Tokens | TokenPrompts | None:
    """What :func:`describe_tokens` described; ``None`` where it is neither tokens nor prompts.

    Raises:
        CheckpointError: tensors that do not fit the arguments.
    """
    name, arguments = described["class"], described["arguments"]
    kinds = {kind.__name__: kind for kind in (DomainTokens, StructureTokens)}
    if name not in kinds and name != TokenPrompts.__name__:
        return None
    widths, domains = arguments["widths"], arguments["domains"]
    if len(widths) > len(state) or any(type(v) is not int or not 0 < v <= _LARGEST for v in (domains, *widths)):
        raise CheckpointError(f"the arguments {arguments} of {name!r} do not fit its {len(state)} tensors.")
    with torch.device("meta"):
        made = kinds[name]().make(domains, widths) if name in kinds else TokenPrompts(**arguments)
    return cast(Tokens | TokenPrompts, load_state(made, state, name))
