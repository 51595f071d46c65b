"""LTV has no graph layers of its own: they come from the backbones, through pretraining and embedding."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import graphfm.ltv

FILES = sorted(Path(graphfm.ltv.__file__).parent.glob("*.py"))
FORBIDDEN = ("MessagePassing", "scatter", "spmm", "segment", "index_add", "propagate")


def names_in(source):
    """Names and attributes that a file uses or imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def offences(source):
    return [name for name in names_in(source) if name.endswith("Conv") or any(word in name for word in FORBIDDEN)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_message_passing(path):
    assert offences(path.read_text()) == []


def test_it_would_be_seen():
    assert offences("from torch_geometric.nn import SAGEConv") == ["SAGEConv"]
    assert offences("import torch_scatter\nx.scatter_add_(0, i, y)") == ["torch_scatter", "scatter_add_"]
