"""A user's own graph from files: ``.npz``, or ``edges.csv`` with ``nodes.csv``. Nothing is unpickled.

``.npz``: ``edge_index`` ``[2, E]``, and whatever there is of ``x`` ``[N, F]`` (or the parts of a SciPy CSR matrix:
``x_data``, ``x_indices``, ``x_indptr``, ``x_shape``), ``y`` ``[N]`` (numbers, or strings as class names),
``edge_weight`` ``[E]``, ``train_mask``, ``val_mask``, ``test_mask`` ``[N]`` or ``[N, splits]``, and ``num_nodes`` where
nothing else tells it. Lists of strings are kept as ``KEY_utf8`` (bytes) and ``KEY_offsets``, or as a string array.

CSV: ``edges.csv`` has the columns ``source``, ``target`` and perhaps ``weight``, one directed edge a line (undirected:
list both directions, or apply ``torch_geometric.transforms.ToUndirected``). ``nodes.csv`` has ``id`` and perhaps
``label``, ``text`` and columns of numbers, which become the features. Ids may be any strings.
"""

from __future__ import annotations

import csv
import itertools
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphfm.data.checks import check_graph

__all__ = ["encode_labels", "read_arrays", "read_csv", "read_npz", "save_npz"]

MASKS = ("train_mask", "val_mask", "test_mask")
CSR = ("x_data", "x_indices", "x_indptr", "x_shape")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file, none of them unpickled.

    Raises:
        ValueError: the file is no npz, is cut short, or holds Python objects; the message names file and array.
    """
    key = ""
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it holds one bare array; write it with numpy.savez")
        arrays = {}
        with archive:
            for key in archive.files:
                arrays[key] = archive[key]
        return arrays
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        if "allow_pickle" in str(error) or "pickled" in str(error):
            what = f"array {key!r} holds" if key else "it holds"
            refused = "pickled Python objects, which could run code and are refused; save numbers or strings instead."
            raise ValueError(f"{path}: {what} {refused}") from error
        raise ValueError(f"{path} cannot be read as npz (is it cut short or another format?): {error}.") from error


def read_npz(path: Path) -> Data:
    """Read one graph from an ``.npz`` file of the layout above.

    Returns:
        A checked ``Data``; a sparse ``x`` comes back dense, ``x`` and ``edge_weight`` as float32, ``name`` is the
        file's stem where the file holds none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see ``read_arrays``; no ``edge_index``; arrays that do not fit together.
    """
    arrays = _join_strings(_join_sparse(read_arrays(path), path), path)
    if "edge_index" not in arrays:
        raise ValueError(f"{path}: array 'edge_index' [2, edges] is missing; it holds {sorted(arrays) or 'nothing'}.")
    data = Data.from_dict({key: _value(value, f"{path}: array {key!r}") for key, value in arrays.items()})
    if data.edge_index.is_floating_point():
        raise ValueError(f"{path}: array 'edge_index' must hold integers, got {data.edge_index.dtype}.")
    data.edge_index = data.edge_index.long()
    for key in {"x", "edge_weight"} & set(data.keys()):
        data[key] = data[key].float()
    if isinstance(data.get("y"), list):
        data.y, data.label_text = encode_labels(data.y)
    data.name = data.get("name", path.stem)
    return _checked(data, path)


def save_npz(data: Data, path: str | Path) -> None:
    """Write one graph to an ``.npz`` file that ``load(path)`` reads back.

    Args:
        data: a graph; its tensors, strings, numbers and lists of strings are kept. An ``x`` that is at most 10 % full
            is written as a sparse matrix.
        path: where to; must end in ``.npz``.

    Raises:
        ValueError: another suffix, a batch of graphs, or an attribute that the file cannot hold.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {str(path)!r}.")
    if isinstance(data, Batch) or not isinstance(data, Data):
        raise ValueError(f"data must be one torch_geometric.data.Data, got {type(data).__name__}; save graphs singly.")
    check_graph(data, features=False)
    arrays = {} if data.x is not None else {"num_nodes": np.array(data.num_nodes)}
    for key, value in data.to_dict().items():
        arrays |= _arrays(key, value)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _arrays(key: str, value: Any) -> dict[str, np.ndarray]:
    """The arrays that hold one attribute."""
    if isinstance(value, Tensor):
        array = (value if value.layout == torch.strided else value.to_dense()).detach().cpu().numpy()
        if key == "x" and np.count_nonzero(array) <= 0.1 * array.size:
            from scipy.sparse import csr_array

            x = csr_array(array)
            return dict(zip(CSR, (x.data, x.indices, x.indptr, np.array(x.shape)), strict=True))
        return {key: array}
    if isinstance(value, str | int | float | bool):
        return {key: np.array(value)}
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        # A string array pads every text to the longest one; bytes and offsets do not.
        parts = [item.encode() for item in value]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return {f"{key}_utf8": np.frombuffer(b"".join(parts), dtype=np.uint8), f"{key}_offsets": offsets}
    what = f"data.{key} is a {type(value).__name__}, which an npz file cannot hold"
    raise ValueError(f"{what}; drop it, or make it a tensor, a number, a string or a list of strings.")


def _join_sparse(arrays: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    given = [key for key in CSR if key in arrays]
    if not given:
        return arrays
    if len(given) < len(CSR):
        raise ValueError(f"{path}: a sparse x needs the arrays {', '.join(CSR)}; only {', '.join(given)} are there.")
    from scipy.sparse import csr_array

    data, indices, indptr, shape = (arrays[key] for key in CSR)
    try:
        x = csr_array((data, indices, indptr), shape=tuple(shape.tolist()))
        x.check_format(full_check=True)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: the parts of the sparse x do not fit together: {error}.") from error
    return {key: value for key, value in arrays.items() if key not in CSR} | {"x": x.toarray()}


def _join_strings(arrays: dict[str, Any], path: Path) -> dict[str, Any]:
    joined = dict(arrays)
    for key in (key.removesuffix("_utf8") for key in arrays if key.endswith("_utf8")):
        raw = joined.pop(f"{key}_utf8").tobytes()
        if f"{key}_offsets" not in joined:
            raise ValueError(f"{path}: array '{key}_utf8' needs '{key}_offsets' beside it, which is missing.")
        offsets = joined.pop(f"{key}_offsets").tolist()
        try:
            joined[key] = [raw[a:b].decode() for a, b in itertools.pairwise(offsets)]
        except (UnicodeDecodeError, TypeError) as error:
            raise ValueError(f"{path}: '{key}_utf8' and '{key}_offsets' do not fit together: {error}.") from error
    return joined


def _value(value: Any, what: str) -> Any:
    """A tensor, a Python scalar or a list of strings."""
    if isinstance(value, list):
        return value
    if value.dtype.kind in "USTO":
        return value.tolist()
    if value.ndim == 0:
        return value.item()
    try:
        return torch.from_numpy(np.ascontiguousarray(value))
    except TypeError as error:
        raise ValueError(f"{what} has type {value.dtype}, which torch does not know; convert it first.") from error


def read_csv(edges: Path, nodes: Path | None) -> Data:
    """Read a graph from an edge table and perhaps a node table, laid out as above.

    Without a node table the nodes are those of the edges, in order of appearance. Without columns of numbers the
    features are made of the text, if there is any, by ``text_features``.

    Returns:
        A checked ``Data`` with ``node_name`` (the ids), ``edge_weight``, ``x``, ``y`` with ``label_text``, ``text``
        where the files have them. Integer labels stay as they are, others are numbered in sorted order; an empty
        label is -1 (unknown).

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a missing column, an unknown or repeated id, a number that is none; names file, line and column.
    """
    table = _table(edges, ("source", "target"))
    if nodes is None:
        ids = list(dict.fromkeys(name for pair in zip(table["source"], table["target"], strict=True) for name in pair))
        data = Data(num_nodes=len(ids))
    else:
        data, ids = _nodes(nodes)
    position = {name: i for i, name in enumerate(ids)}
    ends = []
    for column in ("source", "target"):
        for line, name in enumerate(table[column], start=2):
            if name not in position:
                raise ValueError(
                    f"{edges}, line {line}, column {column!r}: id {name!r} is not in {nodes}; add it there."
                )
        ends.append(torch.tensor([position[name] for name in table[column]], dtype=torch.long))
    data.edge_index = torch.stack(ends)
    if "weight" in table:
        data.edge_weight = torch.from_numpy(_numbers(table["weight"], edges, "weight"))
    if data.x is not None:
        del data.num_nodes
    data.node_name = ids
    data.name = edges.resolve().parent.name if edges.name == "edges.csv" else edges.stem
    return _checked(data, edges)


def _nodes(path: Path) -> tuple[Data, list[str]]:
    table = _table(path, ("id",))
    ids = table.pop("id")
    first = {name: line for line, name in reversed(list(enumerate(ids, start=2)))}
    for line, name in enumerate(ids, start=2):
        if first[name] != line:
            raise ValueError(f"{path}, line {line}, column 'id': {name!r} appears twice; ids must differ.")
    data = Data(num_nodes=len(ids))
    if "label" in table:
        data.y, labels = encode_labels(table.pop("label"))
        if labels:
            data.label_text = labels
    if "text" in table:
        data.text = table.pop("text")
    if table:
        data.x = torch.from_numpy(np.stack([_numbers(column, path, key) for key, column in table.items()], axis=1))
        data.feature_name = list(table)
    elif "text" in data and any(data.text):
        from graphfm.data.tag import text_features

        data.x = torch.from_numpy(text_features(data.text))
    return data, ids


def _table(path: Path, needed: Sequence[str]) -> dict[str, list[str]]:
    """Columns of a CSV file by name."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as UTF-8 CSV: {error}.") from error
    header = [column.strip() for column in rows[0]] if rows else []
    for column in needed:
        if column not in header:
            raise ValueError(f"{path}: column {column!r} is missing; the first line names {header or 'no columns'}.")
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: a column name appears twice in {header}; rename one.")
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: {len(row)} fields, the first line names {len(header)} columns.")
    return {column: [row[i].strip() for row in rows[1:]] for i, column in enumerate(header)}


def _numbers(column: list[str], path: Path, name: str) -> np.ndarray:
    """A column as float32 ``[rows]``."""
    values = np.empty(len(column), dtype=np.float32)
    for i, cell in enumerate(column):
        try:
            values[i] = float(cell)
        except ValueError as error:
            raise ValueError(
                f"{path}, line {i + 2}, column {name!r}: {cell!r} is no number; fill it in, encode or drop the column."
            ) from error
    return values


def encode_labels(labels: Sequence[Any]) -> tuple[Tensor, list[str]]:
    """Class numbers of labels.

    Args:
        labels: one a node; ``None``, NaN or an empty string means unknown.

    Returns:
        int64 ``[N]`` with -1 for unknown, and the class names: empty where the labels are whole numbers, which stay as
        they are; else sorted, and the numbers point into them.
    """
    texts = ["" if label is None or label != label else str(label) for label in labels]
    try:
        values = [float(text) if text else -1.0 for text in texts]
        if all(value.is_integer() for value in values):
            return torch.tensor([int(value) for value in values], dtype=torch.long), []
    except ValueError:
        pass
    known = sorted(set(texts) - {""})
    position = {text: i for i, text in enumerate(["", *known], start=-1)}
    return torch.tensor([position[text] for text in texts], dtype=torch.long), known


def _checked(data: Data, path: Path) -> Data:
    check_graph(data, str(path), features=False)
    for key in (*MASKS, "text", "node_name"):
        size = len(data[key]) if key in data else data.num_nodes
        if size != data.num_nodes:
            raise ValueError(f"{path}: {key} has {size} entries, the graph has {data.num_nodes} nodes.")
    return data
