"""Forecasts a piece at a time, whatever the method."""

from __future__ import annotations

from collections.abc import Iterator

from graphfm.ltv.forecast import Forecast
from graphfm.ltv.maker import Method
from graphfm.ltv.task import Task, parts

__all__ = ["streamed"]


def streamed(method: Method, task: Task, rows: int) -> Iterator[tuple[Task, Forecast]]:
    """Parts of a task, ``rows`` members each, with their forecasts; only one is held at a time.

    By the method's own ``stream`` where it has one, else by ``predict`` of one part after the other.
    """
    stream = getattr(method, "stream", None)
    if stream is not None:
        yield from stream(task, rows)
        return
    if len(task.population) > rows:
        task.snapshot  # noqa: B018 - made once for all parts
    for part in parts(len(task.population), rows):
        piece = task.part(part)
        yield piece, method.predict(piece)
