"""Graphs with text from elsewhere: GLBench's own files, and PyG's ``TAGDataset``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import EdgeStorage, GlobalStorage, NodeStorage

from graphfm.data.checks import check_graph
from graphfm.data.words import as_text

__all__ = ["from_tag_dataset", "read_glbench"]

# The attributes under which published files keep one thing.
_TEXTS = ("raw_texts", "raw_text", "texts", "text")
_LABELS = ("label_names", "label_name", "category_names_unique", "label_text")
_ABOUT = ("label_descs", "label_desc", "label_description")
_PLAIN = ("train_mask", "val_mask", "test_mask", "y", "x", "edge_weight")


def read_glbench(path: str | os.PathLike[str], name: str | None = None) -> Data:
    """Read one of GLBench's ``.pt`` files (2407.07457): a PyG ``Data`` with ``raw_texts`` and names of the classes.

    The file is opened with ``weights_only``: nothing in it is run, and a file that holds more than tensors, lists,
    strings and PyG's containers is refused.

    Args:
        path: the file.
        name: what to write to ``.name``; the file's stem if not given.

    Returns:
        The graph with ``text``, ``label_text`` and ``label_description`` where the file has them, ``y``, ``x``,
        ``edge_index`` and masks.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read safely, or holds no graph with text.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; GLBench's authors hand out one .pt file a dataset.")
    allowed = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage, NodeStorage, EdgeStorage]
    try:
        with torch.serialization.safe_globals(allowed):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its unpickler meets
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path} cannot be read without running code from it, which is refused ({first}). If you trust its source, "
            "load it with torch.load(weights_only=False) yourself and save a Data of tensors and lists of strings."
        ) from error
    given = found.to_dict() if isinstance(found, Data) else found
    if not isinstance(given, dict):
        raise ValueError(f"{path} must hold a PyG Data or a dict, got {type(found).__name__}.")
    return _graph(given, name or path.stem, str(path))


def from_tag_dataset(dataset: Any, labels: Sequence[str] | None = None) -> Data:
    """The graph of a ``torch_geometric.datasets.TAGDataset`` (ogbn-arxiv, ogbn-products, or one wrapped by its user).

    Args:
        dataset: an instance; its ``text`` and ``split_idx`` are read, its tokens are not.
        labels: names of the classes, which the dataset does not have.

    Returns:
        The graph with ``text``, ``label_text``, ``y`` ``[N]`` and the split as masks.

    Raises:
        ValueError: no text, or lengths that do not match.
    """
    data, texts = dataset[0], getattr(dataset, "text", None)
    if texts is None:
        raise ValueError("dataset.text is missing; pass text= to TAGDataset.")
    given = {key: data[key] for key in ("edge_index", *_PLAIN) if data.get(key) is not None}
    given |= {"raw_texts": list(texts)} | ({"label_names": list(labels)} if labels is not None else {})
    for key, part in dataset.get_idx_split().items():
        mask = torch.zeros(int(data.num_nodes or 0), dtype=torch.bool)
        mask[torch.as_tensor(part)] = True
        given[{"valid": "val"}.get(key, key) + "_mask"] = mask
    return _graph(given, str(getattr(dataset, "name", "tag")), "dataset")


def _graph(given: dict[str, Any], name: str, where: str) -> Data:
    texts = _first(given, _TEXTS)
    if texts is None:
        raise ValueError(
            f"{where} holds no texts; expected one of {', '.join(_TEXTS)}, got {', '.join(sorted(given))}."
        )
    if given.get("edge_index") is None:
        raise ValueError(f"{where} holds no edge_index [2, E].")
    data = Data(edge_index=_edges(given["edge_index"], where), num_nodes=len(texts))
    for key in _PLAIN:
        value = given.get(key)
        if isinstance(value, Tensor):
            data[key] = value
    if data.y is not None:
        data.y = data.y.reshape(-1).long()
    data.text = [as_text(text) for text in texts]
    for key, names in (("label_text", _LABELS), ("label_description", _ABOUT)):
        value = _first(given, names)
        if value is not None:
            data[key] = [str(one) for one in value]
    data.name = name
    for key in ("x", "y", "train_mask", "val_mask", "test_mask"):
        if key in data and data[key].size(0) != len(texts):
            raise ValueError(f"{where}: {key} has {data[key].size(0)} rows, there are {len(texts)} texts.")
    return check_graph(data, where, features=False)


def _edges(value: Any, where: str) -> Tensor:
    """``[2, E]`` as it stands. An ``[E, 2]`` is refused, not turned round: of two edges nobody could tell."""
    edges = torch.as_tensor(value)
    if edges.dim() != 2 or edges.size(0) != 2:
        raise ValueError(f"{where}: edge_index must have shape [2, E], got {list(edges.shape)}; transpose it first.")
    return edges.long().contiguous()


def _first(given: dict[str, Any], names: Iterable[str]) -> Any:
    return next((given[name] for name in names if given.get(name) is not None), None)
