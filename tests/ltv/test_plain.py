"""Zero, mean and own past, member by member."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ltv_logs import random_log

from graphfm.data.purchases import DAY
from graphfm.ltv import Forecast, HistoricMean, Mean, Zero, make_task

LOG = random_log(2000, days=200)
HORIZONS = (3, 7, 14)


def task(day, unit="user", **options):
    return make_task(LOG, day * DAY, options.pop("horizons", HORIZONS), unit=unit, who="all", **options)


def test_zero_and_mean():
    train, test = [task(100), task(120)], task(150)
    assert not Zero().fit(train).predict(test).mean.any()
    value = np.concatenate([one.labels.value for one in train])
    found = Mean().fit(train).predict(test)
    np.testing.assert_allclose(found.mean, np.tile(value.mean(axis=0), (len(test.population), 1)))
    np.testing.assert_allclose(found.pay, np.tile((value > 0).mean(axis=0), (len(test.population), 1)))


@pytest.mark.parametrize("unit", ["user", "pair"])
@pytest.mark.parametrize("count_first", [False, True])
def test_own_past_against_a_loop(unit, count_first):
    train, test = [task(100, unit, count_first=count_first)], task(150, unit)
    prior = Mean().fit(train).predict(test)
    method = HistoricMean(prior_days=20).fit(train)
    found = method.predict(test)  # counts as the labels of the fit do
    assert (found.mean == HistoricMean(prior_days=20, count_first=count_first).fit(train).predict(test).mean).all()
    pieces = list(method.stream(test, 9))
    np.testing.assert_array_equal(np.concatenate([one.pay for _, one in pieces]), found.pay)
    assert [len(piece.population) for piece, _ in pieces] == [len(one.mean) for _, one in pieces]
    people, past = test.population, test.past
    for row in range(0, len(people), 7):
        mine = past.user == people.user[row]
        if unit == "pair":
            mine &= past.item == people.item[row]
        if not count_first:
            mine &= past.time != people.first[row]
        spent, bought = max(past.amount[mine].sum(), 0), (past.amount[mine] > 0).sum()
        age = 150 - people.first[row] / DAY
        for k, horizon in enumerate(HORIZONS):
            mean = horizon * (spent + 20 * prior.mean[row, k] / horizon) / (age + 20)
            rate = (bought + 20 * -math.log(1 - prior.pay[row, k]) / horizon) / (age + 20)
            assert found.mean[row, k] == pytest.approx(mean)
            assert found.pay[row, k] == pytest.approx(1 - math.exp(-rate * horizon))


def test_what_is_refused():
    with pytest.raises(ValueError, match="needs tasks with the same horizons"):
        Mean().fit([task(100), task(120, horizons=(3, 7))])
    with pytest.raises(ValueError, match="needs tasks"):
        HistoricMean().fit([])
    with pytest.raises(ValueError, match="needs tasks with labels"):
        Mean().fit([task(100, labelled=False)])
    with pytest.raises(ValueError, match="was fitted for horizons"):
        Mean().fit([task(100)]).predict(task(150, horizons=(3, 7)))
    with pytest.raises(ValueError, match="in the labels of some tasks alone"):
        HistoricMean().fit([task(100), task(120, count_first=True)])
    with pytest.raises(ValueError, match="prior_days must be above 0"):
        HistoricMean(prior_days=0)
    with pytest.raises(ValueError, match="must both be"):
        Forecast(np.ones((2, 3)), np.ones((2, 2)))
