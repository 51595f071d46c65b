"""A model of its own for each horizon: what sharing a trunk has to beat."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphfm.bundle import read_bundle, refusing, write_bundle
from graphfm.ltv.forecast import Forecast
from graphfm.ltv.grepo import GRePO
from graphfm.ltv.labels import Labels
from graphfm.ltv.task import Task

__all__ = ["SingleTask", "of_horizon"]

_STEM = "single-task"


def of_horizon(task: Task, place: int) -> Task:
    """The same task for one of its horizons."""
    labels, one = task.labels, (task.horizons[place],)
    if labels is not None:
        clipped = labels.clipped[place : place + 1]
        labels = Labels(labels.value[:, place : place + 1], one, clipped, labels.count_first)
    # The snapshot of the whole task, not one for each horizon.
    return dataclasses.replace(task, horizons=one, labels=labels, graph=task.snapshot)


class SingleTask:
    """As many :class:`~graphfm.ltv.grepo.GRePO` as there are horizons; arguments are theirs.

    They share the frozen encoder, which knows no horizons. Nothing keeps their forecasts from falling over the
    horizons.
    """

    __signature__ = inspect.signature(GRePO)

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.models: list[GRePO] = [GRePO(**options)]  # errors in the options are told at once

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> SingleTask:
        """Fit one model after the other."""
        options, self.models = dict(self.options), []
        for place in range(len(tasks[0].horizons) if tasks else 1):
            model = GRePO(**options)
            model.fit([of_horizon(task, place) for task in tasks], [of_horizon(task, place) for task in val])
            if model.encoder is not None:
                options["graph"] = model.encoder
            self.models.append(model)
        return self

    def predict(self, task: Task) -> Forecast:
        """Forecasts of all models side by side."""
        if len(task.horizons) != len(self.models):
            raise ValueError(f"the models are of {len(self.models)} horizons, the task asks for {task.horizons}.")
        parts = [model.predict(of_horizon(task, place)) for place, model in enumerate(self.models)]
        quantiles = [part.quantiles for part in parts if part.quantiles is not None]
        return Forecast(
            np.concatenate([part.pay for part in parts], axis=1),
            np.concatenate([part.mean for part in parts], axis=1),
            np.concatenate(quantiles, axis=1) if quantiles else None,
            parts[0].levels,
        )

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write all models as one, so that a folder never holds some of an old fit; the encoder once.

        Raises:
            RuntimeError: ``fit`` was not called.
            OSError: the folder cannot be written; what was there before stays whole.
        """
        from graphfm.ltv.store import state_of  # late, as GRePO has it

        settings: list[dict[str, Any]] = []
        tensors: dict[str, Tensor] = {}
        for place, model in enumerate(self.models):
            known, found = state_of(model)
            if place and model.encoder is self.models[0].encoder:
                known["encoder"] = None
                found = {name: tensor for name, tensor in found.items() if not name.startswith("encoder.")}
            settings.append(known)
            tensors |= {f"{place}.{name}": tensor for name, tensor in found.items()}
        write_bundle(folder, _STEM, {"models": settings}, tensors)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: torch.device | str | None = None) -> SingleTask:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: a folder that holds something else, or that is damaged.
        """
        from graphfm.ltv.store import model_of

        settings, tensors = read_bundle(folder, _STEM)
        made = cls()
        with refusing(folder, cls.__name__):
            made.models = [
                model_of(one, _beginning(f"{k}.", tensors), device) for k, one in enumerate(settings["models"])
            ]
            for model in made.models[1:]:
                model.encoder = model.encoder or made.models[0].encoder
        return made


def _beginning(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
