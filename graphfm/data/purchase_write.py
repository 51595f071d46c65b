"""Tables of any length to parquet and CSV, a piece at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["write_table"]


def write_table(path: str | os.PathLike[str], pieces: Iterable[Mapping[str, np.ndarray]]) -> int:
    """Write columns piece by piece; the file is there when all of it is, and not before.

    Args:
        path: ends in ``.parquet``, ``.pq`` or ``.csv``; an older file is replaced.
        pieces: at least one, each with the same columns; only one is held at a time.

    Returns:
        the number of rows.

    Raises:
        ImportError: the extra ``ltv`` is not installed.
        ValueError: another ending, or no piece.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".parquet", ".pq", ".csv"):
        raise ValueError(f"{path} must end in .parquet, .pq or .csv.")
    try:
        import pyarrow
        from pyarrow import csv, parquet
    except ImportError as error:
        raise ImportError("Writing tables needs the extra 'ltv' (pyarrow): pip install 'graphfm[ltv]'.") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    writer: Any = None
    rows = 0
    try:
        for piece in pieces:
            table = pyarrow.table({name: pyarrow.array(column) for name, column in piece.items()})
            if writer is None:
                kind = csv.CSVWriter if path.suffix == ".csv" else parquet.ParquetWriter
                writer = kind(str(part), table.schema)
            writer.write_table(table)
            rows += table.num_rows
        if writer is None:
            raise ValueError("there is nothing to write.")
        writer.close()
        os.replace(part, path)
    finally:
        if writer is not None:
            writer.close()
        part.unlink(missing_ok=True)
    return rows
