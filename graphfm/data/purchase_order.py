"""Numbering, sorting and finding twins among millions of events: plain sorts of whole numbers, and nothing slower."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["numbered", "order_in_time", "twins"]

_ROOM = 2  # numbers in a range of so many an event are counted; others are sorted


def numbered(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``np.unique(names, return_inverse=True)``: sorted names ``[U]`` and the number of each one's, ``[E]``.

    Whole numbers that lie close together are marked in a table in the place of being sorted; their codes are int32.
    """
    names = np.asarray(names)
    if names.dtype.kind not in "iu" or not len(names):
        return np.unique(names, return_inverse=True)
    low, high = int(names.min()), int(names.max())
    if high - low >= _ROOM * len(names) or high - low >= 1 << 31 or high >= 1 << 63:
        return np.unique(names, return_inverse=True)
    place = names.astype(np.int64, copy=False) - low
    there = np.zeros(high - low + 1, dtype=bool)
    there[place] = True
    number = np.cumsum(there, dtype=np.int32) - np.int32(1)
    return (np.flatnonzero(there) + low).astype(names.dtype), number[place]


def order_in_time(time: np.ndarray) -> np.ndarray:
    """A stable ``argsort`` of whole numbers, int64 ``[E]``.

    Time and place go into one key of 63 bits: plain sorts are ten times as fast as those that carry places along. Bits
    of the time that find no room are left out, and events that only these tell apart are sorted once more.
    """
    time = np.asarray(time)
    places = len(time).bit_length()
    low, high = (int(time.min()), int(time.max())) if len(time) else (0, 0)
    if high - low >= 1 << 63 or high >= 1 << 63:
        return np.argsort(time, kind="stable")
    left_out = max((high - low).bit_length() + places - 63, 0)
    keys = time.astype(np.int64, copy=False) - low
    keys >>= left_out
    keys <<= places
    keys |= np.arange(len(keys))
    keys.sort()
    alike = np.flatnonzero((keys[1:] ^ keys[:-1]) < (1 << places)) + 1 if left_out else np.zeros(0, dtype=np.int64)
    keys &= (1 << places) - 1
    if (time[keys[alike]] < time[keys[alike - 1]]).any():
        crowd = np.union1d(alike, alike - 1)
        among = keys[crowd]
        keys[crowd] = among[np.argsort(time[among], kind="stable")]
    return keys


def twins(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Mask ``[E]`` of the rows that are equal in all columns to an earlier one.

    Args:
        columns: ``[E]`` numbers each, with at least one row.
    """
    rows = len(columns[0])
    places = rows.bit_length()
    keys = _mixed(columns)
    keys &= np.uint64(2**64 - (1 << places))
    keys |= np.arange(rows, dtype=np.uint64)
    keys.sort()
    # Rows alike have keys that differ in their places alone; so may others, which the columns tell apart.
    alike = np.flatnonzero(((keys[1:] ^ keys[:-1]) >> np.uint64(places)) == 0) + 1
    last = np.uint64((1 << places) - 1)
    here, earlier = ((keys[at] & last).astype(np.int64) for at in (alike, alike - 1))
    same = _equal(columns, here, earlier)
    found = np.zeros(rows, dtype=bool)
    found[here[same]] = True
    if not same.all():  # strangers in between: whoever shares a key with one is compared column by column
        strange = np.unique(keys[alike[~same]] >> np.uint64(places))
        crowd = np.unique(np.concatenate([here, earlier]))
        mixed = _mixed([column[crowd] for column in columns]) >> np.uint64(places)
        crowd = crowd[np.isin(mixed, strange)]
        found[crowd] = False
        order = np.lexsort([crowd, *(column[crowd] for column in columns)])
        here, earlier = crowd[order[1:]], crowd[order[:-1]]
        found[here[_equal(columns, here, earlier)]] = True
    return found


def _mixed(columns: Sequence[np.ndarray]) -> np.ndarray:
    """One 64-bit number a row, alike for rows alike: odd multipliers, as in a multiply-shift hash."""
    mixed = np.zeros(len(columns[0]), dtype=np.uint64)
    shifted = np.empty_like(mixed)
    for column in columns:
        exact = column.astype(np.float64) + 0.0 if column.dtype.kind == "f" else column.astype(np.int64)
        mixed ^= exact.view(np.uint64)  # 0.0 is added since -0.0 is the same number
        mixed *= np.uint64(0x9E3779B97F4A7C15)
        np.right_shift(mixed, np.uint64(29), out=shifted)
        mixed ^= shifted
    mixed *= np.uint64(0xC2B2AE3D27D4EB4F)  # high bits are the best
    return mixed


def _equal(columns: Sequence[np.ndarray], here: np.ndarray, there: np.ndarray) -> np.ndarray:
    same = np.ones(len(here), dtype=bool)
    for column in columns:
        same &= column[here] == column[there]
    return same
