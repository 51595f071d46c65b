"""Graphs by meta-path: items that the same users buy, users who buy the same items. Never quadratic in a hub."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphfm.data.purchase_pairs import order_by

__all__ = ["meta_path"]

_CANDIDATES = 1 << 16  # pairs looked at in one go: they stay in the cache, and memory is bounded
_ROWS = 1 << 14  # members in one go: with a weight of 32 bits and a place of at most 18, a key has 64


def meta_path(
    member: np.ndarray, group: np.ndarray, time: np.ndarray | None, members: int, *, top: int, hub_cap: int
) -> tuple[np.ndarray, np.ndarray]:
    """Join members that share groups: items by their users, or users by their items (2506.11037, section on graphs).

    All pairs within a group would be quadratic in its size. Here the members of a group stand in the order of time,
    and each meets the ``hub_cap`` nearest ones, half of them on either side: in groups of up to ``hub_cap // 2 + 1``
    members that is everybody, and no member of a hub is left without neighbours. The paper does not say what it does.

    Args:
        member: ``[P]`` member of every distinct pair (member, group).
        group: ``[P]`` its group.
        time: ``[P]`` when it came about (last purchase); of equal times the earlier pair goes first. ``None``: the
            pairs stand in the order of time.
        members: number of members, M.
        top: neighbours kept of each member.
        hub_cap: see above; at least 2.

    Returns:
        ``edge_index`` int64 ``[2, E]`` from neighbour to member, sorted by member, heaviest first (equal weights: lower
        number first), at most ``top`` a member; and ``weight`` float32 ``[E]``, the meetings in common groups divided
        by sqrt(d_i d_j), d being the number of a member's groups.

    Raises:
        ValueError: ``top`` below 1 or ``hub_cap`` below 2.
    """
    if top < 1 or hub_cap < 2:
        raise ValueError(f"top must be at least 1 and hub_cap at least 2, got {top} and {hub_cap}.")
    if not len(member):
        return np.zeros((2, 0), dtype=np.int64), np.zeros(0, dtype=np.float32)
    if time is not None and (np.diff(time) < 0).any():
        order = np.argsort(time, kind="stable")
        member, group = member[order], group[order]
    seats = member.astype(np.int32)[order_by(group)]  # members, group after group, each in the order of time
    half = hub_cap // 2
    left, right = _room(group, half)
    degree = np.bincount(seats, minlength=members)
    bounds = np.concatenate([[0], np.cumsum(degree)])
    by_member = order_by(seats).astype(_whole(len(seats)))
    reach = np.concatenate([np.arange(-half, 0), np.arange(1, half + 1)]).astype(np.int32)
    scale = 1 / np.sqrt(np.maximum(degree, 1))
    # Room for all there can be: what is not written takes no memory.
    room = min(members * top, len(seats) * len(reach))
    near, node, weights = (np.empty(room, dtype=kind) for kind in (_whole(members), _whole(members), np.float32))
    low = end = 0
    while low < members:
        limit = bounds[low] + _CANDIDATES // len(reach)
        high = min(max(int(np.searchsorted(bounds, limit, side="right")) - 1, low + 1), low + _ROWS)
        mine = by_member[bounds[low] : bounds[high]]
        inside = (reach >= -left[mine][:, None]) & (reach <= right[mine][:, None])
        row = np.repeat(np.arange(high - low), degree[low:high])
        met = seats[(mine[:, None] + reach)[inside]]
        found, column, weight = _heaviest(np.repeat(row, inside.sum(axis=1)), met, scale[low:high], scale, top)
        filled = slice(end, end + len(column))
        near[filled], node[filled], weights[filled] = column, found + low, weight
        low, end = high, filled.stop
    del seats, left, right, by_member
    edges = np.empty((2, end), dtype=np.int64)
    edges[0] = near[:end]
    del near
    edges[1] = node[:end]
    del node
    return edges, weights[:end].copy()


def _whole(below: int) -> type[np.signedinteger[Any]]:
    """The shorter type for whole numbers up to there."""
    return np.int32 if below < 1 << 31 else np.int64


def _room(group: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray]:
    """How many seats there are to the left and to the right of every one, no more than ``half``."""
    size = np.bincount(group)
    ends = np.cumsum(size).astype(_whole(len(group)))
    kind = np.int8 if half < 1 << 7 else np.int32  # small ones stay in the cache
    place = np.arange(len(group), dtype=ends.dtype)
    left = place - np.repeat(ends - size.astype(ends.dtype), size)
    right = np.subtract(np.repeat(ends, size), place, out=place)
    right -= 1
    return np.minimum(left, half, out=left).astype(kind), np.minimum(right, half, out=right).astype(kind)


def _heaviest(
    row: np.ndarray, met: np.ndarray, row_scale: np.ndarray, scale: np.ndarray, top: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and weight of the ``top`` heaviest neighbours of every row, from meetings in any order."""
    keys = row << 32
    keys |= met
    keys.sort()
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    keys = keys[starts]
    row, column = keys >> 32, keys & ((1 << 32) - 1)
    times = np.diff(starts, append=len(met))
    weight = (times * row_scale[row] * scale[column]).astype(np.float32)
    # Weights are positive, and the bits of positive floats sort as they do. Places come last: columns are in order.
    places = len(row).bit_length()
    heavy = row.astype(np.uint64) << np.uint64(32 + places)
    heavy |= (weight.view(np.uint32) ^ np.uint32(0xFFFFFFFF)).astype(np.uint64) << np.uint64(places)
    heavy |= np.arange(len(row), dtype=np.uint64)
    heavy.sort()
    order = (heavy & np.uint64((1 << places) - 1)).astype(np.int64)
    length = np.bincount(row, minlength=len(row_scale))
    rank = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    order = order[rank < top]
    return row[order], column[order], weight[order]
