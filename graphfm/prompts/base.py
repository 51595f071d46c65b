"""What a prompt may do to a frozen backbone: nothing, unless a method says otherwise."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.nn import Adjacency, segment_sum

__all__ = ["SMALL", "Prompt", "checked_count", "drawn"]

SMALL = 0.1  # length of vectors that are mixed, at first


class Network(Protocol):
    """The frozen backbone as a prompt sees it."""

    @property
    def layers(self) -> list[nn.Module]:
        """The layers after the first, in order; none where they are not known."""
        ...

    def run(self, x: Tensor, adj: Adjacency) -> Tensor:
        """One pass ``[N, F] -> [N, D]``, the prompt's messages in it."""
        ...


class Prompt(nn.Module):
    """A little input that is learned beside a frozen network.

    A method overrides what it acts on: the graph before the network (:meth:`graph`), each message in it
    (:meth:`message`), the passes through it (:meth:`encode`), what comes out (:meth:`readout`), the loss
    (:meth:`penalty`), and perhaps the head (:meth:`head`). It can be made without arguments; parameters exist once it
    is bound, which :func:`graphfm.prompts.prompted` sees to. A method with a training loop of its own has
    ``fit(others, loss, *, epochs, lr, weight_decay, after)``, as :meth:`graphfm.prompts.AllInOne.fit`.

    Attributes:
        sizes: what :meth:`bind` was given, as JSON; ``None`` before.
        acts_on_messages: whether :meth:`message` is to be called.
        needs_messages: whether it is lost on a network that passes none.
        acts_on_layers: whether the widths of the layers matter to it.
        meant_for: names of the objectives that it builds on; empty where any will do.
    """

    acts_on_messages: ClassVar[bool] = False
    needs_messages: bool = False
    acts_on_layers: ClassVar[bool] = False
    meant_for: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[str, Any] | None = None

    @property
    def is_bound(self) -> bool:
        """Whether the parameters exist."""
        return self.sizes is not None

    def bind(
        self, in_channels: int, out_channels: int, *, layers: Sequence[int] = (), messages: Sequence[int] = ()
    ) -> Prompt:
        """Make the parameters anew; what is random comes from torch's generator.

        Args:
            in_channels: feature width F.
            out_channels: width D of the embeddings.
            layers: width of what goes into each layer but the first.
            messages: width of the messages of each product with the adjacency, in the order of a forward pass.

        Raises:
            ValueError: a width below 1, or a network without the places that the prompt acts on.
        """
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if (self.acts_on_messages or self.needs_messages) and not messages:
            raise ValueError(f"{type(self).__name__} acts through messages, and this network passes none.")
        self.sizes = {
            "in_channels": in_channels, "out_channels": out_channels,
            "layers": list(layers), "messages": list(messages),
        }  # fmt: skip
        self.make(in_channels, out_channels, layers=list(layers), messages=list(messages))
        return self

    def make(self, in_channels: int, out_channels: int, *, layers: list[int], messages: list[int]) -> None:
        """Make the parameters; see :meth:`bind`."""

    def graph(self, data: Data) -> Data:
        """``data`` as the network shall see it: ``x`` ``[N, F]``, ``adj``, and ``batch`` ``[N]`` or ``None``.

        Whatever is changed is changed in a shallow copy. The first N nodes stay what they were.
        """
        return data

    def message(self, layer: int, x_j: Tensor, x_i: Tensor) -> Tensor:
        """The messages ``x_j`` ``[E, w]`` of edges j -> i in the place ``layer``, as they shall arrive, ``[E, w]``."""
        return x_j

    def arriving(self, layer: int, x: Tensor, adj: Adjacency, weight: Tensor) -> Tensor:
        """What :meth:`message` adds to the sums ``sum_e weight_e x_j`` ``[N, w]``, in any faster way there is.

        Args:
            layer: place of the messages.
            x: ``[N, w]`` what is passed on; the columns of each head side by side.
            adj: the edges.
            weight: ``[E, H]`` of each edge and head, in the order of ``adj``.
        """
        x_j, x_i = x.index_select(0, adj.col), x.index_select(0, adj.row)
        change = (self.message(layer, x_j, x_i) - x_j).unflatten(1, (weight.size(1), -1))
        return segment_sum(change * weight.unsqueeze(2), adj).flatten(1)

    def encode(self, network: Network, data: Data) -> Tensor:
        """Embeddings ``[M, D]`` of what :meth:`graph` gave; one pass unless a method needs several."""
        return network.run(data.x, data.adj)

    def readout(self, h: Tensor, data: Data) -> Tensor:
        """What the head sees ``[N, D]`` of ``h`` ``[M, D]``, by the ``data`` that :meth:`graph` gave."""
        return h

    def penalty(self) -> Tensor:
        """What is added to the loss, a scalar."""
        first = next(self.parameters(), None)
        return torch.zeros(()) if first is None else first.new_zeros(())

    def head(self, num_classes: int) -> nn.Module | None:
        """The head that the method prescribes, ``None`` where any will do.

        Such a head has ``forward(z) -> [N, C]`` scores, ``loss(z, y)`` to train by, and ``fit(z, y)``, to be called on
        the labelled rows before and after training.
        """
        return None

    def wrap(self, network: nn.Module, inputs: Any = None) -> nn.Module:
        """The frozen ``network`` under this prompt, as :func:`graphfm.adapt` asks for it."""
        from graphfm.prompts.prompted import prompted

        return prompted(network, self, freeze=False)

    def arguments(self) -> dict[str, Any]:
        """The arguments that make it again, as JSON, read from the attributes of their names."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.arguments().items())})"


def checked_count(name: str, value: int) -> int:
    """``value`` if it is a whole number of at least 1.

    Raises:
        ValueError: otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
    return value


def drawn(*shape: int, length: float = 1.0) -> nn.Parameter:
    """A parameter whose rows have about this length.

    Vectors that are mixed begin small, not at 0: from there an optimiser such as Adam moves them all alike, and the
    mixture stays one vector.
    """
    return nn.Parameter(length * torch.randn(*shape) / shape[-1] ** 0.5)
