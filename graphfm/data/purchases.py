"""An event log of purchases in plain arrays, in the order of time."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from graphfm.data.purchase_order import numbered, order_in_time, twins
from graphfm.data.purchase_report import ReadReport, sift

__all__ = ["DAY", "LeakError", "Purchases", "as_time"]

DAY = 86_400_000_000  # times are microseconds since 1970, UTC

Returns = Literal["net", "drop"]


class LeakError(AssertionError):
    """Something at or after a cutoff entered what must only know the time before it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Purchases:
    """Events sorted by time; users and items are numbered by their first appearance.

    So the users that are known at a cutoff are the first ones, and the same ones whatever happens later.

    Attributes:
        user: int32 ``[E]``.
        item: int32 ``[E]``; all 0 in a log without items.
        time: int64 ``[E]``, microseconds since 1970 in UTC, non-decreasing.
        amount: float64 ``[E]``; below 0 for a return, 0 for an event without payment (a registration, a free item).
        users: ``[U]`` names: text, or int64 where the source had whole numbers.
        items: ``[I]`` names, likewise; empty in a log without items.
        report: what reading did.
        until: the moment up to which the log is known, where that lies after the last event: it was cut there.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    amount: np.ndarray
    users: np.ndarray
    items: np.ndarray
    report: ReadReport
    until: int | None = None

    @classmethod
    def from_arrays(
        cls,
        user: np.ndarray,
        item: np.ndarray | None,
        time: np.ndarray,
        amount: np.ndarray,
        *,
        returns: Returns = "net",
        duplicates: Literal["keep", "drop"] = "keep",
    ) -> Purchases:
        """Make a log of arrays in any order.

        Args:
            user: ``[E]`` whole numbers or text.
            item: likewise, or ``None`` for a log without items.
            time: ``[E]`` ``datetime64`` in UTC, or whole microseconds since 1970.
            amount: ``[E]`` finite numbers.
            returns: amounts below 0 are kept (``"net"``: they lower what the user has paid) or left out (``"drop"``).
            duplicates: events alike in user, item, time and amount: all are kept, or one of them. Two lines of one
                basket look the same as a line written twice, so keeping them is the default.

        Raises:
            ValueError: lengths or types that do not fit, amounts that are not finite, or nothing left.
        """
        arrays = {"user": user, "item": item, "time": time, "amount": amount}
        for name, array in arrays.items():
            if array is not None and (np.ndim(array) != 1 or len(array) != len(user)):
                shape = list(np.shape(array))
                raise ValueError(f"{name} must be an array [{len(user)}], as long as user; got shape {shape}.")
        users, user = numbered(user)
        if item is None:
            items, item = users[:0], np.zeros(len(user), dtype=np.int32)
        else:
            items, item = numbered(item)
        time = np.asarray(time)
        if time.dtype.kind == "M":
            if np.isnat(time).any():
                raise ValueError("time holds NaT; leave those events out.")
            time = time.astype("datetime64[us]").astype(np.int64)
        if time.dtype.kind not in "iu":
            raise ValueError(f"time must be datetime64 or whole microseconds, got {time.dtype}.")
        return build(
            user, item, time, np.asarray(amount), users, items, returns=returns, drop_twins=duplicates == "drop"
        )

    def __len__(self) -> int:
        return len(self.time)

    @property
    def has_items(self) -> bool:
        """Whether the log says what was bought."""
        return len(self.items) > 0

    @property
    def num_items(self) -> int:
        """Item nodes: one in a log without items, which stands for the whole shop."""
        return max(len(self.items), 1)

    @property
    def end(self) -> int:
        """The moment up to which the log is known: its last event, or where it was cut after that."""
        last = int(self.time[-1])
        return last if self.until is None else max(last, self.until)

    def before(self, cutoff: Any) -> Purchases:
        """The events before a cutoff, with the users and items known by then; arrays are views.

        Raises:
            ValueError: no event lies before it.
        """
        moment = as_time(cutoff)
        end = int(np.searchsorted(self.time, moment, side="left"))
        if end == 0:
            raise ValueError(
                f"cutoff {show_time(moment)} leaves nothing: the first event is at {show_time(int(self.time[0]))}."
            )
        user, item = self.user[:end], self.item[:end]
        names = (self.users[: int(user.max()) + 1], self.items[: int(item.max()) + 1])
        until = min(moment, self.end)
        return Purchases(user, item, self.time[:end], self.amount[:end], *names, self.report, until)

    def check_before(self, cutoff: int) -> Purchases:
        """The log itself, if all of it lies before the cutoff (microseconds).

        Raises:
            LeakError: an event lies at or after it.
        """
        # All of them, not the last alone: whoever made the arrays may not have sorted them.
        late = int(np.count_nonzero(self.time >= cutoff))
        if late:
            raise LeakError(f"{late} events lie at or after the cutoff {show_time(cutoff)}; use log.before(cutoff).")
        return self

    def check_cutoff(self, cutoff: Any) -> int:
        """A cutoff in microseconds, if this log says anything about it.

        Raises:
            ValueError: nothing lies before it, or the log is known until more than a day before it.
        """
        moment = as_time(cutoff)
        first, last = int(self.time[0]), self.end
        if not first < moment <= last + DAY:
            raise ValueError(
                f"cutoff {show_time(moment)} lies outside the log, which runs from {show_time(first)} to "
                f"{show_time(last)}. It must lie after the first event, and at most a day after the last: later, a "
                "customer's silence looks the same as the end of the log."
            )
        return moment


def as_time(value: Any) -> int:
    """Microseconds since 1970 of ISO text, a ``datetime``, a ``datetime64`` or a whole number of them.

    Raises:
        ValueError: text that is no ISO time.
        TypeError: something else.
    """
    if isinstance(value, bool):
        raise TypeError("a time must be ISO text, a datetime, a datetime64 or whole microseconds; got a bool.")
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is no time; write it like 2024-05-31 or 2024-05-31T12:00:00+02:00.") from error
    if isinstance(value, datetime):
        utc = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo is not None else value
        return int(np.datetime64(utc, "us").astype(np.int64))
    if hasattr(value, "isoformat"):
        return as_time(value.isoformat())
    if isinstance(value, np.datetime64) and not np.isnat(value):
        return int(value.astype("datetime64[us]").astype(np.int64))
    raise TypeError(
        f"a time must be ISO text, a datetime, a datetime64 or whole microseconds; got {type(value).__name__}."
    )


def show_time(moment: int) -> str:
    """A time as people write it."""
    return str(np.datetime64(moment, "us").astype("datetime64[s]")).replace("T", " ")


def build(
    user: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    amount: np.ndarray,
    users: np.ndarray,
    items: np.ndarray,
    *,
    returns: Returns,
    drop_twins: bool,
    report: ReadReport | None = None,
) -> Purchases:
    """A log of arrays whose users and items are numbers into ``users`` and ``items``: cleaned, sorted, renumbered.

    Raises:
        ValueError: amounts that are no finite numbers, an unknown way with returns, or nothing left.
    """
    if returns not in ("net", "drop"):
        raise ValueError(f"returns must be 'net' or 'drop', got {returns!r}.")
    if amount.dtype.kind not in "iuf" or not np.isfinite(amount).all():
        raise ValueError(f"amount must hold finite numbers, got {amount.dtype}; leave others out or mend them.")
    report = report if report is not None else ReadReport(len(user), len(user))
    below = amount < 0
    keep, dropped = sift(len(user), [("return (amount below 0)", below)] if returns == "drop" else [])
    if not keep.all():
        user, item, time, amount = user[keep], item[keep], time[keep], amount[keep]
    repeated = twins([user, item, time, amount])
    count, notes = int(repeated.sum()), report.notes
    if drop_twins and count:
        user, item, time, amount = user[~repeated], item[~repeated], time[~repeated], amount[~repeated]
        dropped["the same user, item, time and amount as an earlier row"] = count
    elif count:
        notes += (f"{count} rows repeat user, item, time and amount of an earlier one; they are kept",)
    if returns == "net" and below.any():
        notes += (f"{int(below.sum())} returns are netted ({below.mean():.2%} of the rows)",)
    report = dataclasses.replace(report, kept=len(user), dropped={**report.dropped, **dropped}, notes=notes)
    if not len(user):
        raise ValueError(f"the log has no events left. {report}")
    if (np.diff(time) < 0).any():
        order = order_in_time(time)
        user, item, time, amount = user[order], item[order], time[order], amount[order]
    user, users = _by_appearance(user, users)
    item, items = _by_appearance(item, items) if len(items) else (item.astype(np.int32), items)
    return Purchases(user, item, time.astype(np.int64), amount.astype(np.float64), users, items, report)


def _by_appearance(codes: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number anew by first appearance; names that do not occur are left out."""
    kind = np.int32 if len(codes) < 1 << 31 else np.int64  # short ones stay in the cache
    first: np.ndarray = np.full(len(names), len(codes), dtype=kind)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1, dtype=kind)  # of equal indices the last one assigned stays
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(codes))]
    place = np.empty(len(names), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place[codes], names[order]
