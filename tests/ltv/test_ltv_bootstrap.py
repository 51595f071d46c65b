"""The bootstrap against doing it with rows that stand there several times, and against a known spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from graphfm.ltv import bootstrap
from graphfm.ltv.bootstrap import (
    Sample,
    paired_bootstrap,
    weighted_auc,
    weighted_bias,
    weighted_gini,
    weighted_nmae,
)
from graphfm.ltv.gini import normalised_gini
from graphfm.ltv.metrics import ltv_scores

ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.0, 1.0, 3.5, 20.0]), st.integers(0, 3)),
    min_size=2,
    max_size=25,
)


@given(ROWS)
def test_weights_are_rows_that_stand_there_several_times(rows):
    predicted, value, count = (np.array(column) for column in zip(*rows, strict=True))
    predicted = predicted / 7
    many = (np.repeat(predicted, count), np.repeat(value, count))
    weight = np.stack([count, np.ones_like(count)]).astype(float)
    for metric, slow in (
        (weighted_gini, normalised_gini),
        (weighted_auc, lambda p, y: roc_auc_score(y > 0, p)),
        (weighted_nmae, lambda p, y: np.abs(p - y).sum() / y.sum()),
        (weighted_bias, lambda p, y: p.sum() / y.sum()),
    ):
        found = metric(predicted, value)(weight)
        for row, (p, y) in enumerate((many, (predicted, value))):
            defined = len(y) and (y > 0).any() and (metric is not weighted_auc or (y == 0).any())
            if defined and not (metric is weighted_gini and np.ptp(y) == 0):
                assert found[row] == pytest.approx(slow(p, y), abs=1e-12)


def draw(users=400, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rng.integers(1, 4, users))
    taste = rng.normal(size=users)[user]
    value = np.exp(taste + rng.normal(size=len(user))) * (rng.random(len(user)) < 0.3)
    return Sample(user, value, taste + 0.3 * rng.normal(size=len(user)), taste + noise * rng.normal(size=len(user)))


def test_the_draws_are_those_of_a_loop(monkeypatch):
    monkeypatch.setattr(bootstrap, "_CELLS", 5000)  # several pieces
    samples = [draw(60, seed=1), draw(50, seed=2)]
    found = paired_bootstrap(samples, draws=40, seed=3)
    rng, slow = np.random.default_rng(3), []
    rows = max(1, 5000 // max(len(one.user) for one in samples))
    for low in range(0, 40, rows):
        for picks in rng.integers(0, 60, (min(rows, 40 - low), 60)):
            parts = []
            for one in samples:
                mine = np.concatenate([np.flatnonzero(one.user == user) for user in picks]).astype(int)
                scores = [normalised_gini(p[mine], one.value[mine]) for p in (one.first, one.second)]
                parts.append(scores[0] - scores[1])
            slow.append(np.mean(parts))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))
    whole = [normalised_gini(s.first, s.value) - normalised_gini(s.second, s.value) for s in samples]
    assert found.mean == pytest.approx(np.mean(whole))
    assert found.above == np.mean(np.array(slow) > 0)
    assert found.draws == 40


def test_who_is_better():
    clear = paired_bootstrap([draw()], draws=300)
    assert clear.low > 0
    assert clear.above > 0.99
    one = draw()
    same = paired_bootstrap([Sample(one.user, one.value, one.first, one.first)], draws=50)
    assert (same.mean, same.low, same.high, same.above) == (0, 0, 0, 0.5)


def test_the_interval_covers_what_it_says():
    """Two methods that are equally good: 90 % intervals hold zero in about 90 % of the shops."""
    inside = 0
    for seed in range(150):
        one = draw(150, seed=seed, noise=0.3)
        found = paired_bootstrap([one], draws=200, level=0.9, seed=seed)
        inside += found.low <= 0 <= found.high
    assert 0.82 <= inside / 150 <= 0.97


def test_metrics_agree_with_the_scores():
    one = draw()
    scores = ltv_scores(one.first, one.value)
    ones = np.ones((1, len(one.user)))
    for name, metric in (
        ("gini", weighted_gini),
        ("auc", weighted_auc),
        ("nmae", weighted_nmae),
        ("bias", weighted_bias),
    ):
        assert metric(one.first, one.value)(ones)[0] == pytest.approx(scores[name])


def test_nobody_pays():
    user = np.arange(4)
    found = paired_bootstrap([Sample(user, np.zeros(4), user, user[::-1])], draws=20)
    assert np.isnan([found.mean, found.low, found.high, found.above]).all()
    assert found.draws == 0


def test_what_is_refused():
    with pytest.raises(ValueError, match="samples is empty"):
        paired_bootstrap([])
    with pytest.raises(ValueError, match="draws must be at least 1"):
        paired_bootstrap([draw()], draws=0)
    with pytest.raises(ValueError, match="alike in length"):
        Sample(np.arange(3), np.zeros(3), np.zeros(3), np.zeros(2))


def test_memory_is_bounded_by_users_as_by_members(monkeypatch):
    """Samples of different users: there are more users in all than members in any."""
    value = np.ones(50)
    samples = [Sample(np.arange(50) + 50 * place, value, np.arange(50.0), -np.arange(50.0)) for place in range(8)]
    whole = paired_bootstrap(samples, draws=20, metric=bootstrap.weighted_bias)
    seen = []
    drawn = bootstrap._drawn
    monkeypatch.setattr(bootstrap, "_CELLS", 800)
    monkeypatch.setattr(
        bootstrap, "_drawn", lambda rng, draws, users: seen.append(draws * users) or drawn(rng, draws, users)
    )
    assert paired_bootstrap(samples, draws=20, metric=bootstrap.weighted_bias) == whole
    assert max(seen) <= 800
