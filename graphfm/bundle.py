"""Folders of safetensors and JSON that are whole or not there, and safe to open.

A bundle is ``STEM.json`` beside ``STEM-HASH.safetensors``. The weights are written first under a name that holds their
hash; then the JSON, which names them, is put in place by one rename. A writer that is killed leaves the bundle before.
The JSON carries a digest of itself and of the weights, so a file that changed on the way is refused, not half-used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from graphfm._version import __version__

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind: there, one writer a folder
    fcntl = None  # type: ignore[assignment]

__all__ = ["CheckpointError", "check_writable", "read_bundle", "refusing", "write_bundle", "write_file"]

_FORMAT = 1
_JSON_LIMIT = 8 * 2**20
_HEADER_LIMIT = 8 * 2**20
ALL_THAT_CAN_GO_WRONG = (
    ArithmeticError, AttributeError, LookupError, RuntimeError, SafetensorError, TypeError, ValueError,
)  # fmt: skip

Folder = str | os.PathLike[str]


class CheckpointError(ValueError):
    """A folder that holds no checkpoint, or one that is damaged, foreign or too new."""


@contextlib.contextmanager
def refusing(folder: Folder, what: str) -> Iterator[None]:
    """Turn whatever goes wrong while a stranger's file is taken apart into a :class:`CheckpointError`."""
    try:
        yield
    except CheckpointError:
        raise
    except ALL_THAT_CAN_GO_WRONG as error:
        reason = str(error).split("\n")[0][:300]
        raise CheckpointError(
            f"{folder} is damaged or holds no graphfm {what} ({type(error).__name__}: {reason}); copy it again."
        ) from error


def write_bundle(folder: Folder, stem: str, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """Write one bundle atomically and return the path of its JSON.

    Raises:
        OSError: the folder cannot be made or written; what was there before stays whole.
        TypeError: settings that JSON cannot hold.
    """
    blob = save_tensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    digest = hashlib.sha256(blob).hexdigest()
    weights = f"{stem}-{digest[:16]}.safetensors"
    content = {
        "format": _FORMAT,
        "graphfm": __version__,
        "weights": {"file": weights, "bytes": len(blob), "sha256": digest},
        "settings": settings,
    }
    content = json.loads(json.dumps(content))  # as it will be read: keys become strings, tuples lists
    content["digest"] = _digest(content)
    text = (json.dumps(content, indent=1) + "\n").encode()
    if len(text) > _JSON_LIMIT:
        raise ValueError(f"settings take {len(text)} bytes as JSON, more than {_JSON_LIMIT}; keep less in the card.")
    folder = check_writable(folder)
    with _one_writer(folder):
        write_file(folder / weights, blob)
        write_file(folder / f"{stem}.json", text)
        _tidy(folder, stem, weights)
    return folder / f"{stem}.json"


def _tidy(folder: Path, stem: str, weights: str) -> None:
    """Remove the weights of the bundle before, and what writers left that were killed."""
    ours = re.compile(rf"{stem}-[0-9a-f]{{16}}\.safetensors|\.{stem}(-[0-9a-f]{{16}}\.safetensors|\.json)\..*")
    for path in folder.iterdir():
        if path.name != weights and ours.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def _one_writer(folder: Path) -> Iterator[None]:
    """Keep two processes that save into one folder from removing each other's weights."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def check_writable(folder: Folder) -> Path:
    """Make ``folder`` if it is not there, and try to write to it, before work is put into what it shall hold.

    Raises:
        OSError: it cannot be made or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = "choose a folder you may write to"
        raise type(error)(
            error.errno, f"cannot write to this folder ({error.strerror}); {advice}", str(folder)
        ) from error
    return folder


def write_file(path: Path, blob: bytes) -> None:
    """Write a file whole or not at all: to a temporary one beside it, flushed to disk, renamed into place.

    Raises:
        OSError: the disk is full, or the folder is gone; what was there before stays.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        advice = "what was saved before is still whole; make room, or save to another folder"
        raise type(error)(error.errno, f"cannot write ({error.strerror}); {advice}", str(path)) from error


def _flush_folder(folder: Path) -> None:
    """Make a rename outlive a power cut, where the system lets folders be flushed."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_bundle(folder: Folder, stem: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read one bundle: its settings and its tensors on the CPU. Nothing is unpickled.

    Raises:
        CheckpointError: no bundle there, or one that is truncated, changed, foreign or from a newer version.
    """
    folder = Path(folder)
    with refusing(folder, "checkpoint"):
        content = _read_json(folder, stem)
        path = folder / content["weights"]["file"]
        if not path.is_file():  # another process may have put a newer bundle in place since
            content = _read_json(folder, stem)
            path = folder / content["weights"]["file"]
        blob = _read_weights(path, content["weights"])
        return content["settings"], load_tensors(blob)


def _read_weights(path: Path, stated: dict[str, Any]) -> bytes:
    """The bytes of the weights, once their size and their header are known to be what the JSON says."""
    if not path.is_file():
        raise CheckpointError(f"{path.parent}: the weights {path.name!r} are missing; copy the whole folder.")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != stated["bytes"]:
                raise CheckpointError(
                    f"{path} has {size} bytes, {stated['bytes']} were written: the copy is damaged; copy it again."
                )
            header = int.from_bytes(file.read(8), "little")
            if header > min(_HEADER_LIMIT, size - 8):
                raise CheckpointError(f"{path} is no safetensors file: it announces a header of {header} bytes.")
            if size > _memory():
                raise CheckpointError(f"{path} needs {size} bytes, more than this machine's memory; use a larger one.")
            file.seek(0)
            blob = file.read(size)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}).") from error
    if hashlib.sha256(blob).hexdigest() != stated["sha256"]:
        raise CheckpointError(f"{path} was changed since it was written (its hash differs); copy it again.")
    return blob


def _memory() -> int:
    """Bytes of main memory; no limit where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**63


def _read_json(folder: Path, stem: str) -> dict[str, Any]:
    path = folder / f"{stem}.json"
    if not path.is_file():
        found = sorted(p.name for p in folder.iterdir())[:5] if folder.is_dir() else "no such folder"
        raise CheckpointError(f"{folder} holds no {stem}.json (found: {found}); give a folder that graphfm saved.")
    try:
        with path.open("rb") as file:
            text = file.read(_JSON_LIMIT + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}).") from error
    if len(text) > _JSON_LIMIT:
        raise CheckpointError(f"{path} is too large for a checkpoint's JSON (more than {_JSON_LIMIT} bytes).")
    with refusing(path, "checkpoint"):
        content = json.loads(text)
        stated, version = content.pop("digest"), content["format"]
        if version != _FORMAT and isinstance(version, int):
            raise CheckpointError(
                f"{path} has format {version}, this graphfm {__version__} reads {_FORMAT}; upgrade graphfm."
            )
        if _digest(content) != stated:
            raise CheckpointError(f"{path} was changed since it was written (its digest differs); copy it again.")
        _check_content(content, path, stem)
    return content


def _check_content(content: dict[str, Any], path: Path, stem: str) -> None:
    weights = content["weights"]
    if not isinstance(content["settings"], dict) or [type(weights["bytes"]), type(content["format"])] != [int, int]:
        raise CheckpointError(f"{path} is no graphfm checkpoint: its parts have other types.")
    if not re.fullmatch(rf"{stem}-[0-9a-f]{{16}}\.safetensors", weights["file"]):
        raise CheckpointError(f"{path} names the weights {weights['file'][:80]!r}, which lie outside this checkpoint.")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
