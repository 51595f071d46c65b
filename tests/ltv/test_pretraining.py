"""Embeddings without labels: of the graph as it is, of those who come later, of those who are alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ltv_logs import random_log

from graphfm.backbones import GCN
from graphfm.data.purchase_snapshot import snapshot
from graphfm.data.purchases import DAY, Purchases
from graphfm.ltv import PurchaseEncoder
from graphfm.ltv.pretraining import meta_path_graph
from graphfm.samplers import Neighbours

LOG = random_log(800, days=100)
EARLY, LATE = snapshot(LOG, 5 * DAY), snapshot(LOG, 90 * DAY)


def small(**options):
    return PurchaseEncoder(8, steps=options.pop("steps", 5), **options)


@pytest.fixture(scope="module")
def fitted():
    return small().fit([EARLY])


def test_the_graph_is_that_of_the_snapshot_in_both_directions():
    for kind, path in (("user", ("user", "like", "user")), ("item", ("item", "with", "item"))):
        graph = meta_path_graph(LATE, kind)
        source, target = LATE[path].edge_index
        dense = torch.zeros(2, graph.num_nodes, graph.num_nodes)
        dense[0].index_put_((target, source), LATE[path].edge_weight)
        dense[1] = dense[0].t()
        both = (dense > 0).all(dim=0)
        expected = torch.where(both, dense.mean(dim=0), dense.amax(dim=0))  # an edge that one end kept counts for both
        found = torch.zeros_like(dense[0]).index_put_((graph.edge_index[1], graph.edge_index[0]), graph.edge_weight)
        torch.testing.assert_close(found, expected)


def test_embeddings_are_those_of_the_network_at_one_scale(fitted):
    found = fitted.embed(LATE)
    for kind in ("user", "item"):
        graph = meta_path_graph(LATE, kind)
        with torch.no_grad():
            plain = fitted.networks[kind](graph.x, graph.edge_index, graph.edge_weight).double()
        expected = (plain - plain.mean(dim=0)) / plain.std(dim=0, correction=0)
        torch.testing.assert_close(found[kind].double(), expected, rtol=1e-3, atol=1e-4)
        assert found[kind].dtype == torch.float32


def test_users_and_items_that_came_later_are_embedded(fitted):
    assert all(LATE[kind].num_nodes > EARLY[kind].num_nodes for kind in ("user", "item"))
    found = fitted.embed(LATE)
    assert {kind: tuple(rows.shape) for kind, rows in found.items()} == {
        kind: (LATE[kind].num_nodes, 8) for kind in ("user", "item")
    }
    assert all(bool(torch.isfinite(rows).all()) for rows in found.values())
    assert fitted.embed(LATE) is found
    assert fitted.embed(EARLY) is not found


def test_who_is_alone_is_told_by_features(fitted):
    user, item = np.array([0, 0, 1, 1, 2, 3]), np.array([0, 1, 0, 1, 2, 3])  # 2 and 3 share nothing with anybody
    log = Purchases.from_arrays(user, item, np.full(6, DAY), np.array([1.0, 2, 3, 4, 7, 7]))
    graph = snapshot(log, 2 * DAY)
    assert set(graph["user", "like", "user"].edge_index.flatten().tolist()) == {0, 1}
    for rows in fitted.embed(graph).values():
        assert bool(torch.isfinite(rows).all())
        torch.testing.assert_close(rows[2], rows[3])
        assert not torch.allclose(rows[2], rows[0])


def planted():
    """Twenty users who often buy a few items, and as many who seldom buy others."""
    rng = np.random.default_rng(0)
    often = rng.random(600) < 0.85
    user = np.where(often, rng.integers(0, 20, 600), rng.integers(20, 40, 600))
    item = np.where(often, rng.integers(0, 10, 600), rng.integers(10, 25, 600))
    return Purchases.from_arrays(user, item, np.sort(rng.integers(0, 50 * DAY, 600)), rng.lognormal(size=600))


def test_it_learns_and_can_be_repeated(fitted):
    graph = snapshot(planted(), 49 * DAY)
    one, other = (small(steps=20, seed=1, lr=0.02).fit([graph, EARLY]) for _ in range(2))
    for kind in ("user", "item"):
        losses = one.cards[kind]["history"]["loss"]
        assert len(losses) == 20
        assert losses[-1] < 0.9 * losses[0]
        assert torch.equal(one.embed(LATE)[kind], other.embed(LATE)[kind])
        assert not torch.equal(one.embed(LATE)[kind], fitted.embed(LATE)[kind])
    assert one.until == 49 * DAY


def test_another_network_in_neighbourhoods():
    encoder = small(backbone=GCN, sampler=Neighbours((3, 2), batch_size=10), steps=6).fit([LATE])
    assert encoder.embed(EARLY)["item"].shape == (EARLY["item"].num_nodes, 8)
    assert len(encoder.cards["user"]["history"]["loss"]) == 2  # 40 users are four steps a pass: 6 / 4 passes, rounded


def test_kept_and_read(fitted):
    settings, tensors = fitted.state()
    again = PurchaseEncoder.from_state(settings, tensors)
    assert again.until == fitted.until
    for kind in ("user", "item"):
        assert torch.equal(again.embed(LATE)[kind], fitted.embed(LATE)[kind])


def test_what_is_refused():
    with pytest.raises(ValueError, match="at least one snapshot"):
        small().fit([])
    log = Purchases.from_arrays(LOG.user, None, LOG.time, LOG.amount)
    with pytest.raises(ValueError, match="graph=False"):
        small().fit([snapshot(log, 50 * DAY)])
    with pytest.raises(RuntimeError, match="call fit first"):
        small().embed(EARLY)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        small(steps=0)
