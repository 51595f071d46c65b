"""A progress bar for long work, silent unless asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

__all__ = ["progress_bar"]


@contextlib.contextmanager
def progress_bar(total: int, what: str, *, enabled: bool) -> Iterator[Callable[..., None]]:
    """Yield ``advance(steps, note="")``; draws on standard error where ``enabled``."""
    if not enabled:
        yield lambda steps, note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, note="")
        yield lambda steps, note="": bar.update(task, advance=steps, note=note)
