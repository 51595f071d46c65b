"""Graphs from and to networkx and DGL.

An undirected edge is two columns of ``edge_index``, a self-loop one; that is how direction survives a round trip.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from types import ModuleType
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.utils import from_networkx as _pyg_from_networkx
from torch_geometric.utils import to_networkx as _pyg_to_networkx

from graphfm.data.checks import check_graph
from graphfm.data.files import encode_labels

__all__ = ["from_dgl", "from_networkx", "to_dgl", "to_networkx"]


def from_networkx(
    graph: nx.Graph,
    *,
    features: str | Sequence[str] | None = None,
    label: str | None = None,
    weight: str | None = None,
) -> Data:
    """Make a graph of a networkx graph: directed or not, simple or multi.

    Args:
        graph: nodes may have any names; an undirected edge becomes two columns, a self-loop one, and every edge of a
            multigraph its own.
        features: node attributes to join to ``x``; each a number or a vector.
        label: node attribute for ``y``: integers stay, other values are numbered in sorted order of their text (the
            texts are ``label_text``); a node that lacks it gets -1.
        weight: edge attribute for ``edge_weight``; every edge must have it.

    Returns:
        ``edge_index`` ``[2, E]``, ``node_name`` (names in node order, as text), and ``x`` float32 ``[N, F]``, ``y``
        int64 ``[N]``, ``edge_weight`` float32 ``[E]`` as asked for.

    Raises:
        ValueError: an empty graph, an attribute that is missing or no number; names the node or edge.
    """
    if graph.number_of_nodes() == 0:
        raise ValueError("graph is empty: it has no nodes.")
    # PyG wants the same attributes everywhere, so it gets the bare graph and its weights alone.
    bare = graph.__class__()
    bare.add_nodes_from(graph)
    if weight is None:
        bare.add_edges_from(graph.edges)
    else:
        for *edge, attributes in graph.edges(data=True, **({"keys": True} if graph.is_multigraph() else {})):
            bare.add_edge(*edge, edge_weight=_number(attributes.get(weight), weight, f"edge {tuple(edge)}"))
    data = _pyg_from_networkx(bare)
    if weight is not None:
        data.edge_weight = data.get("edge_weight", torch.empty(0)).float()
    if features is not None:
        data.x = _features(graph, [features] if isinstance(features, str) else list(features))
        del data.num_nodes
    if label is not None:
        data.y, names = _labels(graph, label)
        if names:
            data.label_text = names
    data.node_name = [str(node) for node in graph]
    return check_graph(data, "graph", features=False)


def _number(value: Any, attribute: str, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        what = "is missing" if value is None else f"is {value!r}, no number"
        raise ValueError(f"attribute {attribute!r} of {where} {what}; every one needs a number.") from error


def _features(graph: nx.Graph, attributes: list[str]) -> Tensor:
    blocks = []
    for attribute in attributes:
        rows = [_row(graph.nodes[node].get(attribute), attribute, node) for node in graph]
        widths = {row.size for row in rows}
        if len(widths) > 1:
            raise ValueError(
                f"features: attribute {attribute!r} has {sorted(widths)} numbers a node; give it one width."
            )
        blocks.append(np.stack(rows))
    if not blocks:
        raise ValueError("features names no attribute; name one or more, or leave it out.")
    return torch.from_numpy(np.concatenate(blocks, axis=1))


def _row(value: Any, attribute: str, node: Hashable) -> np.ndarray:
    if value is None:
        raise ValueError(f"features: attribute {attribute!r} of node {node!r} is missing; give every node one.")
    try:
        return np.asarray(value, dtype=np.float32).reshape(-1)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"features: attribute {attribute!r} of node {node!r} is {value!r}, which is no number or vector."
        ) from error


def _labels(graph: nx.Graph, label: str) -> tuple[Tensor, list[str]]:
    values = [graph.nodes[node].get(label) for node in graph]
    if all(value is None for value in values):
        raise ValueError(f"label: no node has the attribute {label!r}.")
    return encode_labels(values)


def to_networkx(data: Data, *, directed: bool | None = None) -> nx.Graph:
    """Make a networkx graph.

    Args:
        data: a graph.
        directed: ``None`` decides by the edges: undirected where every edge has its reverse of the same weight.

    Returns:
        A graph on the nodes ``0..N-1``, a multigraph where an edge occurs more than once. Node attributes: ``x``,
        ``y``, ``label`` (the class's name, ``""`` where unknown), ``text``, ``name`` and the masks, where ``data`` has
        them; edge attribute ``weight``.

    Raises:
        ValueError: ``directed`` is false, and an edge has no reverse of the same weight.
    """
    check_graph(data, features=False)
    edges = _edge_rows(data)
    symmetric = np.array_equal(edges, _edge_rows(data, flip=True))
    if directed is False and not symmetric:
        raise ValueError("directed=False, but some edges have no reverse of the same weight; use directed=None.")
    plain = Data(edge_index=data.edge_index, num_nodes=data.num_nodes)
    columns = {"x": "x", "y": "y", "text": "text", "name": "node_name"}
    columns |= {mask: mask for mask in ("train_mask", "val_mask", "test_mask")}
    attributes = [key for key, source in columns.items() if source in data]
    for key in attributes:
        plain[key] = data[columns[key]]
    if data.get("label_text") and "y" in data:
        plain.label = [data.label_text[i] if i >= 0 else "" for i in data.y.reshape(-1).tolist()]
        attributes.append("label")
    weighted = "edge_weight" in data
    if weighted:
        plain.weight = data.edge_weight
    multi = len(np.unique(edges[:, :2], axis=0)) < len(edges)
    undirected = symmetric if directed is None else not directed
    return _pyg_to_networkx(
        plain,
        node_attrs=attributes,
        edge_attrs=["weight"] if weighted else [],
        # Of the two columns of an undirected edge the upper one makes the edge.
        to_undirected="upper" if undirected else False,
        to_multi=multi,
    )


def _edge_rows(data: Data, *, flip: bool = False) -> np.ndarray:
    """Sorted rows (source, target, weight), or with the ends exchanged."""
    ends = data.edge_index.cpu().numpy().astype(np.float64)
    weight = data.get("edge_weight")
    weights = np.ones(ends.shape[1]) if weight is None else weight.detach().cpu().numpy().reshape(-1)
    rows = np.stack([*(ends[::-1] if flip else ends), weights], axis=1)
    return rows[np.lexsort(rows.T[::-1])]


def _dgl() -> ModuleType:
    try:
        import dgl
    except ImportError as error:
        raise ImportError(
            "DGL graphs need the extra 'dgl' (Python below 3.12): pip install 'graphfm[dgl]'. "
            f"Importing it said: {error}."
        ) from error
    return dgl


# PyG's own converters lose isolated nodes of both kinds of graph and the edge data of heterogeneous ones.
def from_dgl(
    graph: Any, *, features: str | None = None, label: str | None = None, weight: str | None = None
) -> Data | HeteroData:
    """Make a graph of a DGL graph; several node or edge types give a ``HeteroData`` with the same types.

    All node and edge tensors are kept under their names; the three below are renamed. Where they are not given, the
    names that DGL's own datasets use are taken if they are there: ``"feat"``, ``"label"``, ``"weight"``.

    Args:
        graph: a ``dgl.DGLGraph``.
        features: node data that becomes ``x``.
        label: node data that becomes ``y``.
        weight: edge data that becomes ``edge_weight``.

    Raises:
        ImportError: DGL is not installed.
        ValueError: no DGL graph, or data of a given name is nowhere.
    """
    dgl = _dgl()
    if not isinstance(graph, dgl.DGLGraph):
        raise ValueError(f"graph must be a dgl.DGLGraph, got {type(graph).__name__}.")
    nodes = {features or "feat": "x", label or "label": "y"}
    edges = {weight or "weight": "edge_weight"}
    present = {key for kind in graph.ntypes for key in graph.nodes[kind].data}
    present |= {key for kind in graph.canonical_etypes for key in graph.edges[kind].data}
    for argument, key in {"features": features, "label": label, "weight": weight}.items():
        if key is not None and key not in present:
            raise ValueError(f"{argument} names {key!r}, but the graph has {sorted(present) or 'no data'}.")
    homogeneous = len(graph.ntypes) == 1 and len(graph.canonical_etypes) == 1
    data = Data() if homogeneous else HeteroData()
    for kind in graph.ntypes:
        store = data if homogeneous else data[kind]
        store.num_nodes = graph.num_nodes(kind)
        for key, value in graph.nodes[kind].data.items():
            store[nodes.get(key, key)] = value
    for kind in graph.canonical_etypes:
        store = data if homogeneous else data[kind]
        store.edge_index = torch.stack(graph.edges(form="uv", order="eid", etype=kind)).long()
        for key, value in graph.edges[kind].data.items():
            store[edges.get(key, key)] = value
    return data


def to_dgl(data: Data | HeteroData) -> Any:
    """Make a DGL graph; a ``HeteroData`` keeps its node and edge types.

    ``x``, ``y``, ``edge_weight`` become ``"feat"``, ``"label"``, ``"weight"``; other tensors of nodes and edges keep
    their names. What is no tensor of nodes or edges (names, texts) has no place in a DGL graph and is left behind.

    Raises:
        ImportError: DGL is not installed.
        ValueError: neither a ``Data`` nor a ``HeteroData``, or a graph without edge types.
    """
    dgl = _dgl()
    if isinstance(data, HeteroData):
        if not data.edge_types:
            raise ValueError("data has no edge types; DGL needs at least one.")
        ends = {kind: tuple(data[kind].edge_index) for kind in data.edge_types}
        graph = dgl.heterograph(ends, num_nodes_dict={kind: data[kind].num_nodes for kind in data.node_types})
        for kind in data.node_types:
            _fill(graph.nodes[kind].data, data[kind], data[kind].num_nodes)
        for kind in data.edge_types:
            _fill(graph.edges[kind].data, data[kind], data[kind].num_edges)
        return graph
    if not isinstance(data, Data):
        raise ValueError(f"data must be a Data or HeteroData, got {type(data).__name__}.")
    check_graph(data, features=False)
    graph = dgl.graph(tuple(data.edge_index), num_nodes=data.num_nodes)
    _fill(graph.ndata, {key: data[key] for key in data.node_attrs()}, data.num_nodes)
    _fill(graph.edata, {key: data[key] for key in data.edge_attrs()}, data.num_edges)
    return graph


def _fill(target: Any, source: Any, rows: int) -> None:
    """Copy tensors with one row a node or an edge."""
    names = {"x": "feat", "y": "label", "edge_weight": "weight"}
    for key, value in source.items():
        if key != "edge_index" and isinstance(value, Tensor) and value.dim() and value.size(0) == rows:
            target[names.get(key, key)] = value
