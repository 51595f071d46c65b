"""Tasks: their snapshot, and some of their members."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from ltv_logs import random_log

from graphfm.data.purchase_snapshot import snapshot
from graphfm.data.purchases import DAY
from graphfm.ltv import Mean, make_task

LOG = random_log(2000, days=200)


def task(day=100, unit="pair"):
    return make_task(LOG, day * DAY, (3, 7), unit=unit, who="active", days=30)


def test_the_snapshot_is_that_of_the_past_and_made_once():
    one = task()
    assert one.snapshot is one.snapshot
    expected = snapshot(LOG, 100 * DAY)
    assert torch.equal(one.snapshot["user"].x, expected["user"].x)
    buys = one.snapshot["user", "buys", "item"].edge_index[:, torch.from_numpy(one.population.row)]
    np.testing.assert_array_equal(buys.numpy(), np.stack([one.population.user, one.population.item]))
    other = snapshot(LOG, 100 * DAY, windows=(5,))
    assert dataclasses.replace(one, graph=other).snapshot is other
    with pytest.raises(ValueError, match="make both for one cutoff"):
        dataclasses.replace(one, graph=snapshot(LOG, 101 * DAY))


@pytest.mark.parametrize("unit", ["user", "pair"])
@pytest.mark.parametrize("rows", [slice(2, 9), np.array([0, 3, 11])])
def test_some_members(unit, rows):
    whole = task(unit=unit)
    graph = whole.snapshot
    part = whole.part(rows)
    assert part.snapshot is graph
    for name in ("user", "first", "row"):
        np.testing.assert_array_equal(getattr(part.population, name), getattr(whole.population, name)[rows])
    assert (part.population.item is None) == (unit == "user")
    np.testing.assert_array_equal(part.labels.value, whole.labels.value[rows])
    assert len(Mean().fit([whole]).predict(part)) == len(part.population)
    assert make_task(LOG, 100 * DAY, (3,), unit=unit, who="all", labelled=False).part(slice(1)).labels is None
