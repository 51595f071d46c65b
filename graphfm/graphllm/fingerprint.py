"""Short hashes of what a cell was measured with, so that a run does not go on from cells of something else."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch_geometric.data import Data

from graphfm.graphllm.method import Method, Supervised

__all__ = ["graph_fingerprint", "method_fingerprint"]


def method_fingerprint(kind: type[Method], grid: str = "small") -> str:
    """Of a method's place, its defaults and the grid it has: another class of its name, or another default, differs."""
    defaults: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if "__init__" in vars(base) and base is not object:
            for name, one in inspect.signature(base.__init__).parameters.items():  # type: ignore[misc]
                if one.default is not inspect.Parameter.empty:
                    defaults[name] = repr(one.default)
    values = repr(kind.published if grid == "published" else kind.grid) if issubclass(kind, Supervised) else ""
    return _digest([json.dumps([kind.__module__, kind.__qualname__, sorted(defaults.items()), values]).encode()])


def graph_fingerprint(*graphs: Data) -> str:
    """Of texts, edges and their weights, labels, and what is said of the classes, of each graph in turn."""
    return _digest(part for data in graphs for part in _parts(data))


def _parts(data: Data) -> Iterable[bytes]:
    said = {key: data.get(key) for key in ("text", "label_text", "label_description", "description")}
    yield json.dumps(said, default=str).encode("utf-8", "surrogatepass")
    for key in ("edge_index", "edge_weight", "y"):
        value: Any = data.get(key)
        yield key.encode()
        if isinstance(value, Tensor):
            yield value.detach().cpu().contiguous().numpy().tobytes()


def _digest(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.hexdigest()[:12]
