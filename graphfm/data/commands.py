"""``graphfm data``: the datasets that have a name, and the numbers of one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = ["data_app"]

data_app = typer.Typer(help="Look at the datasets that can be named.", no_args_is_help=True)


@data_app.command("list")
def data_list() -> None:
    """List the datasets that have a name."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from graphfm.data import catalogue

    entries = catalogue()
    rows = [
        (
            entry.name,
            f"{entry.where} ({entry.extra})" if entry.extra else entry.where,
            entry.domain + (", with text" if entry.text else ""),
        )
        for entry in entries
    ]
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", caption_justify="left")
    for place, name in enumerate(("name", "where", "about")):
        widest = max((len(row[place]) for row in rows), default=0)
        table.add_column(name, overflow="fold", min_width=widest if name != "about" else None)  # the last gives way
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    extras = dict.fromkeys(entry.extra for entry in entries if entry.extra)
    if extras:
        table.caption = Text("\n".join(f'({extra}): needs pip install "graphfm[{extra}]"' for extra in extras))
    Console().print(table)


@data_app.command("show")
def data_show(name: Annotated[str, typer.Argument(help="A dataset's name or a file.")]) -> None:
    """Load one dataset and print its numbers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from graphfm.data import describe, load

    table = Table("property", "value", header_style="bold")
    for key, value in describe(load(name)).items():
        table.add_row(Text(key.replace("_", " ")), Text(_readable(value)))
    Console().print(table)


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_readable(entry)}" for key, entry in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else "-" if value is None else str(value)
