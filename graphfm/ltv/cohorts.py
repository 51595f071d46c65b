"""Parts of a population that are looked at apart: known to a method or not, and by the age of the user."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from graphfm.data.purchases import DAY
from graphfm.ltv.task import Task

__all__ = ["cohorts"]

_AGES = (7, 30, 90)  # days


def cohorts(task: Task, seen: Sequence[Task]) -> dict[str, np.ndarray]:
    """Masks ``[N]`` of the members of each part; empty parts are left out.

    Args:
        task: whose members are sorted.
        seen: tasks that a method learnt from or chose by; what their newest past holds is warm.

    Returns:
        ``warm users`` and ``cold users``, ``warm items`` and ``cold items`` (pairs alone), and users by the days since
        their first event: ``users of 0-7 days``, ...
    """
    people, past = task.population, task.past
    newest = max(seen, key=lambda one: one.population.cutoff).past if seen else None
    users, items = (0, 0) if newest is None else (len(newest.users), len(newest.items))
    # Numbers are given by first appearance, so those below a count are the ones that were there.
    parts = {"warm users": people.user < users, "cold users": people.user >= users}
    if people.item is not None:
        parts |= {"warm items": people.item < items, "cold items": people.item >= items}
    age = (people.cutoff - _first_seen(past.user, past.time, len(past.users))[people.user]) / DAY
    for low, high in itertools.pairwise((0, *_AGES)):
        parts[f"users of {low}-{high} days"] = (age >= low) & (age < high)
    parts[f"users of {_AGES[-1]} days and more"] = age >= _AGES[-1]
    return {name: mask for name, mask in parts.items() if mask.any()}


def _first_seen(user: np.ndarray, time: np.ndarray, users: int) -> np.ndarray:
    first = np.empty(users, dtype=np.int64)
    first[user[::-1]] = time[::-1]  # events are in the order of time; of equal indices the last one assigned stays
    return first
