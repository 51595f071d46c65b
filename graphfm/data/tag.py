"""Graphs whose nodes carry text: one folder of three files, and features made of the text.

The folder holds ``graph.npz`` (``edge_index`` ``[2, E]``, and where there are any ``y`` ``[N]``, ``x`` ``[N, F]``,
``train_mask``, ``val_mask``, ``test_mask``), ``texts.jsonl.gz`` (one JSON object a line, in node order, with ``id`` and
``text``, perhaps ``name``) and ``meta.json`` (``label_names`` and ``label_descriptions``).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from graphfm.data.checks import check_graph
from graphfm.data.npz import check_kinds, read_arrays
from graphfm.data.words import as_text

__all__ = ["read_tag", "text_features"]


def text_features(texts: Sequence[str], dim: int = 128, seed: int = 0) -> np.ndarray:
    """Dense features of texts: TF-IDF (sublinear, English stop words dropped), then a truncated SVD.

    The source is latent semantic analysis (Deerwester et al., 1990). The same texts give the same numbers. Where the
    texts have fewer than ``dim`` dimensions, the last columns are zero, so that the width does not depend on them.

    Args:
        texts: one string a node; an empty one gives a row of zeros.
        dim: number of columns.
        seed: of the randomised SVD.

    Returns:
        float32 ``[N, dim]``.

    Raises:
        ValueError: no text holds a word.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from threadpoolctl import threadpool_limits

    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english", max_features=20_000, dtype=np.float32)
    try:
        terms = vectorizer.fit_transform(texts)
    except ValueError as error:
        raise ValueError(f"texts hold no word to make features of ({len(texts)} texts given).") from error
    # The randomised solver cannot give more components than there are words, nor useful ones beyond the rows.
    rank = min(dim, *terms.shape)
    x = np.zeros((len(texts), dim), dtype=np.float32)
    # Sums are split by thread, so their last bits depend on how many there are: one gives the same bits everywhere.
    with threadpool_limits(1):
        x[:, :rank] = TruncatedSVD(rank, n_iter=7, random_state=seed).fit_transform(terms)
    return x


def read_tag(folder: Path, name: str) -> Data:
    """Read one folder of the layout above.

    Args:
        folder: the folder.
        name: what to write to ``.name``.

    Returns:
        The graph with ``text`` (list of str, by node), ``label_text`` and ``label_description`` (by class), ``y``,
        masks and node names where the files have them, and ``x``: the file's, else ``text_features`` 128 wide.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file cannot be read, or the files do not match one another.
    """
    for file in ("graph.npz", "texts.jsonl.gz", "meta.json"):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} has no {file}; a text graph is graph.npz, texts.jsonl.gz, meta.json.")
    arrays = read_arrays(folder / "graph.npz")
    lines = _lines(folder / "texts.jsonl.gz")
    meta = _json(folder / "meta.json")
    if "edge_index" not in arrays:
        raise ValueError(f"{folder / 'graph.npz'}: array 'edge_index' [2, edges] is missing.")
    check_kinds(arrays, folder / "graph.npz")
    if "y" in arrays and arrays["y"].dtype.kind not in "iu":
        raise ValueError(f"{folder / 'graph.npz'}: array 'y' must hold class numbers, got {arrays['y'].dtype}.")
    texts = [as_text(line["text"]) for line in lines]
    data = Data()
    for key, value in arrays.items():
        data[key] = torch.from_numpy(value.astype(np.float32) if key == "x" else value)
    data.edge_index = data.edge_index.long()
    if data.y is not None:
        data.y = data.y.long()
    if data.x is None:
        data.x = torch.from_numpy(text_features(texts))
    data.text = texts
    if all("name" in line for line in lines):
        data.node_name = [str(line["name"]) for line in lines]
    data.label_text = [str(label) for label in meta.get("label_names", [])]
    data.label_description = [as_text(text) for text in meta.get("label_descriptions", [])]
    data.name = name
    _check(data, folder)
    return data


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}; it must be gzip of one JSON object a line.") from error
    for number, line in enumerate(lines):
        if not isinstance(line, dict) or "text" not in line or line.get("id", number) != number:
            raise ValueError(
                f"{path}, line {number + 1}: expected an object with 'text' and 'id' {number}, got {str(line)[:60]}."
            )
    return lines


def _json(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}.") from error
    if not isinstance(meta, dict):
        raise ValueError(f"{path} must hold one JSON object, got {type(meta).__name__}.")
    return meta


def _check(data: Data, folder: Path) -> None:
    check_graph(data, str(folder))
    for key in ("train_mask", "val_mask", "test_mask"):
        if key in data and data[key].size(0) != data.num_nodes:
            raise ValueError(f"{folder}: {key} has {data[key].size(0)} entries, {data.num_nodes} texts are given.")
    named = len(data.label_text)
    if data.y is not None and named and int(data.y.max()) >= named:
        raise ValueError(f"{folder}: y holds class {int(data.y.max())}, meta.json names {named} classes.")
