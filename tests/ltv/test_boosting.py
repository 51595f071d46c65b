"""Boosted trees: what they learn, what stops them, what they refuse, and that they are saved whole."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ltv_logs import random_log

from graphfm.bundle import CheckpointError
from graphfm.data.purchases import DAY, Purchases
from graphfm.ltv import Tweedie, TwoStage, ltv_scores, make_task
from graphfm.ltv.boosting import Trees, boost
from graphfm.ltv.tabular import Tabular
from graphfm.ltv.tweedie import _dispersion, _pay

pytest.importorskip("lightgbm")

HORIZONS = (3, 14)
QUICK = {"rounds": 30, "least": 5, "rate": 0.05}


def faithful_log(users=300, days=120, seed=0):
    """Users differ in how often they come and what they pay; items do not matter."""
    rng = np.random.default_rng(seed)
    rate, price = rng.gamma(0.5, 0.3, users), rng.lognormal(2, 1, users)
    count = rng.poisson(rate * days) + 1
    user = np.repeat(np.arange(users), count)
    amount = price[user] * rng.lognormal(0, 0.3, len(user))
    return Purchases.from_arrays(user, rng.integers(0, 30, len(user)), rng.integers(0, days * DAY, len(user)), amount)


LOG = faithful_log()


def task(day, unit="user", log=LOG, **options):
    return make_task(log, day * DAY, options.pop("horizons", HORIZONS), unit=unit, who="all", **options)


@pytest.mark.parametrize("method", [TwoStage, Tweedie])
@pytest.mark.parametrize("neighbours", [False, True])
def test_learns_who_pays_and_how_much(method, neighbours):
    test = task(100)
    made = method(neighbours=neighbours, **QUICK).fit([task(40), task(60)], [task(80)])
    found = made.predict(test)
    value = test.labels.value
    assert ((found.pay >= 0) & (found.pay <= 1)).all()
    assert (found.mean >= 0).all()
    for k in range(2):
        scores = ltv_scores(found.mean[:, k], value[:, k], found.pay[:, k])
        assert scores["gini"] > 0.5
        # Tweedie sorts by the mean alone, and big spenders come no more often than others.
        assert scores["auc"] > (0.75 if method is TwoStage else 0.65)
        assert 0.6 < scores["bias"] < 1.6
        assert found.pay[:, k].mean() == pytest.approx(scores["payers"], rel=0.4)


@pytest.mark.parametrize("method", [TwoStage, Tweedie])
def test_a_seed_repeats_and_another_differs(method):
    train, test = [task(40), task(60)], task(100)
    one, same, other = (method(seed=seed, **QUICK).fit(train).predict(test) for seed in (0, 0, 1))
    assert np.array_equal(one.mean, same.mean)
    assert np.array_equal(one.pay, same.pay)
    assert not np.array_equal(one.mean, other.mean)


@pytest.mark.parametrize("method", [TwoStage, Tweedie])
def test_validation_stops_and_does_nothing_else(method):
    """The trees are the first ones of what grows without stopping."""
    train, val = [task(40), task(60)], [task(80)]
    stopped = method(rounds=300, patience=5, least=5, rate=0.03).fit(train, val)
    for name, booster in stopped.boosters.items():
        assert booster.best_iteration < 300, name
        free = method(rounds=booster.best_iteration, least=5, rate=0.03).fit(train)
        x = np.random.default_rng(0).standard_normal((50, len(stopped.names)))
        if booster.best_iteration <= 100:  # without validation no more are grown
            np.testing.assert_array_equal(booster.predict(x), free.boosters[name].predict(x), err_msg=name)


@pytest.mark.parametrize("method", [TwoStage, Tweedie])
def test_saved_and_loaded(method, tmp_path):
    test = task(100, "pair")
    made = method(neighbours=True, **QUICK).fit([task(40, "pair")], [task(60, "pair")])
    made.save(tmp_path)
    again = method.load(tmp_path)
    assert again.trees == made.trees
    expected, found = made.predict(test), again.predict(test)
    assert np.array_equal(found.mean, expected.mean)
    assert np.array_equal(found.pay, expected.pay)
    other = {TwoStage: Tweedie, Tweedie: TwoStage}[method]
    with pytest.raises(CheckpointError, match=f"holds a {method.__name__}, no {other.__name__}"):
        other.load(tmp_path)


def test_pieces_do_not_matter(monkeypatch):
    test = task(100)
    made = TwoStage(**QUICK).fit([task(40)])
    whole = made.predict(test)
    monkeypatch.setattr(Tabular.pieces, "__defaults__", (17,))
    assert np.array_equal(made.predict(test).mean, whole.mean)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"nobody among \d+ members pays within 0.001 days"):
        Tweedie(**QUICK).fit([task(40, horizons=(0.001, 7))])
    made = TwoStage(**QUICK).fit([task(40)])
    with pytest.raises(ValueError, match="was fitted for horizons"):
        made.predict(task(100, horizons=(3, 7)))
    with pytest.raises(ValueError, match="columns are not those of the fit"):
        made.predict(task(100, "pair"))
    with pytest.raises(ValueError, match="needs tasks with labels"):
        made.fit([task(40, labelled=False)])
    with pytest.raises(ValueError, match="power must lie between"):
        Tweedie(power=2.0)
    with pytest.raises(ValueError, match="must be above 0"):
        TwoStage(rounds=0)


def test_without_lightgbm(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ImportError, match=r"extra 'ltv'.*graphfm\[ltv\]"):
        TwoStage(**QUICK).fit([task(40)])


def test_a_handful_of_validation_rows_stops_nothing():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 3)), rng.gamma(1, 1, 200)
    few = (x[:19], y[:19])
    assert boost(x, y, few, Trees(), objective="gamma").num_trees() == 300


def test_the_dispersion_gives_the_share_that_pays():
    """Against a Poisson number of Gamma amounts, drawn."""
    rng = np.random.default_rng(0)
    mean, power, phi = rng.lognormal(0, 1, 4000), 1.4, 3.0
    rate = mean ** (2 - power) / (phi * (2 - power))
    share = (rng.poisson(rate[:, None], (4000, 100)) > 0).mean()
    assert _dispersion(mean, share, power) == pytest.approx(phi, rel=0.01)
    np.testing.assert_allclose(_pay(mean, np.array(phi), power), 1 - np.exp(-rate))
    assert np.isfinite(_dispersion(mean, 1.0, power))


def test_returns_alone_do_no_harm():
    """Features of a log with returns; random_log has a tenth of them."""
    log = random_log(1500, days=120)
    test = task(100, "pair", log)
    found = Tweedie(**QUICK).fit([task(60, "pair", log)]).predict(test)
    assert np.isfinite(found.mean).all()
