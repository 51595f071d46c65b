"""One measured cell, its line in a JSON-lines file, and the statistics over cells.

A *cell* is one method on one dataset under one split seed. Cells are appended to ``results.jsonl`` as they come, so an
interrupted grid keeps what it has and a later run can skip it. The statistics themselves live in
:mod:`graphfm.statistics` and are exported here as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphfm.statistics import Paired, Summary, best_baseline, paired, summarise

if TYPE_CHECKING:
    import torch

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind: there, one process a file
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Paired",
    "Result",
    "Summary",
    "append",
    "best_baseline",
    "cell_key",
    "done",
    "environment",
    "paired",
    "peak_memory",
    "read",
    "summarise",
]

log = logging.getLogger(__name__)

# Settings that say where or how fast a cell ran, or what came of it, not what was measured.
_VOLATILE = frozenset(
    {"device", "host", "threads", "workers", "started", "finished", "verbose", "trained_parameters", "chosen"}
)


@dataclasses.dataclass(frozen=True)
class Result:
    """One measured cell.

    Attributes:
        task: ``"node-classification"`` for now.
        dataset: name of the target graph.
        method: what was run, e.g. ``"finetune"``, ``"probe"``, ``"sgc4"``.
        seed: seed of the split (and of the method), so that cells of two methods with one seed are paired.
        metrics: fractions in [0, 1]: ``accuracy``, ``macro_f1``, ``auroc``. NaN where undefined.
        settings: JSON-able settings: ``shots`` (int), ``protocol``, ``group`` (``"floor"``, ``"control"``,
            ``"pretrained"``), ``device``, ``sources``, and whatever else tells this cell from another.
        seconds: wall-clock seconds of fit and prediction.
        peak_memory: peak bytes of the process (CPU) or of the device (CUDA) when the cell ended.
        versions: library versions.
    """

    task: str
    dataset: str
    method: str
    seed: int
    metrics: dict[str, float]
    settings: dict[str, Any]
    seconds: float
    peak_memory: int
    versions: dict[str, str]


def append(path: str | os.PathLike[str], results: Result | Iterable[Result]) -> None:
    """Append cells to a JSON-lines file, one line each; parent folders are made.

    Every line is one ``O_APPEND`` write under an advisory lock, so several processes may share a file. NaN and
    infinity are written as ``null``. A last line that a killed writer left torn is closed first; a line that does not
    fit on the disk is taken back whole, so what was there before stays readable.

    Raises:
        ValueError: a setting cannot be written as JSON, or ``path`` holds something else than results.
        OSError: the folder cannot be written, or the disk is full.
    """
    lines = [_to_line(one) for one in ([results] if isinstance(results, Result) else results)]
    path = Path(path)
    if not lines:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        advice = "choose a file in a folder you may write to"
        raise type(error)(error.errno, f"cannot write results ({error.strerror}); {advice}", str(path)) from error
    try:
        with _locked(handle):
            _close_torn_line(handle, path)
            for line in lines:
                _write_whole(handle, line, path)
    finally:
        os.close(handle)


def read(path: str | os.PathLike[str]) -> list[Result]:
    """Read the cells of a file that :func:`append` wrote; a torn line is skipped with a logged warning.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else than results; the message names the line.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no results file at {path}; `graphfm transfer --out {path}` writes one.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the results file in it (.jsonl).")
    found = []
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            line = raw.strip(b"\0 \t\r\n")  # some file systems leave NULs behind after a power cut
            if line:
                cell = _from_line(line, path, number)
                if cell is not None:
                    found.append(cell)
    return found


def cell_key(result: Result) -> str:
    """The identity of a cell: task, dataset, method, seed and every setting that is not about where it ran.

    Device, host, threads and the like are left out, so a grid that moves to another machine goes on where it stopped.
    """
    settings = {name: value for name, value in result.settings.items() if name not in _VOLATILE}
    identity = [result.task, result.dataset, result.method, int(result.seed), _plain(settings, "settings")]
    return json.dumps(identity, sort_keys=True, allow_nan=False)


def done(path: str | os.PathLike[str]) -> set[str]:
    """The keys of the cells that a file holds already (:func:`cell_key`); empty where there is no file yet."""
    return {cell_key(one) for one in read(path)} if Path(path).exists() else set()


def environment() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers; imports none of them."""
    import platform
    from importlib import metadata

    from graphfm._version import __version__

    found = {"python": platform.python_version(), "graphfm": __version__}
    for name in ("torch", "torch-geometric", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # installed without metadata, e.g. built in place
            found[name] = str(getattr(sys.modules.get(name.replace("-", "_")), "__version__", "unknown"))
    return found


def peak_memory(device: str | torch.device | None = None) -> int:
    """Peak bytes so far: of the CUDA device where ``device`` names one, of this process otherwise; 0 if unknown."""
    if device is not None and str(device).startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024  # bytes on macOS, KiB elsewhere


def _plain(value: Any, name: str) -> Any:
    """``value`` as strict JSON holds it: NaN and infinity become None, tuples lists, array scalars numbers."""
    if hasattr(value, "item"):  # a NumPy scalar or a tensor; one of several elements stays and is refused below
        with contextlib.suppress(RuntimeError, ValueError):
            value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, f"{name}[{key!r}]") for key, entry in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain(entry, f"{name}[{place}]") for place, entry in enumerate(value)]
    raise ValueError(f"{name} is a {type(value).__name__}, which JSON cannot hold; store a number, text, list or dict.")


def _to_line(result: Result) -> bytes:
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return json.dumps(_plain(fields, "result"), allow_nan=False).encode("ascii") + b"\n"


def _from_line(line: bytes, path: Path, number: int) -> Result | None:
    try:
        fields = json.loads(line)
    except ValueError:
        if line[:1] == b"{":  # a writer was killed in the middle of this line
            log.warning("%s, line %d is torn (its writer was stopped); skipped.", path, number)
            return None
        raise ValueError(f"{path} is no results file: line {number} is no JSON object.") from None
    names = {field.name for field in dataclasses.fields(Result)}
    missing = names - set(fields) if isinstance(fields, dict) else names
    if missing:
        raise ValueError(f"{path} is no results file: line {number} lacks {', '.join(sorted(missing))}.")
    if not all(isinstance(fields[name], dict) for name in ("metrics", "settings", "versions")):
        raise ValueError(f"{path} is no results file: metrics, settings or versions of line {number} is no object.")
    fields["metrics"] = {name: math.nan if value is None else value for name, value in fields["metrics"].items()}
    if fields["seconds"] is None:
        fields["seconds"] = math.nan
    return Result(**{name: fields[name] for name in names})  # a later version may have written more fields


@contextlib.contextmanager
def _locked(handle: int) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:  # some network file systems have no locks: O_APPEND alone must do
        log.debug("no lock on the results file: %s", error)
    yield  # closing the descriptor releases the lock


def _close_torn_line(handle: int, path: Path) -> None:
    """Start on a new line if the last one has no end; refuse a file of another kind."""
    size = os.fstat(handle).st_size
    if size == 0:
        return
    os.lseek(handle, 0, os.SEEK_SET)
    start = os.read(handle, 64).lstrip(b"\0 \t\r\n")
    if start and start[:1] != b"{":
        raise ValueError(f"{path} holds something else than results; choose another file to append to.")
    os.lseek(handle, -1, os.SEEK_END)
    if os.read(handle, 1) != b"\n":
        log.warning("%s ends in a torn line (its writer was stopped); going on below it.", path)
        _write_whole(handle, b"\n", path)


def _write_whole(handle: int, line: bytes, path: Path) -> None:
    """One write; if the disk takes only a part of it, the part is cut off again (the lock is held)."""
    size = os.fstat(handle).st_size
    try:
        rest = line
        while rest:  # once, unless the disk took only a part: the next write then raises with the reason
            rest = rest[os.write(handle, rest) :]
    except OSError as error:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)
        advice = "what was there before is kept; free some space and run again"
        raise type(error)(error.errno, f"cannot append a result ({error.strerror}); {advice}", str(path)) from error
