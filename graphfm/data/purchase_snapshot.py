"""A purchase log as a graph at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData

from graphfm.data.purchase_features import history_features, history_names, standardise
from graphfm.data.purchase_pairs import Pairs, find_pairs, last_purchases
from graphfm.data.purchase_paths import meta_path
from graphfm.data.purchases import Purchases, show_time

__all__ = ["snapshot"]


def snapshot(
    log: Purchases,
    cutoff: Any,
    *,
    item_neighbours: int = 50,
    user_neighbours: int = 20,
    hub_cap: int = 20,
    windows: Sequence[int] = (3, 7, 30),
) -> HeteroData:
    """The graph of everything before a cutoff, and of nothing else.

    Args:
        log: the events, also later ones.
        cutoff: ISO text, datetime, ``datetime64`` or microseconds; see :meth:`Purchases.check_cutoff`.
        item_neighbours: items joined to an item; 0 for no edges between items.
        user_neighbours: users joined to a user; 0 for no edges between users.
        hub_cap: how many of the users (items) of one item (user) each of them meets, see
            :func:`graphfm.data.purchase_paths.meta_path`.
        windows: days before the cutoff that have counts and sums of their own.

    Returns:
        ``HeteroData`` with ``user`` and ``item`` nodes, numbered as in the log (those known by then come first there):

        - ``x`` float32 ``[N, F]``, as of the cutoff and scaled to mean 0 and deviation 1 in this snapshot;
          ``feature_names``;
        - ``("user", "buys", "item")``: one edge a pair, ``edge_index`` ``[2, P]`` sorted by user and item,
          ``edge_attr`` ``[P, F']`` scaled likewise, ``first`` and ``last`` purchase ``[P]`` in microseconds; and
          ``("item", "bought_by", "user")``, the same turned round, without attributes (both look at
          the same memory: what is written into one is in the other);
        - ``("item", "with", "item")`` and ``("user", "like", "user")``: ``edge_index`` from neighbour to node,
          ``edge_weight``. Empty in a log without items;
        - ``cutoff``, in microseconds.

    Raises:
        ValueError: a cutoff outside the log, or windows that are no positive numbers of days.
    """
    moment = log.check_cutoff(cutoff)
    if any(days <= 0 for days in windows):
        raise ValueError(f"windows must be positive numbers of days, got {tuple(windows)}.")
    past = log.before(moment).check_before(moment)
    pairs = find_pairs(past)
    if not len(pairs.user):
        raise ValueError(f"nothing but returns lies before the cutoff {show_time(moment)}.")
    data = HeteroData()
    data.cutoff = moment
    _add_nodes(data, past, pairs, windows)
    ends = torch.from_numpy(np.stack([pairs.user, pairs.item, pairs.user]))  # both directions look at one piece
    buys = data["user", "buys", "item"]
    buys.edge_index, data["item", "bought_by", "user"].edge_index = ends[:2], ends[1:]
    buys.first, buys.last = torch.from_numpy(pairs.first), torch.from_numpy(pairs.last)
    latest = last_purchases(past, pairs) if past.has_items else np.zeros(0, dtype=np.int64)
    of_event = pairs.of_event
    del pairs
    of_pair = history_features(past, moment, of_event, ends.shape[1], windows=windows)
    buys.edge_attr, buys.feature_names = torch.from_numpy(standardise(of_pair)), history_names(windows)
    del of_event, of_pair
    items, users = past.item[latest], past.user[latest]  # in the order of time
    del latest
    for kind, member, group, top in (
        (("item", "with", "item"), items, users, item_neighbours),
        (("user", "like", "user"), users, items, user_neighbours),
    ):
        chosen = slice(None) if top else slice(0)
        edges, weight = meta_path(
            member[chosen], group[chosen], None, data[kind[0]].num_nodes, top=max(top, 1), hub_cap=hub_cap
        )
        data[kind].edge_index, data[kind].edge_weight = torch.from_numpy(edges), torch.from_numpy(weight)
    return data


def _add_nodes(data: HeteroData, past: Purchases, pairs: Pairs, windows: Sequence[int]) -> None:
    for kind, group, partner, count in (
        ("user", past.user, pairs.user, len(past.users)),
        ("item", past.item, pairs.item, past.num_items),
    ):
        known = history_features(past, data.cutoff, group, count, windows=windows)
        partners = np.log1p(np.bincount(partner, minlength=count))
        data[kind].x = torch.from_numpy(standardise(chain(known, [partners])))
        data[kind].feature_names = [*history_names(windows), "partners"]
