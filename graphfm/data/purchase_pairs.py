"""Who has bought what: the distinct user-item pairs of a log."""

from __future__ import annotations

import dataclasses

import numpy as np

from graphfm.data.purchases import Purchases

__all__ = ["Pairs", "find_pairs", "first_and_last", "last_purchases", "order_by"]


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs with at least one event that is no return, sorted by user, then item.

    Attributes:
        user: int64 ``[P]``.
        item: int64 ``[P]``.
        first: int64 ``[P]``, time of the first purchase: when the pair came to be.
        last: int64 ``[P]``, time of the last purchase.
        of_event: int64 ``[E]``, the pair of every event; -1 for returns of what the log saw nobody buy.
    """

    user: np.ndarray
    item: np.ndarray
    first: np.ndarray
    last: np.ndarray
    of_event: np.ndarray


def find_pairs(log: Purchases) -> Pairs:
    """The pairs of a log; sorting the events by pair is all it costs."""
    order = order_by(log.item)
    order = order[order_by(log.user[order])]
    user, item = log.user[order], log.item[order]
    opens = np.append(True, (user[1:] != user[:-1]) | (item[1:] != item[:-1]))[: len(log)]
    starts = np.flatnonzero(opens)
    sold = (log.amount >= 0)[order]
    kept = np.logical_or.reduceat(sold, starts)
    number = np.where(kept, np.cumsum(kept) - 1, -1)
    of_event = np.empty(len(log), dtype=np.int64)
    of_event[order] = number[np.cumsum(opens) - 1]
    chosen = starts[kept]
    first, last = first_and_last(log, of_event, len(chosen))
    return Pairs(user[chosen].astype(np.int64), item[chosen].astype(np.int64), first, last, of_event)


def last_purchases(log: Purchases, pairs: Pairs) -> np.ndarray:
    """Numbers ``[P]`` of the events that are the last purchase of their pair, thus the pairs in the order of time."""
    newest = np.empty(len(pairs.user), dtype=np.int64)
    chosen = np.flatnonzero((log.amount >= 0) & (pairs.of_event >= 0))
    newest[pairs.of_event[chosen]] = chosen  # of equal indices the last one assigned stays
    newest.sort()
    return newest


def order_by(group: np.ndarray) -> np.ndarray:
    """A stable ``argsort`` of whole numbers from 0 to 2^31: number and place in one key, since plain sorts are fast."""
    keys = group.astype(np.int64)
    keys <<= 32
    keys |= np.arange(len(keys))
    keys.sort()
    keys &= (1 << 32) - 1
    return keys


def first_and_last(log: Purchases, group: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Times of the first and the last purchase (no return) of every group.

    Args:
        log: the events.
        group: ``[E]`` number of every event's group; below 0: none.
        groups: their number, G.

    Returns:
        int64 ``[G]`` twice; -1 where a group has no purchase.
    """
    chosen = np.flatnonzero((log.amount >= 0) & (group >= 0))
    first, last = np.full(groups, -1, dtype=np.int64), np.full(groups, -1, dtype=np.int64)
    # Events are in the order of time, and of equal indices the last one assigned stays.
    last[group[chosen]] = log.time[chosen]
    first[group[chosen[::-1]]] = log.time[chosen[::-1]]
    return first, last
