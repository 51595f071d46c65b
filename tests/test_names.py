"""Names on the command line, randomness and devices."""

import sys
import types

import pytest
import torch

from graphfm import backbones, names
from graphfm.device import as_device
from graphfm.rng import isolated_rng


def test_a_name_is_found_in_any_case():
    assert names.find("backbones", "FAGCN") is names.find("backbones", "fagcn") is backbones.FAGCN


def test_a_class_of_ones_own_is_found(monkeypatch):
    module = types.ModuleType("my_layers")
    module.Mine = object()
    monkeypatch.setitem(sys.modules, "my_layers", module)
    assert names.find("backbones", "my_layers:Mine") is module.Mine
    with pytest.raises(ValueError, match="module my_layers has no Yours"):
        names.find("backbones", "my_layers:Yours")
    with pytest.raises(ImportError, match=r"not_there:Mine: .*write it as module:Name"):
        names.find("backbones", "not_there:Mine")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"no 'FAGNC'\. Did you mean FAGCN\? There are: .*FAGCN, GAT, GCN"):
        names.find("backbones", "FAGNC")
    with pytest.raises(ValueError, match=r"no 'zzzz'\. There are"):
        names.find("backbones", "zzzz")


def test_what_is_imported_but_not_exported_is_not_found():
    with pytest.raises(ValueError, match="backbones has no 'fagcn_'"):
        names.find("backbones", "fagcn_")
    with pytest.raises(ValueError, match="objectives has no 'nt_xent'"):
        names.find("objectives", "nt_xent")


def test_a_seeded_block_leaves_the_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with isolated_rng(1):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with isolated_rng(1), pytest.raises(KeyError):  # errors do not matter
        assert torch.equal(torch.rand(3), first)
        raise KeyError
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), first)


def test_a_seeded_block_on_the_cpu_seeds_no_gpu(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    with isolated_rng(1):
        pass
    assert seeded == []


@pytest.mark.cuda
def test_a_seeded_block_on_the_gpu():
    torch.cuda.manual_seed(7)
    before = torch.cuda.get_rng_state()
    draws = []
    for _ in range(2):
        with isolated_rng(1, "cuda"):
            draws.append(torch.rand(3, device="cuda"))
    assert torch.equal(*draws)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_devices():
    assert as_device(None) == as_device("cpu") == torch.device("cpu")
    for bad in ("gpu", 1.5):
        with pytest.raises(ValueError, match="device must be like 'cpu'"):
            as_device(bad)


def test_a_missing_gpu_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="use device='cpu'"):
        as_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert as_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(ValueError, match=r"'cuda:3', but torch .* sees 1 CUDA device"):
        as_device("cuda:3")


def test_an_object_by_its_name_and_literals():
    made = names.make("backbones", "GCN(num_layers=3, norm='BatchNorm')", 5, 7)
    assert (made.in_channels, made.hidden_channels, made.num_layers, made.norm) == (5, 7, 3, "BatchNorm")
    assert names.make("samplers", "RandomWalks(batch_size=4)", batch_size=9).batch_size == 4
    assert names.make("samplers", "randomwalks", batch_size=9).batch_size == 9


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("GCN(colour='red')", r"GCN\(colour='red'\): .*colour.*write it like GCN or GCN\(key=value\)"),
        ("GCN(num_layers=__import__('os'))", "malformed node"),
        ("GCN(3)", "give arguments by name"),
        ("GCN(num_layers=3", "never closed"),
        ("GCN(num_layers=3)(4)", "more than one pair"),
        ("GCN(**{})", "is no literal"),
        ("GCN(num_layers=0)", "num_layers"),
    ],
)
def test_what_cannot_be_made_says_so(text, match):
    with pytest.raises(ValueError, match=match):
        names.make("backbones", text, 5, 7)
