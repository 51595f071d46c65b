"""A user's own graph with text from JSON lines: ``nodes.jsonl`` and ``edges.jsonl`` (for CSV see ``load``)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data

from graphfm.data.checks import check_graph
from graphfm.data.files import encode_labels
from graphfm.data.words import as_text

__all__ = ["read_jsonl"]


def read_jsonl(
    nodes: str | os.PathLike[str],
    edges: str | os.PathLike[str],
    *,
    descriptions: dict[str, str] | None = None,
) -> Data:
    """Read a graph with text from two files of one JSON object a line.

    A node has ``id`` (a string or a number), ``text`` and perhaps ``label``, a number or a string; null or nothing
    means unknown. An edge has ``source`` and ``target``, ids of nodes, and perhaps ``weight``; edges are directed as
    listed.

    Args:
        nodes: file of nodes.
        edges: file of edges.
        descriptions: what the class of each label is about, by label.

    Returns:
        The graph with ``text``, ``node_name``, ``y`` and ``label_text`` where there are labels, ``edge_weight`` where
        there are weights.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a line that is no object, a missing field, an unknown or repeated id; names file and line.
    """
    nodes, edges = Path(nodes), Path(edges)
    lines = _lines(nodes, ("id", "text"))
    place: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if place.setdefault(str(line["id"]), len(place)) != number - 1:
            raise ValueError(f"{nodes}, line {number}: id {line['id']!r} is there twice; ids must differ.")
    data = Data(num_nodes=len(lines))
    data.text = [as_text(line["text"]) for line in lines]
    data.node_name = list(place)
    if any(line.get("label") is not None for line in lines):
        data.y, names = encode_labels([line.get("label") for line in lines])
        if names:
            data.label_text = names
            data.label_description = [(descriptions or {}).get(name, "") for name in names]
    pairs = _lines(edges, ("source", "target"))
    data.edge_index = torch.tensor(
        [_ends(pairs, "source", place, edges, nodes), _ends(pairs, "target", place, edges, nodes)], dtype=torch.long
    )
    if any("weight" in pair for pair in pairs):
        data.edge_weight = torch.tensor([_weight(pair, edges, i) for i, pair in enumerate(pairs, start=1)])
    data.name = nodes.stem if nodes.stem != "nodes" else nodes.resolve().parent.name
    return check_graph(data, str(nodes), features=False)


def _ends(pairs: Sequence[dict[str, Any]], key: str, place: dict[str, int], edges: Path, nodes: Path) -> list[int]:
    for number, pair in enumerate(pairs, start=1):
        if str(pair[key]) not in place:
            raise ValueError(f"{edges}, line {number}: {key} {pair[key]!r} is no id of {nodes}; add it there.")
    return [place[str(pair[key])] for pair in pairs]


def _weight(pair: dict[str, Any], edges: Path, number: int) -> float:
    try:
        return float(pair["weight"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{edges}, line {number}: weight must be a number on every line or on none.") from error


def _lines(path: Path, needed: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    with path.open(encoding="utf-8-sig") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is no JSON: {error}.") from error
            if not isinstance(line, dict) or any(key not in line for key in needed):
                wanted = " and ".join(repr(key) for key in needed)
                raise ValueError(f"{path}, line {number}: expected an object with {wanted}, got {text.strip()[:60]}.")
            found.append(line)
    return found
