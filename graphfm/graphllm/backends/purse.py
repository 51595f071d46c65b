"""What threads that ask a chat model share: money that is spent or promised, and failures in a row."""

from __future__ import annotations

import threading

from graphfm.graphllm.backends.base import Usage
from graphfm.graphllm.backends.post import ChatError

__all__ = ["BudgetError", "Purse", "Streak"]


class BudgetError(RuntimeError):
    """The budget is spent: nothing more is sent. Answers so far are in the cache, so a larger budget goes on there."""


class Streak:
    """Counts failures in a row, in the order in which they happen in the threads.

    Args:
        most: that many are one too many.

    Attributes:
        over: set once there were.
    """

    def __init__(self, most: int) -> None:
        self.over = threading.Event()
        self._most, self._count, self._lock = most, 0, threading.Lock()
        self._last: ChatError | None = None

    def failed(self, error: ChatError) -> None:
        """One more in a row; ``over`` is set where it is one too many."""
        with self._lock:
            self._count, self._last = self._count + 1, error
            if self._count >= self._most:
                self.over.set()

    def answered(self) -> None:
        """The row ends."""
        with self._lock:
            self._count = 0

    def check(self) -> None:
        """Raise what came of it.

        Raises:
            ChatError: ``most`` failed in a row.
        """
        if self.over.is_set():
            told = f"{self._most} conversations in a row have no answer; nothing more is sent. The last:"
            raise ChatError(f"{told} {self._last}")


class Purse:
    """What was spent and what is promised, so that threads together stay within the budget.

    Args:
        budget: the price that must not be exceeded, if there is one.
        max_requests: likewise.
    """

    def __init__(self, budget: float | None, max_requests: int | None) -> None:
        self._budget, self._most = budget, max_requests
        self._lock = threading.Lock()
        self._used, self._held, self._under_way = Usage(), 0.0, 0

    def reserve(self, price: float) -> float:
        """Promise ``price`` for a request, and give it back for :meth:`settle`.

        Raises:
            BudgetError: it could exceed the budget, or the number of requests.
        """
        with self._lock:
            if self._most is not None and self._used.requests + self._under_way >= self._most:
                raise BudgetError(f"max_requests is {self._most}, and as many were sent; raise it to go on.")
            if self._budget is not None and self._used.price + self._held + price > self._budget:
                raise BudgetError(
                    f"budget is {self._budget:g}, of which {self._used.price:g} is spent and {self._held:g} promised; "
                    f"the next answer could cost {price:g}. Raise it to go on."
                )
            self._held += price
            self._under_way += 1
            return price

    def settle(self, hold: float, used: Usage) -> None:
        """A request has ended: what was promised for it, and what it cost."""
        with self._lock:
            self._held -= hold
            self._under_way -= 1
            self._used = Usage(
                self._used.prompt_tokens + used.prompt_tokens,
                self._used.completion_tokens + used.completion_tokens,
                self._used.price + used.price,
                self._used.requests + used.requests,
            )

    def total(self) -> Usage:
        """What all requests cost."""
        with self._lock:
            return self._used
