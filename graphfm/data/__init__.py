"""Graphs in: by name, from files, from other libraries; checked, unified, split and sampled.

Names are imported when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Imported at once, since both are cheap and a submodule of the same name would otherwise take the function's place.
from graphfm.data.catalogue import Entry, catalogue, describe
from graphfm.data.load import load

if TYPE_CHECKING:
    from graphfm.data.batches import EdgeNeighbourhoods, Neighbourhoods
    from graphfm.data.checks import check_graph, check_labels
    from graphfm.data.features import Unifier, structural_features
    from graphfm.data.glbench import from_tag_dataset, read_glbench
    from graphfm.data.interop import from_dgl, from_networkx, to_dgl, to_networkx
    from graphfm.data.npz import save_npz
    from graphfm.data.ondisk import open_graph
    from graphfm.data.purchase_read import read_purchases
    from graphfm.data.purchase_snapshot import snapshot
    from graphfm.data.purchases import Purchases
    from graphfm.data.splits import Split, few_shot
    from graphfm.data.tables import read_jsonl
    from graphfm.data.writer import GraphWriter, write_graph

__all__ = [
    "EdgeNeighbourhoods",
    "Entry",
    "GraphWriter",
    "Neighbourhoods",
    "Purchases",
    "Split",
    "Unifier",
    "catalogue",
    "check_graph",
    "check_labels",
    "describe",
    "few_shot",
    "from_dgl",
    "from_networkx",
    "from_tag_dataset",
    "load",
    "open_graph",
    "read_glbench",
    "read_jsonl",
    "read_purchases",
    "save_npz",
    "snapshot",
    "structural_features",
    "to_dgl",
    "to_networkx",
    "write_graph",
]

_WHERE = {
    "EdgeNeighbourhoods": "batches",
    "GraphWriter": "writer",
    "Neighbourhoods": "batches",
    "Purchases": "purchases",
    "Split": "splits",
    "Unifier": "features",
    "check_graph": "checks",
    "check_labels": "checks",
    "few_shot": "splits",
    "from_dgl": "interop",
    "from_networkx": "interop",
    "from_tag_dataset": "glbench",
    "open_graph": "ondisk",
    "read_glbench": "glbench",
    "read_jsonl": "tables",
    "read_purchases": "purchase_read",
    "save_npz": "npz",
    "snapshot": "purchase_snapshot",
    "structural_features": "features",
    "to_dgl": "interop",
    "to_networkx": "interop",
    "write_graph": "writer",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
