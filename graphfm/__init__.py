"""Cross-domain graph foundation models: pretrain on many graphs, transfer with few labels, compare honestly."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from graphfm._version import __version__

if TYPE_CHECKING:
    from graphfm import adapters, backbones, baselines, data, ltv, nn, objectives, pareto, prompts, samplers, tasks
    from graphfm.adapt import adapt
    from graphfm.bank import AdapterBank
    from graphfm.coordinators import Coordinators
    from graphfm.data.features import Unifier
    from graphfm.data.load import load
    from graphfm.data.splits import Split, few_shot
    from graphfm.egos import Egos
    from graphfm.evaluate import evaluate
    from graphfm.fitted import Fitted
    from graphfm.pretrain import pretrain
    from graphfm.pretrained import Pretrained
    from graphfm.reprogram import reprogram
    from graphfm.results import Result
    from graphfm.tokens import DomainTokens, StructureTokens

__all__ = [
    "AdapterBank",
    "Coordinators",
    "DomainTokens",
    "Egos",
    "Fitted",
    "Pretrained",
    "Result",
    "Split",
    "StructureTokens",
    "Unifier",
    "__version__",
    "adapt",
    "adapters",
    "backbones",
    "baselines",
    "data",
    "evaluate",
    "few_shot",
    "load",
    "ltv",
    "nn",
    "objectives",
    "pareto",
    "pretrain",
    "prompts",
    "reprogram",
    "samplers",
    "tasks",
]

# Imports are late (PEP 562): torch and PyG take seconds, and ``graphfm --help`` needs neither.
_HOME = {
    "AdapterBank": "graphfm.bank",
    "Coordinators": "graphfm.coordinators",
    "DomainTokens": "graphfm.tokens",
    "Egos": "graphfm.egos",
    "Fitted": "graphfm.fitted",
    "Pretrained": "graphfm.pretrained",
    "Result": "graphfm.results",
    "Split": "graphfm.data.splits",
    "StructureTokens": "graphfm.tokens",
    "Unifier": "graphfm.data.features",
    "adapt": "graphfm.adapt",
    "evaluate": "graphfm.evaluate",
    "few_shot": "graphfm.data.splits",
    "load": "graphfm.data.load",
    "pretrain": "graphfm.pretrain",
    "reprogram": "graphfm.reprogram",
}
_PACKAGES = (
    "adapters",
    "backbones",
    "baselines",
    "data",
    "ltv",
    "nn",
    "objectives",
    "pareto",
    "prompts",
    "samplers",
    "tasks",
)


class _Package(types.ModuleType):
    """A package whose verbs stay verbs: importing ``graphfm.adapt`` would put the module in the function's place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, types.ModuleType) and _HOME.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"graphfm.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'graphfm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
