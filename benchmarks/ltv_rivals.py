"""What beats boosted trees, and by how much: ``python benchmarks/ltv_tables.py rivals``, from predictions on disk.

Of one log and unit, the reference is the boosted method with the highest mean normalised Gini over its test cells, so
luck is on its side. Beside it: every other single method of ``SINGLE``, and every mean of two forecasts of ``PARTS``
(what :class:`graphfm.ltv.Ensemble` says of two methods with one seed). Differences are those of the paired bootstrap
over users, 95 %; origins, horizons and seeds averaged. Stated on 2026-11-21, when the cells of users had been seen and
no network's cell of pairs. That the mean of BTYD and Tweedie is tried at all comes from the users of online_retail: for
them it is no test.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from graphfm.ltv.bootstrap import Sample, paired_bootstrap
from graphfm.ltv.evaluate import predictions_of
from graphfm.results import Result

TREES = ("TwoStage", "Tweedie", "TwoStage(neighbours=True)", "Tweedie(neighbours=True)")
NETWORKS = ("GRePO", "GRePO(graph=False)", "GRePO(graph=False, item_embedding=True)")
SINGLE = ("HistoricMean", "BTYD", *NETWORKS)
PARTS = ("BTYD", *NETWORKS)


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """The cells of one log and unit, by method, origin and seed."""

    folder: Path
    found: dict[str, dict[tuple[str, int], Result]]

    @classmethod
    def of(cls, folder: Path, results: list[Result]) -> Cells:
        """Sort what was read."""
        found: dict[str, dict[tuple[str, int], Result]] = {}
        for one in results:
            found.setdefault(one.method, {})[str(one.settings["origin"]), one.seed] = one
        return cls(folder, found)

    def gini(self, name: str) -> float:
        """Mean over the cells."""
        return float(np.mean([one.metrics["gini"] for one in self.found[name].values()]))

    def told(self, names: tuple[str, ...], key: tuple[str, int]) -> dict[str, np.ndarray]:
        """Members, values and the mean forecast of some methods; a method without seeds says the same for each."""
        told = [predictions_of(self.folder, self._cell(name, key)) for name in names]
        return {**told[0], "mean": np.mean([np.asarray(one["mean"], float) for one in told], axis=0)}

    def _cell(self, name: str, key: tuple[str, int]) -> Result:
        mine = self.found[name]
        return mine[key] if key in mine else mine[key[0], 0]

    def keys(self, names: tuple[str, ...]) -> list[tuple[str, int]]:
        """Origins and seeds that all methods have."""
        every = sorted({key for name in names for key in self.found[name]})
        unseeded = {name for name in names if {seed for _, seed in self.found[name]} == {0}}
        return [key for key in every if all(key in self.found[name] or name in unseeded for name in names)]


def _samples(cells: Cells, one: tuple[str, ...], other: str) -> Iterator[Sample]:
    for key in cells.keys((*one, other)):
        mine, its = cells.told(one, key), cells.told((other,), key)
        for k in range(mine["value"].shape[1]):
            value = np.asarray(mine["value"][:, k], float)
            if (value > 0).any():
                yield Sample(mine["user"], value, mine["mean"][:, k], its["mean"][:, k])


def rivals(folder: Path, results: list[Result], draws: int = 1000) -> dict[str, Any]:
    """Differences to the best boosted method, the largest first; ``{}`` where trees or predictions are missing."""
    cells = Cells.of(folder, results)
    trees = [name for name in TREES if name in cells.found]
    if not trees:
        return {}
    best = max(trees, key=cells.gini)
    parts = [name for name in (best, *PARTS) if name in cells.found]
    asked: list[tuple[str, ...]] = [(name,) for name in (*TREES, *SINGLE) if name in cells.found and name != best]
    asked += itertools.combinations(parts, 2)
    found = {}
    for names in asked:
        try:
            samples = list(_samples(cells, names, best))
        except FileNotFoundError:
            return {}
        if samples:
            got = paired_bootstrap(samples, draws=draws)
            found[" + ".join(names)] = [got.mean, got.low, got.high]
    ranked = dict(sorted(found.items(), key=lambda item: -item[1][0]))
    return {"reference": best, "its mean normalised Gini": cells.gini(best), "less the reference": ranked}
