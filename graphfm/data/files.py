"""A user's own graph from tables: ``edges.csv`` and ``nodes.csv``.

``edges.csv`` has the columns ``source``, ``target`` and perhaps ``weight``, one directed edge a line (undirected:
list both directions, or apply ``torch_geometric.transforms.ToUndirected``). ``nodes.csv`` has ``id`` and perhaps
``label``, ``text`` and columns of numbers, which become the features. Ids may be any strings.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.data.checks import check_graph

__all__ = ["encode_labels", "read_csv"]


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
    return check_graph(data, str(edges), features=False)


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
