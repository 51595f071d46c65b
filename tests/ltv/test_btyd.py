"""BG/NBD and Gamma-Gamma: published values, simulated customers, and the formulas with mpmath."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from ltv_logs import ROWS, log_of, random_log

from graphfm.data.purchases import DAY
from graphfm.ltv import BGNBD, BTYD, GammaGamma, choose, make_task
from graphfm.ltv.occasions import count_occasions

TRUE = BGNBD(0.6, 5.0, 1.4, 3.0)


def simulate(model, customers, age, time, seed):
    """Histories until ``age`` and purchases in the ``time`` after it, a purchase of everybody at a time."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(model.r, 1 / model.alpha, customers)
    leave = rng.beta(model.a, model.b, customers)
    now, alive = np.zeros(customers), np.ones(customers, dtype=bool)
    x, recency, later = np.zeros(customers), np.zeros(customers), np.zeros(customers)
    while alive.any():
        now = now + rng.exponential(1 / rate)
        bought = alive & (now <= age + time)
        x += bought & (now <= age)
        recency = np.where(bought & (now <= age), now, recency)
        later += bought & (now > age)
        alive = bought & (rng.random(customers) >= leave)
    return x, recency, np.full(customers, age), later


def test_published_values_on_the_cdnow_sample(data_root):
    """Fader, Hardie & Lee 2005, table 2; Fader & Hardie 2013 for Gamma-Gamma. Time in weeks."""
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    from graphfm.data import read_purchases

    log = read_purchases(data_root / "ltv/cdnow_sample/purchases.csv.gz")
    past = log.before("1997-10-01")
    known = count_occasions(
        past, choose(past, int(np.datetime64("1997-10-01", "us").astype(int)), unit="user", who="all")
    )
    assert len(known.frequency) == 2357
    assert (known.frequency > 0).sum() == 946
    model = BGNBD().fit(known.frequency, known.recency / 7, known.age / 7)
    assert model.r == pytest.approx(0.243, abs=5e-4)
    assert model.alpha == pytest.approx(4.414, abs=5e-4)
    assert model.a == pytest.approx(0.793, abs=5e-4)
    assert model.b == pytest.approx(2.426, abs=5e-4)
    assert model.log_likelihood == pytest.approx(-9582.4, abs=0.05)
    # The customer of their note on Excel: x = 2, t_x = 30.43, T = 38.86, 39 weeks on.
    one = (np.array([2.0]), np.array([30.43]), np.array([38.86]))
    assert model.expected(39, *one)[0] == pytest.approx(1.226, abs=2e-3)
    amounts = GammaGamma().fit(known.frequency, known.spend)
    assert (amounts.p, amounts.q, amounts.gamma) == pytest.approx((6.25, 3.74, 15.44), abs=6e-3)


def test_parameters_are_recovered_from_simulated_customers():
    x, recency, age, _ = simulate(TRUE, 60_000, 60.0, 0.0, seed=0)
    found = BGNBD().fit(x, recency, age)
    for name in ("r", "alpha", "a", "b"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=0.12), name
    # No other parameters, the true ones included, explain the data better.
    from graphfm.ltv.bgnbd import _log_likelihood

    assert found.log_likelihood >= _log_likelihood(TRUE.r, TRUE.alpha, TRUE.a, TRUE.b, x, recency, age).sum()


def test_forecasts_against_what_simulated_customers_do():
    x, recency, age, later = simulate(TRUE, 200_000, 30.0, 20.0, seed=1)
    expected, pays = TRUE.expected(20.0, x, recency, age), TRUE.pays(20.0, x, recency, age)
    for low, high in ((0, 0), (1, 1), (2, 3), (4, 99)):
        group = (x >= low) & (x <= high)
        error = later[group].std() / np.sqrt(group.sum())
        assert expected[group].mean() == pytest.approx(later[group].mean(), abs=4 * error)
        assert pays[group].mean() == pytest.approx((later[group] > 0).mean(), abs=2.5 / np.sqrt(group.sum()))


@pytest.mark.parametrize(
    "parameters",
    [
        (0.243, 4.414, 0.793, 2.426),
        (2.0, 30.0, 1.7, 0.4),
        (0.05, 0.3, 0.01, 8.0),
        (160_000.0, 800_000.0, 6e-6, 980.0),  # customers who are all alike and never go
        (3.0, 270.0, 70_000.0, 160_000.0),  # who go with one probability
        (500.0, 0.05, 0.3, 0.002),
    ],
)
def test_formulas_with_many_digits(parameters):
    """Equation 10 as it is printed, with 60 digits, for customers from idle to very faithful."""
    r, alpha, a, b = map(mpmath.mpf, parameters)
    model = BGNBD(*parameters)
    for x, recency, age, time in ((0, 0, 9, 4), (1, 3, 9, 30), (7, 20, 21, 1), (150, 38, 39, 39), (3, 0.5, 200, 5)):
        one = tuple(np.array([float(v)]) for v in (x, recency, age))
        with mpmath.workdps(60):
            big = (a + b + x - 1) / (a - 1) * (
                1 - ((alpha + age) / (alpha + age + time)) ** (r + x)
                * mpmath.hyp2f1(r + x, b + x, a + b + x - 1, mpmath.mpf(time) / (alpha + age + time))
            )  # fmt: skip
            gone = (a / (b + x - 1) * ((alpha + age) / (alpha + recency)) ** (r + x)) if x else 0
            assert model.alive(*one)[0] == pytest.approx(float(1 / (1 + gone)), rel=1e-9)
            assert model.expected(time, *one)[0] == pytest.approx(float(big / (1 + gone)), rel=1e-7)


def test_where_the_formula_is_nought_by_nought():
    one = (np.array([3.0]), np.array([10.0]), np.array([12.0]))
    near = [BGNBD(0.5, 4, a, 2.0).expected(5.0, *one)[0] for a in (1 - 1e-6, 1.0, 1 + 1e-6)]
    assert near == pytest.approx([near[1]] * 3, rel=1e-5)
    assert BGNBD(0.5, 4, 0.9, 2.0).expected(0.0, *one)[0] == 0


def test_amounts_are_recovered_and_expected_as_simulated():
    rng = np.random.default_rng(0)
    p, q, gamma = 4.0, 3.5, 20.0
    nu = rng.gamma(q, 1 / gamma, 40_000)
    x = rng.integers(0, 6, len(nu))
    spend = rng.gamma(np.maximum(p * x, 1e-3), 1 / nu) / np.maximum(x, 1) * (x > 0)
    found = GammaGamma().fit(x, spend)
    assert (found.p, found.q, found.gamma) == pytest.approx((p, q, gamma), rel=0.08)
    expected, truth = GammaGamma(p, q, gamma).expected(x, spend), p / nu
    for count in range(6):
        group = x == count
        error = truth[group].std() / np.sqrt(group.sum())
        assert expected[group].mean() == pytest.approx(truth[group].mean(), abs=4 * error)


@given(ROWS)
def test_occasions_against_loops(rows):
    rows = [*rows, (0, 0, 0, 1.0)]
    log, cutoff = log_of(rows), 20
    people = choose(log, cutoff * DAY, unit="user", who="all")
    known = count_occasions(log, people)
    for row, user in enumerate(log.users[people.user]):
        paid = {}
        for other, _, day, amount in rows:
            if other == user and amount > 0:
                paid[day] = paid.get(day, 0) + amount
        start = min(paid) if paid else min(d for u, _, d, a in rows if u == user and a >= 0)
        later = [paid[day] for day in paid if day != start]
        assert known.frequency[row] == len(later)
        assert known.recency[row] == max([start, *paid]) - start
        assert known.age[row] == cutoff - 1 - start
        assert known.spend[row] == pytest.approx(np.mean(later) if later else 0)


def test_in_the_harness():
    log = random_log(2000, days=200)
    for unit in ("user", "pair"):
        train = [make_task(log, day * DAY, (3, 7, 14), unit=unit, who="all") for day in (100, 120)]
        test = make_task(log, 150 * DAY, (3, 7, 14), unit=unit, who="all")
        method = BTYD().fit(train)
        found = method.predict(test)
        pieces = list(method.stream(test, 9))
        np.testing.assert_allclose(np.concatenate([one.mean for _, one in pieces]), found.mean, rtol=1e-7)
        assert sum(len(piece.population) for piece, _ in pieces) == len(found.mean)
        assert found.mean.shape == test.labels.value.shape
        assert (np.diff(found.mean, axis=1) > 0).all()
        assert ((found.pay > 0) & (found.pay < 1)).all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0.0, 0.0], [0.0, 0.0], [3.0, 4.0]), "nobody has a repeat purchase"),
        (([1.0], [5.0], [3.0]), "row 0 cannot be: frequency 1, recency 5, age 3"),
        (([0.0, 0.0], [0.0, 1.0], [3.0, 3.0]), "row 1 cannot be"),
        (([np.nan], [0.0], [3.0]), "row 0 cannot be"),
        (([1.0], [1.0, 2.0], [3.0]), "must be"),
        (([], [], []), "must be"),
    ],
)
def test_histories_that_cannot_be(columns, message):
    with pytest.raises(ValueError, match=message):
        BGNBD().fit(*map(np.array, columns))


def test_amounts_that_cannot_be():
    with pytest.raises(ValueError, match="at least 2 are needed"):
        GammaGamma().fit(np.array([0.0, 1.0]), np.array([0.0, 5.0]))
    with pytest.raises(ValueError, match="spend must be above 0"):
        GammaGamma().fit(np.array([1.0, 1.0]), np.array([0.0, 5.0]))
    with pytest.raises(ValueError, match="alike"):
        GammaGamma().fit(np.array([1.0, 1.0]), np.array([5.0]))
    with pytest.raises(ValueError, match="at least one task"):
        BTYD().fit([])
