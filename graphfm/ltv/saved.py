"""A fitted method in a folder, with what it was fitted for: another process scores the customers of today."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from graphfm.bundle import CheckpointError, read_bundle, refusing, write_bundle
from graphfm.data.purchases import Purchases, show_time
from graphfm.ltv.maker import Method, maker
from graphfm.ltv.origins import rolling_origins
from graphfm.ltv.plain import check_payers
from graphfm.ltv.setup import Setup
from graphfm.ltv.streams import streamed
from graphfm.ltv.table import as_columns

__all__ = ["Scorer", "fit_scorer"]

_MEMBERS = 500_000  # scored in one go: bounds memory


@dataclasses.dataclass(frozen=True, eq=False)
class Scorer:
    """A method that is ready to be used.

    Attributes:
        name: as :func:`graphfm.ltv.maker.maker` reads it.
        method: fitted.
        setup: what it was fitted for.
        card: the log it learnt from, as people would ask: first and last event, origins, columns.
    """

    name: str
    method: Method
    setup: Setup
    card: dict[str, Any]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the method and its card.

        Raises:
            ValueError: a method that cannot be saved.
            OSError: the folder cannot be written.
        """
        save = getattr(self.method, "save", None)
        if save is None:
            raise ValueError(
                f"{self.name} cannot be saved; take one that has save and load, such as GRePO, BTYD or Tweedie."
            )
        save(Path(folder) / "method")
        return write_bundle(
            folder, "scorer", {"name": self.name, "setup": dataclasses.asdict(self.setup), "card": self.card}, {}
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, method: str | None = None, device: str | None = None) -> Scorer:
        """Read what :meth:`save` wrote.

        Args:
            folder: where.
            method: the name of a method of one's own (``module:Name``); what a folder names is looked for in
                :mod:`graphfm.ltv` alone, since importing a module runs it.
            device: where to predict, for methods that have a choice.

        Raises:
            CheckpointError: a folder that holds something else, or a method that is not known here.
        """
        settings, _ = read_bundle(folder, "scorer")
        with refusing(folder, "LTV model"):
            name = str(settings["name"])
            setup = Setup(**{**settings["setup"], "horizons": tuple(settings["setup"]["horizons"])})
            card = dict(settings["card"])
        if ":" in name.partition("(")[0] and method != name:
            raise CheckpointError(f"{folder} was made by {name!r}; name it yourself to have that module imported.")
        kind: Any = maker(name).method
        chosen = {"device": device} if "device" in inspect.signature(kind.load).parameters else {}
        return cls(name, kind.load(Path(folder) / "method", **chosen), setup, card)

    def table(self, log: Purchases, cutoff: Any, *, members: int = _MEMBERS) -> Iterator[dict[str, np.ndarray]]:
        """Forecasts of everybody the setup asks about, a piece at a time; see :func:`graphfm.ltv.table.as_columns`.

        Args:
            log: events until the cutoff; users and items need not be known from the fit.
            cutoff: see :meth:`graphfm.data.purchases.Purchases.check_cutoff`.
            members: in one piece.

        Raises:
            ValueError: a log of another kind, a cutoff outside it, or nobody to score.
        """
        if log.has_items != self.card["has_items"]:
            has = {True: "has items", False: "has no items"}
            raise ValueError(
                f"the model was fitted on a log that {has[bool(self.card['has_items'])]}, and this one "
                f"{has[log.has_items]}; name its columns as they were named for the fit: {self.card['columns']}."
            )
        moment = log.check_cutoff(cutoff)
        task = self.setup.task(log, moment, labelled=False)
        for piece, forecast in streamed(self.method, task, members):
            told = [part for part in (forecast.pay, forecast.mean, forecast.quantiles) if part is not None]
            bad = sum(int((~np.isfinite(part)).sum()) for part in told)
            if bad:
                raise ValueError(
                    f"{self.name} predicts {bad} values that are not finite; fit it again without outliers."
                )
            yield as_columns(forecast, piece)


def fit_scorer(log: Purchases, name: str, setup: Setup, *, seed: int = 0, device: str | None = None) -> Scorer:
    """Fit a method on all origins whose labels are known, the newest one left to choose by.

    Raises:
        ValueError: an unknown method, origins that do not fit into the log, or nobody who pays within a horizon.
    """
    made = maker(name)(seed, **({} if device is None else {"device": device}))
    origins = rolling_origins(log, setup.horizons, test=1, val=0, spacing=setup.spacing, history=setup.history)
    tasks = [setup.task(log, cutoff) for cutoff in (*origins.train, *origins.test)]
    check_payers(tasks[:-1])
    made.fit(tasks[:-1], tasks[-1:])
    card = {
        "has_items": log.has_items,
        "columns": dict(log.report.columns),
        "first_event": show_time(int(log.time[0])),
        "last_event": show_time(int(log.time[-1])),
        "events": len(log),
        "origins": [show_time(task.population.cutoff) for task in tasks],
        "seed": seed,
    }
    return Scorer(name, made, setup, card)
