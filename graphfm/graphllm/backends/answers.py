"""Answers on disk by the hash of what was asked, with what they cost: a file each, which is whole or not there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
import warnings
from pathlib import Path

from graphfm.graphllm.backends.base import Usage

__all__ = ["AnswerStore", "Stored"]


@dataclasses.dataclass(frozen=True)
class Stored:
    """An answer.

    Attributes:
        text: what was said.
        usage: what it cost when it was given.
        seconds: what it took then, if that was measured.
    """

    text: str
    usage: Usage = dataclasses.field(default_factory=Usage)
    seconds: float = 0.0


class AnswerStore:
    """Any number of threads and processes may read and write; a file that was cut or altered counts as missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Stored | None:
        """The answer kept under ``key``, if there is one."""
        path = self._path(key)
        try:
            kept = json.loads(path.read_bytes())
            text = kept["text"]
            if kept["sha256"] != _digest(text):
                raise ValueError("its text does not fit its hash")
            usage, seconds = kept.get("usage", {}), kept.get("seconds", 0.0)
            if not all(isinstance(value, int | float) and value >= 0 for value in (*usage.values(), seconds)):
                raise ValueError("its cost is no number")
            found = Stored(text, Usage(**usage), float(seconds))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(f"{path} is damaged ({error}); the model is asked again.", stacklevel=3)
            return None
        return found

    def put(self, key: str, answer: Stored) -> None:
        """Keep ``answer`` under ``key``."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
            json.dump(dataclasses.asdict(answer) | {"sha256": _digest(answer.text)}, file)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
