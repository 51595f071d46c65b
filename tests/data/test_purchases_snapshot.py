"""The graph at a cutoff: features by hand, and nothing of the future in it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphfm.data.purchase_features import history_features, history_names, standardise
from graphfm.data.purchase_pairs import find_pairs
from graphfm.data.purchase_snapshot import snapshot
from graphfm.data.purchases import DAY, LeakError, Purchases

ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 9), st.sampled_from([-3.0, 0.0, 1.0, 2.5])),
    min_size=1,
    max_size=30,
)


def log_of(rows):
    user, item, day, amount = (np.array(column) for column in zip(*rows, strict=True))
    return Purchases.from_arrays(user, item, day.astype(np.int64) * DAY, amount.astype(float))


def random_log(events=400, seed=0):
    rng = np.random.default_rng(seed)
    amount = np.where(rng.random(events) < 0.1, -1, 1) * rng.lognormal(size=events)
    return Purchases.from_arrays(
        rng.integers(0, 40, events), rng.integers(0, 25, events), rng.integers(0, 100 * DAY, events), amount
    )


def signed(amount):
    return math.copysign(math.log1p(abs(amount)), amount)


def slow_features(events, cutoff, start, windows):
    """One group's row; events are (day, amount)."""
    sold = [(day, amount) for day, amount in events if amount >= 0]
    first, last = (min(sold)[0], max(sold)[0]) if sold else (cutoff, start)
    spent = sum(amount for _, amount in events)
    row = [
        math.log1p(len(sold)),
        signed(spent),
        signed(spent / max(len(sold), 1)),
        math.log1p(max([0.0, *(amount for _, amount in events)])),
        math.log1p(sum(-amount for _, amount in events if amount < 0)),
        math.log1p(cutoff - last),
        math.log1p(cutoff - first),
    ]
    for window in windows:
        recent = [(day, amount) for day, amount in events if day >= cutoff - window]
        row += [math.log1p(sum(amount >= 0 for _, amount in recent)), signed(sum(amount for _, amount in recent))]
    return row


@given(ROWS)
def test_features_and_pairs_against_counting_by_hand(rows):
    log, cutoff = log_of(rows), 10
    pairs = find_pairs(log)
    names = list(zip(log.users[pairs.user], log.items[pairs.item], strict=True))
    by_pair = {}
    for user, item, day, amount in rows:
        by_pair.setdefault((user, item), []).append((day, amount))
    sold = {pair: [day for day, amount in events if amount >= 0] for pair, events in by_pair.items()}
    sold = {pair: days for pair, days in sold.items() if days}
    assert set(names) == set(sold)
    assert len(names) == len(sold)
    assert [f // DAY for f in pairs.first] == [min(sold[name]) for name in names]
    assert [f // DAY for f in pairs.last] == [max(sold[name]) for name in names]
    start = min(row[2] for row in rows)
    found = np.column_stack([*history_features(log, cutoff * DAY, pairs.of_event, len(names), windows=(2, 5))])
    expected = [slow_features(by_pair[name], cutoff, start, (2, 5)) for name in names]
    np.testing.assert_allclose(found, np.array(expected).reshape(found.shape), atol=1e-12)
    by_user = [[(d, a) for u, _, d, a in rows if u == user] for user in log.users]
    found = np.column_stack([*history_features(log, cutoff * DAY, log.user, len(log.users), windows=(2,))])
    np.testing.assert_allclose(found, [slow_features(e, cutoff, start, (2,)) for e in by_user], atol=1e-12)
    assert found.shape[1] == len(history_names((2,)))


def test_scaled_in_each_snapshot_and_constant_columns_are_nought():
    found = standardise(np.array([[1.0, 5.0, 1e9], [2.0, 5.0, 1e9 + 1], [6.0, 5.0, 1e9 + 2]]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=0), [1, 0, 1], atol=1e-6)
    assert standardise(np.ones((1, 3))).tolist() == [[0, 0, 0]]
    assert standardise(np.ones((0, 3))).shape == (0, 3)
    columns = np.random.default_rng(0).normal(5, 3, (3, 5000))
    rows = (columns - columns.mean(axis=1, keepdims=True)) / columns.std(axis=1, keepdims=True)
    np.testing.assert_allclose(standardise(iter(columns)), rows.T, rtol=1e-5, atol=1e-6)
    assert not standardise(np.full((7, 1), 0.1)).any()  # whose mean is not exactly 0.1


def test_the_graph_at_a_cutoff():
    log, cutoff = random_log(), 60 * DAY
    data = snapshot(log, cutoff, item_neighbours=5, user_neighbours=3)
    data.validate()
    past = log.before(cutoff)
    pairs = find_pairs(past)
    assert data.cutoff == cutoff
    assert data["user"].x.shape == (len(past.users), len(data["user"].feature_names))
    assert data["item"].x.shape == (len(past.items), len(data["item"].feature_names))
    assert data["user", "buys", "item"].edge_index.tolist() == [pairs.user.tolist(), pairs.item.tolist()]
    assert data["user", "buys", "item"].edge_attr.shape == (len(pairs.user), 13)
    assert torch.equal(data["item", "bought_by", "user"].edge_index.flip(0), data["user", "buys", "item"].edge_index)
    for kind, top in ((("item", "with", "item"), 5), (("user", "like", "user"), 3)):
        assert 0 < int(data[kind].edge_index[1].bincount().max()) <= top
        assert (data[kind].edge_index[0] != data[kind].edge_index[1]).all()
    for kind in ("user", "item"):
        assert data[kind].x.dtype == torch.float32
        assert data[kind].x.mean(0).abs().max() < 1e-5


def same(one, other):
    pairs = [(a, b) for kind in one.to_dict() if kind != "_global_store" for a, b in [(one[kind], other[kind])]]
    return one.cutoff == other.cutoff and all(
        torch.equal(a[key], b[key]) for a, b in pairs for key in a.keys() if isinstance(a[key], torch.Tensor)
    )


def test_the_future_changes_no_bit():
    log, cutoff = random_log(), 60 * DAY
    end = int(np.searchsorted(log.time, cutoff))
    whole = snapshot(log, cutoff)
    rng = np.random.default_rng(1)
    mixed = np.concatenate([np.arange(end), end + rng.permutation(len(log) - end)])
    other = Purchases(
        log.user[mixed], log.item[mixed], log.time, 7 * log.amount[mixed], log.users, log.items, log.report
    )
    other.amount[:end] = log.amount[:end]
    assert same(whole, snapshot(other, cutoff))
    assert same(whole, snapshot(log.before(cutoff), cutoff))
    # And the comparison sees what an event before the cutoff changes.
    other.amount[end - 1] += 1
    assert not same(whole, snapshot(other, cutoff))


def test_an_event_after_the_cutoff_is_told():
    log = random_log()
    with pytest.raises(LeakError, match="events lie at or after the cutoff"):
        history_features(log, 60 * DAY, log.user, len(log.users), windows=(3,))


def test_logs_at_the_edge():
    one = log_of([(7, 3, 1, 2.0)])
    data = snapshot(one, 2 * DAY)
    assert data["user"].x.abs().sum() == 0
    assert data["user", "like", "user"].edge_index.shape == (2, 0)
    with pytest.raises(ValueError, match="outside the log"):
        snapshot(one, DAY)
    with pytest.raises(ValueError, match="windows must be positive"):
        snapshot(one, 2 * DAY, windows=(0,))
    with pytest.raises(ValueError, match="nothing but returns"):
        snapshot(log_of([(0, 0, 0, -1.0), (0, 0, 3, 1.0)]), 2 * DAY)
    shop = Purchases.from_arrays(np.arange(9), None, np.arange(9) * DAY, np.ones(9))
    data = snapshot(shop, 8 * DAY)
    assert data["item"].num_nodes == 1
    assert data["user", "buys", "item"].edge_index.shape == (2, 8)
    assert data["user", "like", "user"].num_edges == data["item", "with", "item"].num_edges == 0
    data = snapshot(random_log(), 60 * DAY, item_neighbours=0, user_neighbours=0)
    assert data["user", "like", "user"].num_edges == data["item", "with", "item"].num_edges == 0


def test_online_retail(data_root):
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    from graphfm.data import read_purchases

    log = read_purchases(data_root / "ltv/online_retail/purchases.csv.gz")
    data = snapshot(log, "2011-11-01")
    assert data["user"].num_nodes > 3_000
    assert torch.isfinite(data["user", "buys", "item"].edge_attr).all()
