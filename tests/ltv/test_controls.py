"""Controls: degrees are kept and nothing else, payers go and nobody else."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from planted_log import planted_log, small_encoder, tasks

from graphfm.ltv import GRePO
from graphfm.ltv.controls import FewerPayers, RewiredGRePO, fewer_payers, rewired

LOG = planted_log(users=60)
TRAIN, VAL, TEST = tasks(LOG, (50, 64)), tasks(LOG, (78,)), tasks(LOG, (92,))[0]
QUICK = {"width": 8, "epochs": 1}


def test_degrees_are_kept_and_nothing_else():
    graph = TEST.snapshot
    before = {path: graph[path].edge_index.clone() for path in graph.edge_types}
    other = rewired(graph, 3)
    for path in (("user", "like", "user"), ("item", "with", "item")):
        mixed, plain = other[path].edge_index, graph[path].edge_index
        assert torch.equal(plain, before[path])  # the argument is not edited
        assert not torch.equal(mixed, plain)
        for end in (0, 1):
            assert torch.equal(torch.bincount(mixed[end]), torch.bincount(plain[end]))
        assert torch.equal(other[path].edge_weight, graph[path].edge_weight)
        assert torch.equal(mixed, rewired(graph, 3)[path].edge_index)
    assert other["user"].x is graph["user"].x
    assert other["user", "buys", "item"].edge_index is graph["user", "buys", "item"].edge_index
    assert other.cutoff == graph.cutoff


def test_payers_go_and_nobody_else():
    task = TRAIN[0]
    paid = task.labels.value[:, -1] > 0
    less = fewer_payers(task, 0.25, seed=1)
    left = less.labels.value[:, -1] > 0
    assert left.sum() == round(0.25 * paid.sum())
    assert (~left).sum() == (~paid).sum()
    keys = [people.user * 1000 + people.item for people in (task.population, less.population)]
    assert np.isin(keys[1], keys[0]).all()
    assert (np.diff(keys[1]) > 0).all()
    assert len(fewer_payers(task, 1.0).population) == len(task.population)
    assert (fewer_payers(task, 1e-6).labels.value[:, -1] > 0).sum() == 1


def test_as_methods():
    plain = GRePO(**QUICK, graph=small_encoder()).fit(TRAIN, VAL).predict(TEST)
    mixed = RewiredGRePO(**QUICK, graph=small_encoder()).fit(TRAIN, VAL).predict(TEST)
    assert mixed.mean.shape == plain.mean.shape
    assert (mixed.mean != plain.mean).any()
    # Without the graph there is nothing to rewire.
    bare = [kind(**QUICK, graph=False).fit(TRAIN, VAL).predict(TEST).mean for kind in (GRePO, RewiredGRePO)]
    np.testing.assert_array_equal(*bare)
    few = FewerPayers(share=0.1, **QUICK, graph=False).fit(TRAIN, VAL).predict(TEST)
    assert few.pay[:, -1].mean() < 0.7 * GRePO(**QUICK, graph=False).fit(TRAIN, VAL).predict(TEST).pay[:, -1].mean()
    assert {"share", "seed", "device", "graph"} <= set(inspect.signature(FewerPayers).parameters)
    assert "seed" in inspect.signature(RewiredGRePO).parameters


def test_what_is_refused():
    for share in (0, 1.5):
        with pytest.raises(ValueError, match="share must lie"):
            FewerPayers(share=share)
        with pytest.raises(ValueError, match="share must lie"):
            fewer_payers(TEST, share)
    with pytest.raises(ValueError, match="tasks with labels"):
        fewer_payers(tasks(LOG, (50,), labelled=False)[0], 0.5)
