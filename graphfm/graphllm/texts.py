"""Texts of nodes and classes, the graph between the nodes, and what a method is allowed to see of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import remove_self_loops

from graphfm.data.checks import check_graph, check_labels
from graphfm.data.words import as_text
from graphfm.joined import undirected
from graphfm.nn import Adjacency

if TYPE_CHECKING:
    from graphfm.data.splits import Split
    from graphfm.graphllm.backends.base import TextEncoder

__all__ = [
    "adjacency",
    "as_tag",
    "asked_of",
    "class_texts",
    "encode_together",
    "node_texts",
    "num_classes",
    "only_labels_of",
    "readable",
    "without_labels",
]

_SAID = ("text", "description", "label_text", "label_description", "name")
_SEEN = (*_SAID, "edge_index", "edge_weight", "x", "num_nodes")


def as_tag(data: Data, name: str = "data", *, descriptions: bool = True) -> Data:
    """Check a graph with text and give every class a name.

    Args:
        data: the graph, with ``text`` and ``y``.
        name: the argument's name, for messages.
        descriptions: keep what describes the classes; False leaves their names alone.

    Returns:
        A shallow copy with ``label_text`` and ``label_description`` (``""`` where there is none) for every class.

    Raises:
        TypeError: no PyG ``Data``.
        ValueError: no texts or labels, or lengths that do not match.
    """
    check_graph(data, name, features=False)
    texts = node_texts(data, name)
    y = check_labels(data.get("y"), f"{name}.y")
    if len(texts) != y.numel():
        raise ValueError(f"{name}.text has {len(texts)} entries, {name}.y has {y.numel()}; they must be equal.")
    classes = int(y.max()) + 1
    names = [str(label) for label in data.get("label_text") or [f"class {c}" for c in range(classes)]]
    if len(names) < classes:
        raise ValueError(f"{name}.label_text names {len(names)} classes, {name}.y holds class {classes - 1}.")
    about = [as_text(text) for text in data.get("label_description") or []]
    if about and len(about) != len(names):
        raise ValueError(f"{name}.label_description has {len(about)} entries, {name}.label_text {len(names)}.")
    found = _shallow(data)
    found.text, found.y = texts, y
    found.label_text = names
    found.label_description = about if about and descriptions else [""] * len(names)
    return found


def node_texts(data: Data, name: str = "data") -> list[str]:
    """The texts of the nodes, ``""`` for a missing one.

    Raises:
        ValueError: no texts, or not one a node.
    """
    texts = data.get("text")
    if texts is None:
        raise ValueError(
            f"{name}.text is missing; give one string a node, or load a graph with text (tag/..., debian)."
        )
    if isinstance(texts, str) or len(texts) != data.num_nodes:
        raise ValueError(f"{name}.text must hold one string for each of {data.num_nodes} nodes.")
    return [as_text(text) for text in texts]


def class_texts(data: Data) -> list[str]:
    """``"name. description"`` of every class, in order; the name alone where there is no description."""
    names = readable(data.label_text)
    about = data.get("label_description") or [""] * len(names)
    return [f"{name}. {text}".strip() if text else name for name, text in zip(names, about, strict=True)]


def readable(labels: Sequence[str]) -> list[str]:
    """Class names as a prompt writes them: a space where a name has an underscore."""
    return [str(label).replace("_", " ") for label in labels]


def num_classes(data: Data) -> int:
    """Number of classes C: those that have a name, whether or not a label is seen of each."""
    return len(data.label_text) if data.get("label_text") else int(data.y.max()) + 1


def only_labels_of(data: Data, split: Split) -> Data:
    """A shallow copy with the labels of training and validation nodes alone; all others are -1."""
    seen = torch.cat([split.train, split.val])
    found = without_labels(data)
    found.y = torch.full_like(data.y, -1).index_copy(0, seen, data.y[seen])
    return found


def without_labels(data: Data, asked: Tensor | None = None) -> Data:
    """A shallow copy with texts, edges, features and what is said of the classes: no labels, no masks, nothing else.

    Args:
        data: the graph.
        asked: nodes that are asked about, of which :func:`asked_of` tells; the scores of others are not looked at.
    """
    found = Data.from_dict({key: data[key] for key in _SEEN if key in data} | {"num_nodes": data.num_nodes})
    if asked is not None:
        found.asked = asked
    return found


def asked_of(data: Data) -> Tensor:
    """The nodes that are asked about ``[M]``, each once; all of them where nothing is said.

    For methods that pay by the node, such as those that ask a language model: rows of others may be NaN.
    """
    asked = data.get("asked")
    return torch.arange(int(data.num_nodes or 0)) if asked is None else asked.unique()


def adjacency(data: Data, device: torch.device | str = "cpu") -> Adjacency:
    """The graph as undirected, without self-loops (layers add their own)."""
    edge_index, weight = remove_self_loops(*undirected(data))
    return Adjacency.from_edges(edge_index, int(data.num_nodes or 0), weight).to(device)


def encode_together(encoder: TextEncoder, *groups: Sequence[str]) -> list[Tensor]:
    """Vectors ``[n, D]`` of each group of texts, encoded in one call, so that all of them can be compared."""
    vectors = encoder.encode([text for group in groups for text in group])
    return list(vectors.split([len(group) for group in groups]))


def _shallow(data: Data) -> Data:
    return Data.from_dict(data.to_dict())
