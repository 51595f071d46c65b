"""The log in arrays: order, numbering, cutting, and what is refused."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphfm.data.purchases import DAY, LeakError, Purchases, as_time

ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 6), st.sampled_from([-1.0, 0.0, 1.0, 2.5])),
    min_size=1,
    max_size=30,
)


def log_of(rows, **options):
    user, item, day, amount = (np.array(column) for column in zip(*rows, strict=True))
    return Purchases.from_arrays(user, item, day.astype(np.int64) * DAY, amount.astype(float), **options)


@given(ROWS)
def test_events_survive_in_the_order_of_time(rows):
    log = log_of(rows)
    found = list(zip(log.users[log.user], log.items[log.item], log.time // DAY, log.amount, strict=True))
    assert found == sorted(rows, key=lambda row: row[2])
    # Numbers are given by first appearance.
    for codes in (log.user, log.item):
        assert list(dict.fromkeys(codes.tolist())) == list(range(int(codes.max()) + 1))


@given(ROWS, st.integers(1, 7))
def test_before_knows_the_past_alone(rows, day):
    past = sorted((row for row in rows if row[2] < day), key=lambda row: row[2])
    log = log_of(rows)
    if not past:
        with pytest.raises(ValueError, match="leaves nothing"):
            log.before(day * DAY)
        return
    cut = log.before(day * DAY)
    expected = log_of(past)
    for name in ("user", "item", "time", "amount", "users", "items"):
        assert np.array_equal(getattr(cut, name), getattr(expected, name)), name
    assert cut.check_before(day * DAY) is cut


@given(ROWS)
def test_duplicates_and_returns_by_argument(rows):
    kept = [row for row in rows if row[3] >= 0]
    if not kept:
        with pytest.raises(ValueError, match="no events left"):
            log_of(rows, returns="drop", duplicates="drop")
        return
    log = log_of(rows, returns="drop", duplicates="drop")
    distinct = list(dict.fromkeys(kept))
    assert len(log) == len(distinct) == log.report.kept
    assert log.report.rows == len(rows)
    assert sum(log.report.dropped.values()) == len(rows) - len(distinct)
    assert {*zip(log.users[log.user], log.items[log.item], log.time // DAY, log.amount, strict=True)} == {*distinct}


def test_a_leak_is_told():
    log = log_of([(0, 0, 0, 1.0), (1, 0, 2, 1.0)])
    with pytest.raises(LeakError, match=r"1 events lie at or after the cutoff 1970-01-03 00:00:00"):
        log.check_before(2 * DAY)
    assert log.check_before(2 * DAY + 1) is log


def test_the_cutoff_must_lie_in_the_log():
    log = log_of([(0, 0, 1, 1.0), (1, 0, 3, 1.0)])
    assert log.check_cutoff("1970-01-03") == 2 * DAY
    assert log.check_cutoff(4 * DAY) == 4 * DAY
    for outside in (DAY, 4 * DAY + 1, "2024-01-01"):
        with pytest.raises(ValueError, match="lies outside the log, which runs from 1970-01-02"):
            log.check_cutoff(outside)


@pytest.mark.parametrize(
    "value",
    [
        "1970-01-02T01:00:00+01:00",
        dt.datetime(1970, 1, 2),
        dt.datetime(1970, 1, 1, 19, tzinfo=dt.timezone(dt.timedelta(hours=-5))),
        dt.date(1970, 1, 2),
        np.datetime64("1970-01-02"),
        np.int64(DAY),
        DAY,
    ],
)
def test_times_of_every_kind(value):
    assert as_time(value) == DAY


@pytest.mark.parametrize(
    ("value", "error"), [("soon", ValueError), (None, TypeError), (True, TypeError), (1.5, TypeError)]
)
def test_no_time(value, error):
    with pytest.raises(error, match="time"):
        as_time(value)


def test_arrays_that_do_not_fit():
    user, time = np.array([1, 2]), np.array([0, 1])
    with pytest.raises(ValueError, match=r"amount must be an array \[2\]"):
        Purchases.from_arrays(user, None, time, np.ones(3))
    with pytest.raises(ValueError, match="amount must hold finite numbers"):
        Purchases.from_arrays(user, None, time, np.array([1.0, np.inf]))
    with pytest.raises(ValueError, match="amount must hold finite numbers"):
        Purchases.from_arrays(user, None, time, np.array(["1", "2"]))
    with pytest.raises(ValueError, match="time must be"):
        Purchases.from_arrays(user, None, np.array([0.5, 1.0]), np.ones(2))
    with pytest.raises(ValueError, match="NaT"):
        Purchases.from_arrays(user, None, np.array(["2024-01-01", "NaT"], "datetime64[D]"), np.ones(2))
    with pytest.raises(ValueError, match="returns must be"):
        Purchases.from_arrays(user, None, time, np.ones(2), returns="ignore")


def test_a_log_without_items_has_one_that_stands_for_the_shop():
    log = Purchases.from_arrays(np.array(["b", "a"]), None, np.array(["2024-01-02", "2024-01-01"], "M8[D]"), np.ones(2))
    assert not log.has_items
    assert log.num_items == 1
    assert log.users.tolist() == ["a", "b"]
    assert log.before("2024-01-02").items.tolist() == []


def test_a_log_that_was_cut_is_known_until_there():
    day = np.array([1, 2, 3, 9, 20]) * DAY
    log = Purchases.from_arrays(np.arange(5), None, day, np.ones(5))
    past = log.before(8 * DAY)
    assert (past.end, log.end) == (8 * DAY, 20 * DAY)
    assert past.check_cutoff(8 * DAY) == 8 * DAY  # five days of silence are no end of the log
    assert past.before(6 * DAY).end == 6 * DAY
    assert past.before(30 * DAY).end == 8 * DAY
    with pytest.raises(ValueError, match="lies outside the log"):
        past.check_cutoff(10 * DAY)
    assert log.before(40 * DAY).end == 20 * DAY
