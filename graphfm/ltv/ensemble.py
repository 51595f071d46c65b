"""Several methods at once: the mean of their forecasts."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphfm.bundle import CheckpointError, read_bundle, refusing, write_bundle
from graphfm.ltv.forecast import Forecast
from graphfm.ltv.maker import Method, maker
from graphfm.ltv.streams import streamed
from graphfm.ltv.task import Task

__all__ = ["Ensemble"]

_STEM = "ensemble"
_FOLDER = re.compile(r"member-[0-9a-f]{32}-[0-9]{1,3}")


class Ensemble:
    """Every method is fitted by itself; P(pay), mean and quantiles are the means of theirs, all of one weight.

    Nothing is chosen, so nothing can be chosen on the wrong data. It helps where methods err on different customers:
    BG/NBD reads when each one bought, trees what is typical of those alike. Quantiles are averaged level by level
    (Vincent averaging), which keeps them in order; there are none unless every method has them, at the same levels.

    Args:
        methods: names, as :func:`graphfm.ltv.maker.maker` reads them.
        seed: of every method that takes one.
        device: likewise.

    Raises:
        ValueError: no method, an unknown one, or arguments that it does not take.
    """

    def __init__(
        self,
        *,
        methods: Sequence[str] = ("BTYD", "Tweedie(neighbours=True)"),
        seed: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        if isinstance(methods, str) or not methods:
            raise ValueError(f"methods must be at least one name, such as ('BTYD', 'Tweedie'); got {methods!r}.")
        self.names = tuple(methods)
        more = {} if device is None else {"device": device}
        self.methods: list[Any] = [maker(name)(seed, **more) for name in self.names]

    def fit(self, tasks: Sequence[Task], val: Sequence[Task] = ()) -> Ensemble:
        """Fit one method after the other on the same tasks."""
        for method in self.methods:
            method.fit(tasks, val)
        return self

    def predict(self, task: Task) -> Forecast:
        """The mean forecast.

        Raises:
            ValueError: forecasts of different shapes.
        """
        return _mean([method.predict(task) for method in self.methods])

    def stream(self, task: Task, rows: int = 65536) -> Iterator[tuple[Task, Forecast]]:
        """:meth:`predict` some members at a time.

        Yields:
            a part of the task and its forecast.
        """
        for pieces in zip(*(streamed(method, task, rows) for method in self.methods), strict=True):
            yield pieces[0][0], _mean([forecast for _, forecast in pieces])

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write every method to a folder of its own, and last what names them: an old fit stays whole until then.

        Raises:
            ValueError: a method that cannot be saved.
            OSError: the folder cannot be written.
        """
        for name, method in zip(self.names, self.methods, strict=True):
            if not hasattr(method, "save"):
                raise ValueError(f"{name} of the ensemble cannot be saved; take methods that have save and load.")
        folder, fit = Path(folder), uuid.uuid4().hex
        places = [f"member-{fit}-{k}" for k in range(len(self.methods))]
        for method, place in zip(self.methods, places, strict=True):
            method.save(folder / place)
        write_bundle(folder, _STEM, {"methods": list(self.names), "folders": places}, {})
        for old in folder.iterdir():
            if _FOLDER.fullmatch(old.name) and old.name not in places:
                shutil.rmtree(old, ignore_errors=True)
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: torch.device | str | None = None) -> Ensemble:
        """Read what :meth:`save` wrote. Methods are looked for in :mod:`graphfm.ltv` alone: importing a module runs it.

        Raises:
            CheckpointError: a folder that holds something else, or that is damaged.
        """
        settings, _ = read_bundle(folder, _STEM)
        with refusing(folder, cls.__name__):
            names, places = list(settings["methods"]), list(settings["folders"])
            foreign = [name for name in names if ":" in name.partition("(")[0]]
            if foreign or not all(_FOLDER.fullmatch(place) for place in places):
                raise CheckpointError(f"{folder} names {foreign or places}, which no file may have loaded.")
            made = cls(methods=names, device=device)
            kinds = zip(made.methods, places, strict=True)
            made.methods = [_loaded(type(method), Path(folder) / place, device) for method, place in kinds]
        return made


def _loaded(kind: Any, folder: Path, device: torch.device | str | None) -> Method:
    more = {"device": device} if "device" in inspect.signature(kind.load).parameters else {}
    found: Method = kind.load(folder, **more)
    return found


def _mean(parts: Sequence[Forecast]) -> Forecast:
    shapes = {part.mean.shape for part in parts}
    if len(shapes) > 1:
        raise ValueError(f"the methods of an ensemble must forecast the same members and horizons, got {shapes}.")
    told = [part.quantiles for part in parts if part.quantiles is not None]
    alike = len(told) == len(parts) and len({part.levels for part in parts}) == 1
    return Forecast(
        np.mean([part.pay for part in parts], axis=0),
        np.mean([part.mean for part in parts], axis=0),
        np.mean(told, axis=0) if alike else None,
        parts[0].levels if alike else (),
    )
