"""Rows of features against the snapshot, and neighbour means against loops."""

from __future__ import annotations

import numpy as np
import pytest
from ltv_logs import random_log

from graphfm.data.purchase_snapshot import snapshot
from graphfm.data.purchases import DAY, Purchases
from graphfm.ltv import audit_leaks, make_task
from graphfm.ltv.tabular import tabular

LOG = random_log(800, days=120)


def task(unit, day=90, log=LOG):
    return make_task(log, day * DAY, (3, 7), unit=unit, who="all", labelled=False)


def test_rows_are_those_of_the_snapshot():
    one = task("pair")
    table, data = tabular(one), snapshot(LOG, 90 * DAY)
    people = one.population
    expected = np.concatenate(
        [data["user"].x[people.user], data["item"].x[people.item], data["user", "buys", "item"].edge_attr[people.row]],
        axis=1,
    )
    assert np.array_equal(table.rows(), expected)
    assert len(table.names) == expected.shape[1] == len(set(table.names))
    assert len(table) == len(people)
    assert np.array_equal(np.concatenate(list(table.pieces(7))), expected)
    assert np.array_equal(table.rows(3, 5), expected[3:5])
    users = task("user")
    assert np.array_equal(tabular(users).rows(), data["user"].x[users.population.user])


@pytest.mark.parametrize("unit", ["pair", "user"])
def test_means_of_neighbours_against_loops(unit):
    one = task(unit)
    table, data = tabular(one, neighbours=True), snapshot(LOG, 90 * DAY)
    rows, people = table.rows(), one.population
    buyer, bought = data["user", "buys", "item"].edge_index.numpy()
    x = {kind: data[kind].x.double().numpy() for kind in ("user", "item")}

    def weighted(kind, node):
        edges = data[kind]
        into = (edges.edge_index[1] == node).numpy()
        weight = edges.edge_weight.numpy()[into].astype(float)
        if not into.any():
            return np.zeros(x[kind[0]].shape[1])
        return weight @ x[kind[0]][edges.edge_index[0].numpy()[into]] / weight.sum()

    for row in range(0, len(people), 11):
        user = people.user[row]
        expected = {
            "mean of items": x["item"][bought[buyer == user]].mean(axis=0),
            "mean of like users": weighted(("user", "like", "user"), user),
        }
        if unit == "pair":
            item = people.item[row]
            expected["mean of buyers"] = x["user"][buyer[bought == item]].mean(axis=0)
            expected["mean of items with it"] = weighted(("item", "with", "item"), item)
        for label, wanted in expected.items():
            columns = [place for place, name in enumerate(table.names) if name.startswith(f"{label}: ")]
            np.testing.assert_allclose(rows[row, columns], wanted, rtol=1e-4, atol=1e-5, err_msg=label)


@pytest.mark.parametrize("neighbours", [False, True])
def test_nothing_of_the_future(neighbours):
    def build(log, cutoff):
        one = make_task(log, cutoff, (3, 7), unit="pair", who="all", labelled=False)
        return tabular(one, neighbours=neighbours).rows()

    audit_leaks(LOG, 90 * DAY, build)


def test_a_log_without_items():
    log = Purchases.from_arrays(LOG.user, None, LOG.time, LOG.amount)
    assert np.isfinite(tabular(task("user", log=log), neighbours=True).rows()).all()
