"""Sorting, numbering and twins of events against numpy's slower ways, ties and hard ranges among them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.data import purchase_order
from graphfm.data.purchase_order import numbered, order_in_time, twins

WHOLE = st.integers(-(2**62), 2**62)


@given(st.lists(st.one_of(st.integers(-3, 3), WHOLE), max_size=40))
def test_numbers_are_those_of_unique(values):
    names = np.array(values, dtype=np.int64)
    for found, expected in zip(numbered(names), np.unique(names, return_inverse=True), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert numbered(names)[0].dtype == np.int64


@pytest.mark.parametrize("kind", [np.uint64, np.int8, np.uint16, np.str_, bool])
def test_names_of_every_type(kind):
    names = np.array([3, 0, 7, 3, 1, 1]).astype(kind)
    users, codes = numbered(names)
    np.testing.assert_array_equal(users[codes], names)
    np.testing.assert_array_equal(users, np.unique(names))
    assert users.dtype == names.dtype
    high = np.array([2**64 - 1, 2**64 - 3], dtype=np.uint64)
    np.testing.assert_array_equal(numbered(high)[0][numbered(high)[1]], high)


@given(st.lists(st.one_of(st.integers(0, 5), WHOLE, st.integers(0, 200).map(lambda v: 2**62 + v)), max_size=60))
def test_the_order_is_stable_whatever_the_range(values):
    time = np.array(values, dtype=np.int64)
    np.testing.assert_array_equal(order_in_time(time), np.argsort(time, kind="stable"))


@pytest.mark.parametrize("step", [1, 64, 10**6, 2**40])
def test_many_events_in_few_moments(step):
    rng = np.random.default_rng(0)
    for moments in (3, 1000, 2**20):
        time = rng.integers(0, moments, 5000) * step - 10**15
        time[0] = time.max() + 2**61  # leaves few bits for the others
        np.testing.assert_array_equal(order_in_time(time), np.argsort(time, kind="stable"))
    with_sign = np.array([2**64 - 1, 5, 2**63, 5], dtype=np.uint64)
    np.testing.assert_array_equal(order_in_time(with_sign), [1, 3, 2, 0])


def by_hand(columns):
    seen, found = set(), []
    for row in zip(*(column.tolist() for column in columns), strict=True):
        found.append(row in seen)
        seen.add(row)
    return found


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.sampled_from([0.0, -0.0, 1.5])), min_size=1))
@settings(max_examples=50)
def test_twins_against_a_set(rows):
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    assert twins(columns).tolist() == by_hand(columns)


def test_twins_among_strangers_with_one_key(monkeypatch):
    rng = np.random.default_rng(1)
    columns = [rng.integers(0, 3, 300), rng.integers(0, 3, 300), rng.integers(0, 20, 300) / 4]
    real = purchase_order._mixed
    for kept in (0, 2**63, 2**63 + 2**62):  # one, two and four keys for all
        monkeypatch.setattr(purchase_order, "_mixed", lambda c, kept=kept: real(c) & np.uint64(kept))
        assert twins(columns).tolist() == by_hand(columns)
