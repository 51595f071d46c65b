"""Published settings name where they were published, and are settings of the method."""

import inspect

import pytest
import torch
from planted import WordVectors

from graphfm.graphllm.catalogue import methods
from graphfm.graphllm.choose import points
from graphfm.graphllm.classical import LMHead

OURS = methods()


def arguments(kind):
    found = set()
    for base in inspect.getmro(kind):
        if "__init__" in vars(base):
            found |= set(inspect.signature(base.__init__).parameters)
    return found


@pytest.mark.parametrize("name", OURS)
def test_where_it_was_published_is_said(name):
    kind = OURS[name]
    assert set(kind.grid) | set(kind.published) <= arguments(kind)
    if kind.published:
        said = next(base for base in inspect.getmro(kind) if "published" in vars(base)).__doc__
        assert "Published settings: " in " ".join(said.split())
    for setting in points(kind, "published"):
        assert set(setting) == set(kind.published)


def test_a_head_is_one_linear_map():
    network = LMHead(WordVectors()).make(24, 4)
    assert [tuple(weight.shape) for weight in network.parameters()] == [(4, 24), (4,)]
    with pytest.raises(TypeError, match="layers"):
        LMHead(WordVectors(), layers=2)
    x = torch.randn(3, 24)
    slow = x @ next(network.parameters()).t()
    assert torch.allclose(network.eval()(x, None) - slow, list(network.parameters())[1].expand(3, 4), atol=1e-6)
