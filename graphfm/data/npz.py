"""A user's own graph from and to an ``.npz`` file. Nothing is unpickled.

The file holds ``edge_index`` ``[2, E]``, and whatever there is of ``x`` ``[N, F]`` (or the parts of a SciPy CSR matrix:
``x_data``, ``x_indices``, ``x_indptr``, ``x_shape``), ``y`` ``[N]`` (numbers, or strings as class names),
``edge_weight`` ``[E]``, ``train_mask``, ``val_mask``, ``test_mask`` ``[N]`` or ``[N, splits]``, and ``num_nodes`` where
nothing else tells it. Lists of strings are kept as ``KEY_utf8`` (bytes) and ``KEY_offsets``, or as a string array.
"""

from __future__ import annotations

import itertools
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphfm.data.checks import check_graph
from graphfm.data.files import encode_labels

__all__ = ["check_kinds", "read_arrays", "read_npz", "save_npz"]

CSR = ("x_data", "x_indices", "x_indptr", "x_shape")
MASKS = ("train_mask", "val_mask", "test_mask")
# Known arrays: kinds of number (as numpy abbreviates them), dimensions, and both in words.
KNOWN: dict[str, tuple[str, tuple[int, ...], str]] = {
    "edge_index": ("iu", (2,), "whole numbers [2, edges]"),
    "x": ("biuf", (2,), "real numbers [nodes, features]"),
    "y": ("biufUT", (1, 2), "numbers or strings [nodes]"),
    "edge_weight": ("biuf", (1,), "real numbers [edges]"),
    "num_nodes": ("iu", (0,), "one whole number"),
    "name": ("UT", (0,), "one string"),
    **{mask: ("b", (1, 2), "booleans [nodes] or [nodes, splits]") for mask in MASKS},
}


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
    check_kinds(arrays, path)
    data = Data.from_dict({key: _value(value, f"{path}: array {key!r}") for key, value in arrays.items()})
    data.edge_index = data.edge_index.long()
    for key in {"x", "edge_weight"} & set(data.keys()):
        data[key] = data[key].float()
    if isinstance(data.get("y"), list):
        data.y, data.label_text = encode_labels(data.y)
    if data.x is None and "num_nodes" not in data:
        data.num_nodes = len(data.y) if "y" in data else int(data.edge_index.max()) + 1 if data.num_edges else 0
    data.name = data.get("name", path.stem)
    return _checked(data, path)


def check_kinds(arrays: dict[str, Any], path: Path) -> None:
    """Refuse known arrays of another kind or shape than the layout says, and names that no attribute can have."""
    for key, value in arrays.items():
        if key.startswith("_") or not key.isidentifier():
            raise ValueError(f"{path}: array {key!r} cannot become an attribute; rename it.")
        kinds, dimensions, words = KNOWN.get(key, ("", (), ""))
        if words and isinstance(value, np.ndarray):
            if value.dtype.kind not in kinds or value.ndim not in dimensions:
                raise ValueError(f"{path}: array {key!r} must hold {words}, got {value.dtype} {list(value.shape)}.")


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
    check_kinds(arrays, path)
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


def _checked(data: Data, path: Path) -> Data:
    check_graph(data, str(path), features=False)
    for key in (*MASKS, "text", "node_name"):
        size = len(data[key]) if key in data else data.num_nodes
        if size != data.num_nodes:
            raise ValueError(f"{path}: {key} has {size} entries, the graph has {data.num_nodes} nodes.")
    return data
