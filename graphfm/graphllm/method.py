"""What every method of the evaluation is: what it needs, what it looks at, and two calls."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch_geometric.data import Data

from graphfm.data.splits import Split
from graphfm.device import as_device

__all__ = ["Method", "Supervised", "ZeroShot"]


class Method(abc.ABC):
    """A method that gives every node of a graph a score for each class.

    A subclass says with class attributes what it is; its constructor takes the backends that it needs by the names in
    ``needs``, then its settings, ``seed`` and ``device``, all by keyword. A row of NaN in what ``predict`` returns says
    that the method gave no answer for that node: it counts as wrong, and in ``unknown_rate``.

    Attributes:
        needs: backends by the name of their argument: ``"encoder"`` (a frozen
            :class:`~graphfm.graphllm.TextEncoder`), ``"tunable"`` (an encoder whose weights are trained), ``"lm"`` (a
            :class:`~graphfm.graphllm.CausalLM`), ``"chat"`` (a :class:`~graphfm.graphllm.ChatClient`).
        uses: ``"text"``, ``"structure"`` or both: what the answer may depend on.
        family: how it is grouped in tables: ``"classical"``, ``"lm"``, ``"enhancer"``, ``"predictor"``,
            ``"alignment"``, ``"zero-shot"``.
        grid: values tried for each setting, the first of each being the default; the best on validation nodes is kept.
        published: values from a public source that the docstring names, for those with the time; nothing where there
            is no such source, so that the defaults are all that is tried.
        descriptions: whether it reads what is said of the classes beside their names.
        trained: after ``fit``, what was trained, by name.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    uses: ClassVar[frozenset[str]] = frozenset({"text", "structure"})
    family: ClassVar[str]
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {}
    published: ClassVar[Mapping[str, Sequence[Any]]] = {}
    descriptions: ClassVar[bool] = False

    def __init__(self, *, seed: int = 0, device: str | None = None) -> None:
        self.seed, self.device = seed, as_device(device)
        self.trained: dict[str, nn.Parameter] = {}

    @abc.abstractmethod
    def predict(self, data: Data) -> Tensor:
        """Scores ``[N, C]`` of all nodes, larger for the likelier class, on the CPU; NaN rows for no answer.

        Rows of nodes that :func:`~graphfm.graphllm.texts.asked_of` does not name are not looked at and may be NaN.
        """

    def train_only(self, modules: Mapping[str, nn.Module]) -> list[nn.Parameter]:
        """Write down under ``NAME.parameter`` what is trained, and return it for the optimiser."""
        self.trained = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        return list(self.trained.values())


class Supervised(Method):
    """Learns from labelled nodes of the graph that it predicts on; few labels or many."""

    @abc.abstractmethod
    def fit(self, data: Data, split: Split) -> Supervised:
        """Learn from the labels of ``split.train``; choices, if any, by those of ``split.val``.

        Args:
            data: the graph with ``text``, ``label_text``, and ``y`` ``[N]`` that is -1 outside training and validation
                when a runner hands it over.
            split: the parts; without validation nodes, a fixed number of steps is taken.
        """

    def go_on_from(self, other: Supervised) -> None:
        """Take over, before :meth:`fit`, a stage that ``other`` went through on the same graph with the same settings.

        What is found in the end is the same to the bit; a method of one stage takes nothing over.
        """


class ZeroShot(Method):
    """Answers on a graph of which it has seen no label; may learn from other graphs.

    Attributes:
        learns: whether it needs sources to learn from.
    """

    learns: ClassVar[bool] = False

    @abc.abstractmethod
    def fit(self, sources: Iterable[Data]) -> ZeroShot:
        """Learn from labelled graphs; methods that learn nothing accept none."""

    @abc.abstractmethod
    def predict(self, data: Data) -> Tensor:
        """Scores ``[N, C]`` from texts, edges and ``label_text``; a runner hands the target over without ``y``."""
