"""Forecasts, and the table made of them."""

from __future__ import annotations

import numpy as np
import pytest
from ltv_logs import random_log

from graphfm.data.purchases import DAY
from graphfm.ltv import Forecast, Mean, make_task
from graphfm.ltv.table import as_columns

LOG = random_log(2000, days=200)


def task(unit="user"):
    return make_task(LOG, 100 * DAY, (3, 7), unit=unit, who="all")


@pytest.mark.parametrize("unit", ["user", "pair"])
def test_a_row_a_member_and_horizon(unit):
    pytest.importorskip("pandas")
    one = task(unit)
    people, size = one.population, len(one.population)
    rng = np.random.default_rng(0)
    quantiles = rng.random((size, 2, 2)).cumsum(axis=2)
    forecast = Forecast(rng.random((size, 2)), rng.random((size, 2)), quantiles, (0.1, 0.975))
    table = forecast.table(one)
    named = ["user"] if unit == "user" else ["user", "item"]
    assert list(table.columns) == [*named, "horizon", "pay", "mean", "q10", "q97.5"]
    assert len(table) == 2 * size
    for row in (0, 1, 2 * size - 1):
        member, horizon = divmod(row, 2)
        found = table.iloc[row]
        assert found["user"] == LOG.users[people.user[member]]
        if unit == "pair":
            assert found["item"] == LOG.items[people.item[member]]
        assert found["horizon"] == (3, 7)[horizon]
        assert found["mean"] == forecast.mean[member, horizon]
        assert found["pay"] == forecast.pay[member, horizon]
        assert found["q97.5"] == quantiles[member, horizon, 1]


def test_without_quantiles():
    one = task()
    assert list(as_columns(Mean().fit([one], [one]).predict(one), one)) == ["user", "horizon", "pay", "mean"]


def test_what_is_refused():
    some = np.ones((3, 2))
    with pytest.raises(ValueError, match="give the task that was predicted"):
        as_columns(Forecast(some, some), task())
    for quantiles, levels, text in (
        (None, (0.5,), "quantiles must be"),
        (some[..., None], (), "quantiles must be"),
        (some[..., None], (0.5, 0.9), "quantiles must be"),
        (np.ones((3, 2, 2)), (0.5, 0.5), "must rise"),
        (some[..., None], (1.0,), "lie between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=text):
            Forecast(some, some, quantiles, levels)
