"""Folders of safetensors and JSON that are whole or not there, and safe to open.

A bundle is ``STEM.json`` beside ``STEM-HASH.safetensors``. The weights are written first under a name that holds their
hash; then the JSON, which names them, is put in place by one rename. A writer that is killed leaves the bundle before.
The JSON carries a digest of itself and of the weights, so a file that changed on the way is refused, not half-used.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from graphfm._version import __version__

__all__ = ["CheckpointError", "build_module", "check_writable", "describe_module", "read_bundle", "write_bundle"]

_FORMAT = 1
_LARGEST_ARGUMENT = 1_000_000
_JSON_LIMIT = 64 * 2**20


class CheckpointError(ValueError):
    """A folder that holds no checkpoint, or one that is damaged, foreign or too new."""


def write_bundle(
    folder: str | os.PathLike[str], stem: str, settings: dict[str, Any], tensors: dict[str, Tensor]
) -> Path:
    """Write one bundle atomically and return the path of its JSON.

    Raises:
        OSError: the folder cannot be made or written; what was there before stays whole.
    """
    folder = check_writable(folder)
    blob = save_tensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    digest = hashlib.sha256(blob).hexdigest()
    weights = f"{stem}-{digest[:16]}.safetensors"
    content = {
        "format": _FORMAT,
        "graphfm": __version__,
        "weights": {"file": weights, "bytes": len(blob), "sha256": digest},
        "settings": settings,
    }
    content["digest"] = _digest(content)
    _replace(folder / weights, blob)
    _replace(folder / f"{stem}.json", (json.dumps(content, indent=1, allow_nan=True) + "\n").encode())
    for old in folder.glob(f"{stem}-????????????????.safetensors"):
        if old.name != weights:
            with contextlib.suppress(OSError):
                old.unlink()
    return folder / f"{stem}.json"


def check_writable(folder: str | os.PathLike[str]) -> Path:
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


def read_bundle(folder: str | os.PathLike[str], stem: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read one bundle: its settings and its tensors on the CPU. Nothing is unpickled.

    Raises:
        CheckpointError: no bundle there, or one that is truncated, changed, foreign or from a newer version.
    """
    folder = Path(folder)
    content = _read_json(folder, stem)
    path = folder / content["weights"]["file"]
    if path.parent != folder or not path.is_file():
        raise CheckpointError(
            f"{folder}: the weights {content['weights']['file']!r} are missing; copy the whole folder."
        )
    size = path.stat().st_size
    if size != content["weights"]["bytes"]:
        raise CheckpointError(
            f"{path} has {size} bytes, {content['weights']['bytes']} were written: the copy is damaged; copy it again."
        )
    blob = path.read_bytes()
    if hashlib.sha256(blob).hexdigest() != content["weights"]["sha256"]:
        raise CheckpointError(f"{path} was changed since it was written (its hash differs); copy it again.")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from error
    return content["settings"], tensors


def _read_json(folder: Path, stem: str) -> dict[str, Any]:
    path = folder / f"{stem}.json"
    if not path.is_file():
        found = sorted(p.name for p in folder.glob("*"))[:5] if folder.is_dir() else "no such folder"
        raise CheckpointError(f"{folder} holds no {stem}.json (found: {found}); give a folder that graphfm saved.")
    if path.stat().st_size > _JSON_LIMIT:
        raise CheckpointError(f"{path} is too large for a checkpoint's JSON.")
    try:
        content = json.loads(path.read_bytes())
        stated, version = content.pop("digest"), content["format"]
        weights = content["weights"]
        whole = isinstance(weights["file"], str) and isinstance(weights["bytes"], int) and _digest(content) == stated
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged or no graphfm checkpoint ({type(error).__name__}: {error})."
        ) from error
    if not whole or not isinstance(content.get("settings"), dict):
        raise CheckpointError(f"{path} was changed since it was written (its digest differs); copy it again.")
    if version != _FORMAT:
        raise CheckpointError(
            f"{path} has format {version}, this graphfm {__version__} reads {_FORMAT}; upgrade graphfm."
        )
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=True).encode()).hexdigest()


def _replace(path: Path, blob: bytes) -> None:
    """Write to a temporary file beside ``path``, flush it to disk, rename it into place."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise type(error)(
            error.errno, f"cannot write {path}: {error.strerror}; what was saved before is still whole"
        ) from error


def describe_module(module: nn.Module) -> dict[str, Any]:
    """A module's class and arguments, as JSON; arguments are read back from attributes of the same name.

    ``arguments`` is ``None`` where they cannot be told that way; such a module must be handed to the loader.
    """
    cls = type(module)
    home = cls.__module__.split(".")[0]
    name = cls.__name__ if home == "graphfm" else f"{cls.__module__}:{cls.__qualname__}"
    arguments: dict[str, Any] | None = {}
    for key, parameter in inspect.signature(cls.__init__).parameters.items():
        if key == "self":
            continue
        value = getattr(module, key, parameter.default)
        plain = value is None or isinstance(value, bool | int | float | str)
        if not plain or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            arguments = None
            break
        arguments[key] = value
    return {"class": name, "arguments": arguments}


def build_module(
    described: dict[str, Any], known: Iterable[type[nn.Module]], tensors: dict[str, Tensor], prefix: str
) -> nn.Module:
    """Make a module again from its description and its tensors ``prefix.*``.

    Only classes handed in are made: a checkpoint cannot name code to run. The module is first laid out without memory,
    and the shapes compared, so a lie about sizes costs nothing.

    Raises:
        CheckpointError: an unknown class, absurd arguments, tensors that are missing or have other shapes.
    """
    name, arguments = described.get("class"), described.get("arguments")
    classes = {describe_name(cls): cls for cls in known}
    if name not in classes:
        raise CheckpointError(
            f"the checkpoint holds a {name!r}, which is not known here; pass backbone=YourModule(...)."
        )
    if not isinstance(arguments, dict):
        raise CheckpointError(f"the checkpoint does not say how its {name!r} was made; pass backbone=YourModule(...).")
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    layers = arguments.get("num_layers", 0)
    if any(isinstance(v, int) and abs(v) > _LARGEST_ARGUMENT for v in arguments.values()) or layers > len(state):
        raise CheckpointError(f"the arguments {arguments} of {name!r} do not fit its {len(state)} tensors.")
    try:
        with torch.device("meta"):
            module = classes[name](**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{name!r} cannot be made with {arguments}: {error}") from error
    return load_state(module, state, str(name))


def load_state(module: nn.Module, state: dict[str, Tensor], name: str) -> nn.Module:
    """Give ``module`` the tensors ``state``, whose names and shapes must be its own.

    Raises:
        CheckpointError: tensors that are missing, left over, or of other shapes.
    """
    expected = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    if expected != found:
        odd = sorted(set(expected.items()) ^ set(found.items()))[:4]
        raise CheckpointError(f"the tensors of {name!r} do not fit its arguments; first differences: {odd}.")
    module.load_state_dict(state, assign=True)
    return module


def describe_name(cls: type) -> str:
    """The name under which a class is written to a checkpoint."""
    home = cls.__module__.split(".")[0]
    return cls.__name__ if home == "graphfm" else f"{cls.__module__}:{cls.__qualname__}"
