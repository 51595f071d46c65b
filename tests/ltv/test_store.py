"""Models in folders: the same to the last bit, whole or refused, and clear about what differs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_log import planted_log, small_encoder, tasks

from graphfm.bundle import CheckpointError
from graphfm.data.purchase_snapshot import snapshot
from graphfm.data.purchases import Purchases
from graphfm.ltv import GRePO, MonotoneHead

LOG = planted_log(users=60)
TRAIN, TEST = tasks(LOG, (50, 64)), tasks(LOG, (92,))[0]
QUICK = {"width": 8, "epochs": 1, "batch_size": 128}


@pytest.mark.parametrize(
    "options",
    [
        {"graph": small_encoder(), "combine": "EPO"},
        {"graph": False, "item_embedding": True, "head": "ZILNHead", "levels": (0.05, 0.95), "layers": 3},
    ],
    ids=["graph", "items"],
)
def test_the_same_to_the_last_bit(tmp_path, options):
    model = GRePO(**QUICK, **options).fit(TRAIN)
    assert model.save(tmp_path) == tmp_path
    again = GRePO.load(tmp_path)
    one, other = model.predict(TEST), again.predict(TEST)
    for name in ("pay", "mean", "quantiles"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert again.levels == model.levels
    assert again.history == json.loads(json.dumps(model.history))
    assert again.fingerprint == model.fingerprint
    again.save(tmp_path)  # once more over the first
    np.testing.assert_array_equal(GRePO.load(tmp_path).predict(TEST).mean, one.mean)
    assert len(list(tmp_path.iterdir())) == 2
    stored = json.loads((tmp_path / "ltv.json").read_text())["settings"]
    assert stored["columns"]["horizons"] == [3.0, 7.0, 14.0]
    assert stored["versions"]["graphfm"]
    assert stored["combined_by"] == ("EPO" if "combine" in options else "WeightedSum")


def test_names_of_items_in_every_script(tmp_path):
    names = np.array(["žába", "日本", "x" * 40, "a"])[LOG.item % 4]
    log = Purchases.from_arrays(LOG.user, names, LOG.time, LOG.amount)
    model = GRePO(**QUICK, graph=False, item_embedding=True).fit(tasks(log, (50,)))
    again = GRePO.load(model.save(tmp_path))
    assert again.vocabulary.names.tolist() == sorted(set(names.tolist()))
    task = tasks(log, (92,))[0]
    np.testing.assert_array_equal(again.predict(task).mean, model.predict(task).mean)


def test_other_logs_have_other_fingerprints():
    prints = {
        GRePO(**QUICK, graph=False).fit(made).fingerprint
        for made in (TRAIN, TRAIN, TRAIN[:1], tasks(planted_log(users=60, seed=1), (50, 64)))
    }
    assert len(prints) == 3


def test_other_columns_are_named(tmp_path):
    loaded = GRePO.load(GRePO(**QUICK, graph=False).fit(TRAIN).save(tmp_path))
    other = replace(TEST, graph=snapshot(LOG, TEST.population.cutoff, windows=(3, 7, 14)))
    with pytest.raises(ValueError, match="user features without purchases_30d, spent_30d and with purchases_14d"):
        loaded.predict(other)
    with pytest.raises(ValueError, match=r"horizons: \(3.0, 7.0\) in the place of \(3.0, 7.0, 14.0\)"):
        loaded.predict(tasks(LOG, (92,), horizons=(3, 7))[0])
    bare = Purchases.from_arrays(LOG.user, None, LOG.time, LOG.amount)
    with pytest.raises(ValueError, match="unit: 'user' in the place of 'pair'"):
        loaded.predict(tasks(bare, (92,), unit="user")[0])
    graph = snapshot(LOG, TEST.population.cutoff)
    graph["user"].feature_names = graph["user"].feature_names[::-1]
    with pytest.raises(ValueError, match="user features in another order"):
        loaded.predict(replace(TEST, graph=graph))


def test_damaged_and_foreign_folders(tmp_path):
    model = GRePO(**QUICK, graph=False).fit(TRAIN)
    model.save(tmp_path)
    file = tmp_path / "ltv.json"
    text = file.read_text()
    file.write_text(text.replace('"width": 8', '"width": 9'))
    with pytest.raises(CheckpointError, match="was changed since"):
        GRePO.load(tmp_path)
    file.write_text(text)
    weights = next(tmp_path.glob("*.safetensors"))
    blob = weights.read_bytes()
    weights.write_bytes(blob[:-1])
    with pytest.raises(CheckpointError, match="the copy is damaged"):
        GRePO.load(tmp_path)
    weights.write_bytes(blob)
    assert GRePO.load(tmp_path).predict(TEST).mean.shape == (len(TEST.population), 3)
    with pytest.raises(CheckpointError, match=r"holds no ltv\.json"):
        GRePO.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    "lie",
    [("arguments", "width", 10**9), ("arguments", "layers", 10**6), ("head", None, "Linear"), ("features", None, 3)],
)
def test_settings_that_lie(tmp_path, lie):
    from graphfm.bundle import read_bundle, write_bundle

    settings, tensors = read_bundle(GRePO(**QUICK, graph=False).fit(TRAIN).save(tmp_path), "ltv")
    where, key, value = lie
    if key is None:
        settings[where] = value
    else:
        settings[where][key] = value
    write_bundle(tmp_path, "ltv", settings, tensors)
    with pytest.raises(CheckpointError):
        GRePO.load(tmp_path)


def test_what_cannot_be_saved(tmp_path):
    class Mine(MonotoneHead):
        pass

    with pytest.raises(RuntimeError, match="call fit first"):
        GRePO(graph=False).save(tmp_path)
    with pytest.raises(ValueError, match="head Mine is not one of"):
        GRePO(**QUICK, graph=False, head=Mine).fit(TRAIN).save(tmp_path)
    assert not any(tmp_path.iterdir())
    assert torch.get_default_dtype() == torch.float32
