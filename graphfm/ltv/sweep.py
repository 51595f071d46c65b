"""Along the front: the same model for one preference after another, each starting where the nearest one ended."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from graphfm.ltv.forecast import Forecast
from graphfm.ltv.front import ParetoFront, SweepPoint
from graphfm.ltv.grepo import GRePO
from graphfm.ltv.loss_range import constant_losses
from graphfm.ltv.named import part_of
from graphfm.ltv.prepared import Prepared
from graphfm.ltv.supervised import Labelled, losses_of
from graphfm.ltv.task import Task
from graphfm.pareto import Combiner, LossRange, WeightedSum

__all__ = ["ParetoSweep", "measured_range", "preference_grid", "preferring", "sweep"]

_log = logging.getLogger(__name__)
_MARGIN = 0.1  # of the way from the constant to the best that was reached, further down
_LEAST = 1e-6
_GENTLER = 0.3  # learning rate of a run that starts from another one's end, which a full one would undo at once

Make = Callable[[tuple[float, ...], LossRange], Combiner]


def preference_grid(horizons: int, ratio: float = 3.0) -> list[tuple[float, ...]]:
    """All alike; each horizon ``ratio`` times the others; all but one ``ratio`` times that one. Shares that sum to 1.

    Args:
        horizons: K.
        ratio: above 1.

    Returns:
        ``2 K + 1`` preferences, of which K = 1 leaves one and K = 2 three.

    Raises:
        ValueError: no horizon, or a ratio of at most 1.
    """
    if horizons < 1 or not ratio > 1:
        raise ValueError(f"horizons must be at least 1 and ratio above 1, got {horizons} and {ratio}.")
    rows = [np.ones(horizons)]
    for share in (ratio, 1 / ratio) if horizons > 1 else ():
        rows += [np.where(np.arange(horizons) == place, share, 1.0) for place in range(horizons)]
    return list(dict.fromkeys(tuple((row / row.sum()).round(6).tolist()) for row in rows))


def preferring(combine: str | type[Combiner] | Make) -> Make:
    """A function that makes a combiner for a preference and a range.

    Args:
        combine: a class of :mod:`graphfm.pareto` or its name. One that takes ``preference`` gets it (EPO, UPGrad,
            SmoothTchebycheff), and ``losses`` where it takes a range; ``WeightedSum`` gets the weights
            ``preference / (reference - ideal)``; ``MGDA`` and ``MGDAUB`` half of the preference as lower bounds
            (PE-LTR). Any other function of the two is taken as it is.

    Raises:
        ValueError: a class that has no use for a preference.
    """
    kind: Any = part_of("pareto", combine) if isinstance(combine, str) else combine
    if not inspect.isclass(kind):
        return kind
    takes, build = inspect.signature(kind).parameters, cast(Any, kind)

    def make(preference: tuple[float, ...], scale: LossRange) -> Combiner:
        if "fixed" in takes:
            weights = torch.tensor(preference) / scale.scale(torch.tensor(preference))
            return build(fixed=(weights / weights.sum() * len(preference)).tolist())
        if "lower" in takes:
            return build(lower=[0.5 * share for share in preference])
        return build(preference=preference, **({"losses": scale} if "losses" in takes else {}))

    if not takes.keys() & {"fixed", "lower", "preference"}:
        raise ValueError(f"{kind.__name__} takes no preference; use EPO, UPGrad, SmoothTchebycheff, MGDA, WeightedSum.")
    return make


def measured_range(model: GRePO, prepared: Prepared) -> tuple[LossRange, tuple[float, ...]]:
    """Train the model for each horizon alone, to see how low each loss goes.

    The ideal lies a tenth of the way from the constant model below the lowest loss that was reached, so that hardly
    anything gets there; the reference is the constant model.

    Returns:
        the range of training losses, and the validation losses ``K`` of the single models.
    """
    val = _needed(prepared)
    horizons = prepared.data.value.size(1)
    lowest, judged = [], []
    for place in range(horizons):
        alone = with_combiner(model, WeightedSum([float(k == place) for k in range(horizons)]))
        alone.fit_prepared(prepared)
        lowest.append(min(losses[place] for losses in alone.history["train"]))
        judged.append(_judge(alone, val)[place])
        _log.info("horizon %d alone: %.5f on validation", place, judged[-1])
    constant = constant_losses(model.head, prepared.data.value, non_payers=model.settings.non_payers).tolist()
    # A horizon where nothing beats the constant still needs a range.
    reference = [max(high, low + _LEAST) for low, high in zip(lowest, constant, strict=True)]
    ideal = [low - _MARGIN * (high - low) for low, high in zip(lowest, reference, strict=True)]
    return LossRange(tuple(ideal), tuple(reference)), tuple(judged)


def sweep(
    model: GRePO,
    prepared: Prepared,
    preferences: Sequence[Sequence[float]],
    make: Make,
    measured: tuple[LossRange, tuple[float, ...]] | None = None,
) -> ParetoFront:
    """Train for each preference, the first from the start, the others from where the nearest one ended.

    Where a run starts is a point of the front already, so its own point is the best of its epochs, not its start.

    Args:
        model: its settings; its combiner is not used.
        prepared: with validation.
        preferences: ``K`` positive numbers each.
        make: from a preference and a range of training losses to a combiner.
        measured: what :func:`measured_range` says of the model, where it is known: several sweeps need it once.

    Raises:
        ValueError: no preference, no validation.
    """
    if not preferences:
        raise ValueError("preferences is empty; give at least one, such as those of preference_grid(K).")
    val = _needed(prepared)
    scale, single = measured_range(model, prepared) if measured is None else measured
    points: list[SweepPoint] = []
    for wanted in preferences:
        preference = tuple(float(share) / float(sum(wanted)) for share in wanted)
        one = with_combiner(model, make(preference, scale))
        near = min(points, key=lambda point: _apart(point.preference, preference), default=None)
        if near is not None:
            one.settings = dataclasses.replace(one.settings, lr=_GENTLER * one.settings.lr)
        one.fit_prepared(prepared, None if near is None else near.model)
        points.append(SweepPoint(preference, _judge(one, val), one))
        _log.info("preference %s: %s", preference, points[-1].losses)
    constant = tuple(constant_losses(model.head, prepared.data.value, val.value).tolist())
    return ParetoFront(tuple(points), prepared.columns.horizons, single, constant)


class ParetoSweep:
    """A sweep as a method: it predicts with the model that validation chooses. Other arguments are those of GRePO.

    Args:
        combine: see :func:`preferring`.
        preferences: see :func:`sweep`; those of :func:`preference_grid` where they are not given.
        options: of :class:`~graphfm.ltv.grepo.GRePO`.

    Attributes, once fitted: ``front``.
    """

    def __init__(
        self,
        *,
        combine: str | type[Combiner] | Make = "EPO",
        preferences: Sequence[Sequence[float]] | None = None,
        **options: Any,
    ) -> None:
        self.make, self.preferences, self.model = preferring(combine), preferences, GRePO(**options)
        self.front: ParetoFront | None = None

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> ParetoSweep:
        """Sweep; ``val`` stops each run and chooses among them.

        Raises:
            ValueError: as :meth:`GRePO.fit`, and without ``val``.
        """
        prepared = self.model.prepare(tasks, val)
        wanted = self.preferences or preference_grid(len(prepared.columns.horizons))
        self.front = sweep(self.model, prepared, wanted, self.make)
        return self

    def predict(self, task: Task) -> Forecast:
        """What the chosen model says."""
        if self.front is None:
            raise RuntimeError("the sweep has no models yet; call fit first.")
        return self.front.best.predict(task)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the chosen model, which :meth:`load` reads, and the front for the report."""
        if self.front is None:
            raise RuntimeError("the sweep has no models yet; call fit first.")
        written = self.front.best.save(folder)
        self.front.write(folder)
        return written

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: torch.device | str | None = None) -> GRePO:
        """The chosen model."""
        return GRePO.load(folder, device=device)


def _signature() -> inspect.Signature:
    own = list(inspect.signature(ParetoSweep.__init__).parameters.values())[1:-1]
    names = {parameter.name for parameter in own}
    theirs = [p for p in inspect.signature(GRePO).parameters.values() if p.name not in names]
    return inspect.Signature([*own, *theirs])


ParetoSweep.__signature__ = _signature()  # type: ignore[attr-defined]  # which arguments it takes, for the command line


def with_combiner(model: GRePO, combiner: Combiner) -> GRePO:
    """A model with the same settings, not fitted, and another combiner."""
    other = copy.copy(model)
    other.combine, other.network, other.history = combiner, None, {}
    return other


def _judge(model: GRePO, val: Labelled) -> tuple[float, ...]:
    return tuple(losses_of(model.fitted_network(), val.to(model.device)).tolist())


def _needed(prepared: Prepared) -> Labelled:
    if prepared.val is None:
        raise ValueError("a sweep needs validation tasks: they stop each run and choose among them.")
    return prepared.val


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    return float(np.abs(np.log(one) - np.log(other)).sum())
