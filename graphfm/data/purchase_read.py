"""Purchase logs from CSV, parquet and pandas. The only file that knows pandas and pyarrow (extra ``ltv``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from graphfm.data.purchase_columns import find_columns
from graphfm.data.purchase_report import ReadReport, sift
from graphfm.data.purchases import Purchases, Returns, build

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["read_purchases"]

_UNITS = {"s": 1e9, "ms": 1e12, "us": 1e15, "ns": 1e18}  # magnitude of the year 2001 in each


def read_purchases(
    source: str | os.PathLike[str] | Any,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    amount: str | None = None,
    quantity: str | None = None,
    price: str | None = None,
    returns: Returns = "net",
    duplicates: Literal["keep", "drop"] = "keep",
    invalid: Literal["raise", "drop"] = "raise",
    timezone: str = "UTC",
    time_format: str | None = None,
    item_pattern: str | None = None,
) -> Purchases:
    """Read a log of purchases.

    Args:
        source: a CSV file (``.csv``, also compressed), a parquet file or folder, or a ``pandas.DataFrame``.
        user: the column of users; columns that are not named are recognised by common names, see
            :mod:`graphfm.data.purchase_columns`. Rows without a user are dropped.
        item: the column of items; a log may have none.
        time: the column of times: ISO text, another format with ``time_format``, timestamps, or whole numbers since
            1970 (seconds, ms, us or ns by their size).
        amount: the column of what was paid.
        quantity: with ``price``: amount = quantity x price.
        price: price of one. Rows with a price below 0 are bookkeeping and dropped.
        returns: amounts below 0 are kept and netted, or dropped.
        duplicates: rows alike in user, item, time and amount are kept, or dropped but one.
        invalid: what to do with times and amounts that are there but cannot be used (text, infinite).
        timezone: of times that name none, as ``"Europe/London"``; an hour that occurs twice in autumn counts as
            summer time, one that is skipped in spring as the first moment after it.
        time_format: as for ``strptime``.
        item_pattern: regular expression that an item's whole name must match; others (postage, fees) are dropped.

    Returns:
        the log; ``.report`` says which columns were taken and which rows were dropped.

    Raises:
        ImportError: the extra ``ltv`` is not installed.
        FileNotFoundError: no such file.
        ValueError: columns that cannot be told, values that cannot be used, or no event left.
        TypeError: another kind of source.
    """
    for name, value, choices in (("invalid", invalid, ("raise", "drop")), ("duplicates", duplicates, ("keep", "drop"))):
        if value not in choices:
            raise ValueError(f"{name} must be one of {choices}, got {value!r}.")
    given = {"user": user, "item": item, "time": time, "amount": amount, "quantity": quantity, "price": price}
    frame, columns, notes = _load(source, given)
    rows = len(frame)
    if rows == 0:
        raise ValueError("the log has no rows.")
    money = _money(frame, columns)
    moment, late_notes, bad_time = _times(frame[columns["time"]], timezone, time_format)
    who, users = _codes(frame[columns["user"]])
    what, items = _codes(frame[columns["item"]]) if "item" in columns else (np.zeros(rows, dtype=np.int32), users[:0])
    unwanted = _unlike(what, items, item_pattern)
    problems = {**money.invalid, f"time in column {columns['time']!r} that cannot be read": bad_time}
    if invalid == "raise":
        _refuse(frame, columns, problems)
    reasons = [
        ("no user", who < 0),
        ("no item", what < 0),
        ("no time", np.isnat(moment) & ~bad_time),
        *problems.items(),
        *money.missing.items(),
        (f"item does not match {item_pattern!r}", unwanted),
    ]
    del frame
    _release()
    keep, dropped = sift(rows, reasons)
    report = ReadReport(rows, int(keep.sum()), columns, dropped, (*notes, *late_notes))
    if not keep.any():
        raise ValueError(f"the log has no events left. {report}")
    who, what, ticks, paid = (array[keep] for array in (who, what, moment.view(np.int64), money.amount))
    drop_twins = duplicates == "drop"
    return build(who, what, ticks, paid, users, items, returns=returns, drop_twins=drop_twins, report=report)


def _pandas() -> ModuleType:
    try:
        import pandas
        import pyarrow  # noqa: F401 (parquet, and text in little memory)
    except ImportError as error:
        raise ImportError(
            "Reading purchase logs needs the extra 'ltv' (pandas and pyarrow): pip install 'graphfm[ltv]'. "
            f"Importing it said: {error}. Purchases.from_arrays takes numpy arrays without it."
        ) from error
    return pandas


def _release() -> None:
    """Give back what Arrow keeps for tables to come: 50 bytes an event, while the log is sorted."""
    import pyarrow

    pyarrow.default_memory_pool().release_unused()


def _load(source: Any, given: dict[str, str | None]) -> tuple[Any, dict[str, str], tuple[str, ...]]:
    """The needed columns as a DataFrame, which column is what, and notes."""
    pandas = _pandas()
    if isinstance(source, pandas.DataFrame):
        columns, notes = find_columns(list(source.columns), given)
        return source[list(dict.fromkeys(columns.values()))], columns, notes
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source must be a path or a pandas.DataFrame, got {type(source).__name__}.")
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no such log: {path}")
    if path.is_dir() or path.suffix in (".parquet", ".pq"):
        from pyarrow import dataset

        table = dataset.dataset(path, format="parquet", partitioning="hive")
        columns, notes = find_columns(table.schema.names, given)
        return table.to_table(columns=list(columns.values())).to_pandas(self_destruct=True), columns, notes
    if ".csv" not in path.suffixes:
        raise ValueError(f"{path} must end in .csv (perhaps compressed: .csv.gz), .parquet or .pq, or be a folder.")
    try:
        columns, notes = find_columns(list(pandas.read_csv(path, nrows=0).columns), given)
        # Identifiers stay text: 00123 is not 123, and a missing one would turn all others into fractions.
        text = {columns[part]: str for part in ("user", "item") if part in columns}
        frame = pandas.read_csv(path, usecols=list(columns.values()), dtype=text, low_memory=False)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}.") from error
    return frame, columns, notes


def _codes(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """A number for every row (-1: missing or blank), and the names that the numbers stand for."""
    pandas = _pandas()
    codes, names = pandas.factorize(column, use_na_sentinel=True)
    if pandas.api.types.is_float_dtype(names.dtype) and np.isfinite(names).all() and (names == np.floor(names)).all():
        names = names.astype(np.int64)  # whole numbers that a missing one had turned into fractions
    if pandas.api.types.is_integer_dtype(names.dtype):
        return codes, np.asarray(names, dtype=np.int64)
    text = np.asarray(names.astype(str), dtype=str)
    blank = np.char.strip(text) == ""
    if blank.any():
        codes = np.where(blank[codes] & (codes >= 0), -1, codes)
    return codes, text


def _unlike(codes: np.ndarray, names: np.ndarray, pattern: str | None) -> np.ndarray:
    """Mask of the rows whose item does not match."""
    if pattern is None or not len(names):
        return np.zeros(len(codes), dtype=bool)
    matches = _pandas().Series(names.astype(str)).str.fullmatch(pattern).to_numpy(dtype=bool)
    return np.asarray(~matches[codes] & (codes >= 0))


class _Money:
    """What was paid, ``amount`` ``[rows]``, with the rows that tell nothing or nonsense by reason."""

    def __init__(self) -> None:
        self.amount: np.ndarray = np.zeros(0)
        self.missing: dict[str, np.ndarray] = {}
        self.invalid: dict[str, np.ndarray] = {}

    def number(self, column: Any) -> np.ndarray:
        """A column as float64; what is no number, infinite or missing is 0 and noted."""
        pandas = _pandas()
        values = pandas.to_numeric(column, errors="coerce")
        if pandas.api.types.is_bool_dtype(column) or values.dtype.kind not in "iuf":
            raise ValueError(f"column {column.name!r} must hold numbers, got {column.dtype}.")
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        empty = column.isna().to_numpy(dtype=bool)
        self.missing[f"no {column.name}"] = empty
        self.invalid[f"{column.name} that is no number"] = np.isnan(numbers) & ~empty
        self.invalid[f"{column.name} that is infinite"] = np.isinf(numbers)
        return np.where(np.isfinite(numbers), numbers, 0.0)


def _money(frame: Any, columns: dict[str, str]) -> _Money:
    money = _Money()
    if "amount" in columns:
        money.amount = money.number(frame[columns["amount"]])
        return money
    quantity, price = money.number(frame[columns["quantity"]]), money.number(frame[columns["price"]])
    money.amount = quantity * price
    money.invalid[f"{columns['quantity']} x {columns['price']} that is infinite"] = np.isinf(money.amount)
    money.missing["price below 0"] = price < 0
    money.missing["return of something without a price"] = (quantity < 0) & (price == 0)
    return money


def _times(column: Any, timezone: str, time_format: str | None) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Times as ``datetime64[us]`` in UTC, what was assumed, and a mask of those that are there but cannot be read."""
    pandas = _pandas()
    notes: tuple[str, ...] = ()
    kind = pandas.api.types
    if kind.is_bool_dtype(column):
        raise ValueError(f"time column {column.name!r} must hold times, got {column.dtype}.")
    if kind.is_numeric_dtype(column):
        stamps, notes = _stamps(column)
    elif kind.is_datetime64_any_dtype(column):
        stamps = column
    else:
        stamps = pandas.to_datetime(column, format=time_format or "ISO8601", errors="coerce", utc=timezone == "UTC")
        notes = (f"times that name no zone were taken as {timezone}",)
    if getattr(stamps.dtype, "tz", None) is None:
        if kind.is_object_dtype(stamps.dtype):
            raise ValueError(f"time column {column.name!r} mixes times with and without a zone; leave timezone='UTC'.")
        stamps = stamps.dt.tz_localize(timezone, ambiguous=np.ones(len(stamps), bool), nonexistent="shift_forward")
        notes = (f"times that name no zone were taken as {timezone}",)
    utc = stamps.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    return utc, notes, np.isnat(utc) & column.notna().to_numpy(dtype=bool)


def _stamps(column: Any) -> tuple[Any, tuple[str, ...]]:
    """Times of whole numbers since 1970, whose unit follows from their size."""
    pandas = _pandas()
    middle = float(column.abs().median())
    unit = next((name for name, size in _UNITS.items() if 0.1 * size <= middle < 100 * size), None)
    if unit is None:
        raise ValueError(
            f"time column {column.name!r} holds numbers around {middle:g}, which are no seconds, ms, us or ns since "
            "1970; write times as text or timestamps."
        )
    return pandas.to_datetime(column, unit=unit, utc=True, errors="coerce"), (f"times are {unit} since 1970, UTC",)


def _refuse(frame: Any, columns: dict[str, str], problems: dict[str, np.ndarray]) -> None:
    """Raise for the first kind of unusable value."""
    for reason, mask in problems.items():
        if mask.any():
            row = int(np.argmax(mask))
            shown = {part: frame[name].iloc[row] for part, name in columns.items() if part not in ("user", "item")}
            hint = " Times of another format need time_format." if reason.startswith("time") else ""
            raise ValueError(
                f"{int(mask.sum())} of {len(frame)} rows hold {reason}, first row {row}: {shown}.{hint} "
                "Mend them, or leave them out with invalid='drop'."
            )
