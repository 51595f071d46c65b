"""``graphfm ltv``: evaluate methods on a log, fit one, and score customers with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from graphfm.data.purchases import Purchases
    from graphfm.ltv.setup import Setup

__all__ = ["ltv_app"]

ltv_app = typer.Typer(help="LifeTime Value over several horizons from a purchase log.", no_args_is_help=True)

METHODS = ("Mean", "HistoricMean", "BTYD", "TwoStage(neighbours=True)", "Tweedie(neighbours=True)", "GRePO")

Log = Annotated[Path, typer.Option("--log", help="CSV or parquet file (or parquet folder) of purchases.")]
Horizons = Annotated[str, typer.Option(help="Days, rising: 3,7,14,30.")]
Unit = Annotated[str, typer.Option(help="pair (user and item) or user.")]
Who = Annotated[str, typer.Option(help="new, active or all, within --days before a cutoff.")]
Days = Annotated[float, typer.Option(help="How far back --who looks.")]
Since = Annotated[str, typer.Option(help="When horizons start: cutoff, or first (each one's first purchase).")]
CountFirst = Annotated[bool, typer.Option("--count-first", help="The first purchase counts in the value.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda, for methods that have a choice.")]
Spacing = Annotated[float | None, typer.Option(help="Days between origins; the longest horizon if left out.")]
User = Annotated[str | None, typer.Option(help="Column of users; common names are recognised.")]
Item = Annotated[str | None, typer.Option(help="Column of items.")]
Time = Annotated[str | None, typer.Option(help="Column of times.")]
Amount = Annotated[str | None, typer.Option(help="Column of what was paid.")]
Quantity = Annotated[str | None, typer.Option(help="Column of quantities, with --price in the place of --amount.")]
Price = Annotated[str | None, typer.Option(help="Column of prices.")]
Returns = Annotated[str, typer.Option(help="Amounts below 0: net or drop.")]
Invalid = Annotated[str, typer.Option(help="Rows that cannot be read: raise or drop.")]
Timezone = Annotated[str, typer.Option(help="Of times that name none.")]


@ltv_app.command("evaluate")
def evaluate(
    log: Log,
    out: Annotated[Path, typer.Option(help="Folder for results, predictions and the report.")],
    horizons: Horizons = "3,7,14,30",
    method: Annotated[
        list[str], typer.Option(help="Mean, BTYD, TwoStage(neighbours=True), GRePO, module:Name, ...; several times.")
    ] = list(METHODS),  # noqa: B006 - typer copies it
    unit: Unit = "pair",
    who: Who = "new",
    days: Days = 7,
    since: Since = "cutoff",
    count_first: CountFirst = False,
    test: Annotated[int, typer.Option(min=1, help="Origins that are scored.")] = 3,
    val: Annotated[int, typer.Option(min=0, help="Origins before each that settings are chosen by.")] = 1,
    spacing: Spacing = None,
    drift: Annotated[int, typer.Option(min=0, help="Days after the first test origin to score again.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 0 .. N - 1.")] = 1,
    audit: Annotated[bool, typer.Option("--audit", help="Change the future and see that no prediction moves.")] = False,
    device: Device = None,
    user: User = None,
    item: Item = None,
    time: Time = None,
    amount: Amount = None,
    quantity: Quantity = None,
    price: Price = None,
    returns: Returns = "net",
    invalid: Invalid = "raise",
    timezone: Timezone = "UTC",
) -> None:
    """Compare methods over rolling origins; writes results and an HTML report, and goes on where it stopped."""
    from graphfm.ltv.evaluate import evaluate_ltv
    from graphfm.ltv.maker import maker
    from graphfm.ltv.report import write_ltv_report
    from graphfm.report import plots

    methods = {name: maker(name) for name in _listed(method)}
    asked: dict[str, Any] = {"since": since, "count_first": count_first}
    setup = _setup(horizons, unit, who, days, **asked, test=test, val=val, spacing=spacing, drift=drift)
    events = _read(log, user, item, time, amount, quantity, price, returns, invalid, timezone)
    options: dict[str, Any] = {"seeds": range(seeds), "out": out, "device": device, "audit": audit, "progress": True}
    evaluate_ltv(events, methods, setup, dataset=_name(log), **options)
    page = write_ltv_report(out, out / "report.html", title=f"Lifetime value: {_name(log)}")
    typer.echo(_board(out))
    typer.echo(f"Report: {page}" + ("" if plots.available() else ' (no plots: pip install "graphfm[viz]")'))


@ltv_app.command("fit")
def fit(
    log: Log,
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    horizons: Horizons = "3,7,14,30",
    method: Annotated[str, typer.Option(help="GRePO, TwoStage(neighbours=True), Tweedie, ...")] = "GRePO",
    unit: Unit = "pair",
    who: Who = "new",
    days: Days = 7,
    since: Since = "cutoff",
    count_first: CountFirst = False,
    spacing: Spacing = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Device = None,
    user: User = None,
    item: Item = None,
    time: Time = None,
    amount: Amount = None,
    quantity: Quantity = None,
    price: Price = None,
    returns: Returns = "net",
    invalid: Invalid = "raise",
    timezone: Timezone = "UTC",
) -> None:
    """Fit one method on everything that a log tells, and save it."""
    from graphfm.bundle import check_writable
    from graphfm.ltv.saved import fit_scorer

    setup = _setup(horizons, unit, who, days, since=since, count_first=count_first, spacing=spacing)
    check_writable(out)
    events = _read(log, user, item, time, amount, quantity, price, returns, invalid, timezone)
    fit_scorer(events, method, setup, seed=seed, device=device).save(out)
    typer.echo(f"Saved to {out}. Next: graphfm ltv predict --model {out} --log FILE --out predictions.parquet")


@ltv_app.command("predict")
def predict(
    model: Annotated[Path, typer.Option(help="Folder that `graphfm ltv fit` wrote.")],
    log: Log,
    out: Annotated[Path, typer.Option(help="predictions.parquet or predictions.csv.")],
    at: Annotated[str | None, typer.Option(help="Date, as 2024-05-31; the end of the log if left out.")] = None,
    who: Annotated[str | None, typer.Option(help="Another choice than that of the fit: new, active or all.")] = None,
    days: Annotated[float | None, typer.Option(help="How far back --who looks, if not as in the fit.")] = None,
    members: Annotated[int, typer.Option(min=1, help="How many are scored at a time: bounds memory.")] = 500_000,
    method: Annotated[
        str | None, typer.Option(help="Needed for a method of your own: the name it was fitted by.")
    ] = None,
    device: Device = None,
    user: User = None,
    item: Item = None,
    time: Time = None,
    amount: Amount = None,
    quantity: Quantity = None,
    price: Price = None,
    returns: Returns = "net",
    invalid: Invalid = "raise",
    timezone: Timezone = "UTC",
) -> None:
    """Score everybody who is asked about at a date: user, item, horizon, P(pay), mean and quantiles."""
    import dataclasses

    from graphfm.data.purchase_write import write_table
    from graphfm.ltv.saved import Scorer

    scorer = Scorer.load(model, method=method, device=device)
    changed: dict[str, Any] = {name: value for name, value in {"who": who, "days": days}.items() if value is not None}
    scorer = dataclasses.replace(scorer, setup=dataclasses.replace(scorer.setup, **changed))
    events = _read(log, user, item, time, amount, quantity, price, returns, invalid, timezone)
    moment = at if at is not None else int(events.time[-1]) + 1
    rows = write_table(out, scorer.table(events, moment, members=members))
    typer.echo(f"{rows} rows in {out}")


def _setup(horizons: str, unit: str, who: str, days: float, **others: Any) -> Setup:
    from graphfm.ltv.labels import check_horizons
    from graphfm.ltv.setup import Setup

    try:
        wanted = check_horizons([float(part) for part in horizons.split(",")])
    except ValueError as error:
        raise ValueError(f"--horizons must be rising days such as 3,7,14,30, got {horizons!r} ({error}).") from error
    return Setup(wanted, unit, who, days, **others)  # type: ignore[arg-type]  # checked where it is used


def _read(
    log: Path,
    user: str | None,
    item: str | None,
    time: str | None,
    amount: str | None,
    quantity: str | None,
    price: str | None,
    returns: str,
    invalid: str,
    timezone: str,
) -> Purchases:
    from graphfm.data import read_purchases

    options: dict[str, Any] = {
        "user": user,
        "item": item,
        "time": time,
        "amount": amount,
        "quantity": quantity,
        "price": price,
    }
    options |= {"returns": returns, "invalid": invalid, "timezone": timezone}
    found = read_purchases(log, **options)
    typer.echo(str(found.report), err=True)
    return found


def _name(log: Path) -> str:
    """A log's name: that of its folder where the file is just called purchases."""
    stem = log.name.split(".")[0]
    return log.resolve().parent.name if stem in ("purchases", "log", "transactions", "data") else stem


def _listed(values: list[str]) -> list[str]:
    """Comma lists and repeated options alike; a comma within parentheses belongs to the method."""
    parts = [part.strip() for value in values for part in re.split(r",(?![^()]*\))", value)]
    return list(dict.fromkeys(part for part in parts if part))


def _board(folder: Path) -> str:
    """The leaderboard as plain text."""
    from graphfm.ltv.leaderboard import leaderboards

    lines = []
    for board in leaderboards(folder):
        width = max(len(row.method) for row in board.rows)
        horizons = "".join(f"{f'{days:g} d':>8}" for days in board.horizons)
        lines.append(f"{board.title}: normalised Gini by horizon, their mean, bias at the longest, seconds")
        lines.append(f"{'':<{width}}{horizons}{'mean':>8}{'bias':>8}{'s':>8}")
        for row in board.rows:
            ginis = "".join(f"{row.at('gini', days):8.3f}" for days in board.horizons)
            bias = row.at("bias", board.horizons[-1])
            lines.append(f"{row.method:<{width}}{ginis}{row.metrics['gini']:8.3f}{bias:8.2f}{row.seconds:8.1f}")
    return "\n".join(lines)
