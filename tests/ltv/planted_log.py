"""A log in which who pays is known beforehand."""

from __future__ import annotations

import numpy as np

from graphfm.data.purchases import DAY, Purchases
from graphfm.ltv import PurchaseEncoder, make_task

HORIZONS = (3, 7, 14)


def planted_log(users=150, items=20, days=120, seed=0, heavy=1.0):
    """A third of the users buys ten times as often; odd items are bought again, even ones once; amounts lognormal."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        rate = 1.0 if user % 3 == 0 else 0.1
        for item in rng.choice(items, size=4, replace=False):
            start = rng.uniform(0, days)
            repeats = rng.poisson(rate * (days - start) / 8) if item % 2 else 0
            moments = np.append(start, rng.uniform(start, days, repeats))
            rows += [(user, item, moment, np.exp(heavy * rng.normal())) for moment in moments]
    user, item, moment, amount = (np.array(column) for column in zip(*rows, strict=True))
    return Purchases.from_arrays(user, item, (moment * DAY).astype(np.int64), amount)


def tasks(log, cutoffs, unit="pair", who="all", horizons=HORIZONS, **options):
    """A task for each day."""
    return [make_task(log, int(day * DAY), horizons, unit=unit, who=who, **options) for day in cutoffs]


def small_encoder(**options):
    """One that costs next to nothing."""
    return PurchaseEncoder(4, steps=3, **options)
