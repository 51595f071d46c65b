"""Vectors of texts on disk, found again by what the text says and what made the vector.

A folder holds segments, npz files of ``keys`` ``[n, 32]`` (sha256 of name and text), ``rows`` ``[n, ...]`` and
``seconds`` ``[n]``, what each row took to make. A segment appears whole, by one rename, and is never changed, so any
number of processes may read and write at once; two that make the same vector store it twice. The checksums of the npz
format tell a segment that was cut or altered: it is removed with a warning and its texts are encoded again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import uuid
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphfm.graphllm.backends.base import CausalLM, Counts, TextEncoder, check_texts
from graphfm.graphllm.backends.ledger import Ledger

__all__ = ["CachedEncoder", "VectorCache", "cache_folder", "cached_hidden"]

_DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError)


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """``folder``, else ``texts`` in ``GRAPHFM_CACHE``, else in ``~/.cache/graphfm``."""
    if folder is not None:
        return Path(folder)
    return Path(os.environ.get("GRAPHFM_CACHE") or "~/.cache/graphfm").expanduser() / "texts"


class VectorCache:
    """Rows of one shape by text, for one ``name``: a model with its settings.

    Args:
        folder: of all names; made when first written.
        name: which model with which settings; another name shares nothing with this one.
        shape: of a row.
        chunk: texts that are encoded, and stored, at a time: what an interrupted run may lose.

    Attributes:
        seconds: what the rows of the last :meth:`fetch` took when they were made, by whichever process and whenever.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], chunk: int = 2048) -> None:
        self.folder = folder / hashlib.sha256(name.encode()).hexdigest()[:16]
        self.name, self.shape, self.chunk = name, shape, chunk
        self.seconds = 0.0
        self._places: dict[bytes, tuple[Path, int]] = {}
        self._seen: set[Path] = set()

    def fetch(self, texts: Sequence[str], make: Callable[[list[str]], Tensor]) -> Tensor:
        """Float32 rows ``[N, *shape]`` of texts; ``make`` is called for those that are missing, each text once."""
        keys = [self._key(text) for text in texts]
        rows = torch.empty(len(texts), *self.shape)
        self.seconds = 0.0
        self._look()
        missing = self._read(keys, rows)
        owed = dict.fromkeys(keys[index] for index in missing)
        wanted = {keys[index]: texts[index] for index in missing}
        made: dict[bytes, Tensor] = {}
        todo = list(owed)
        for at in range(0, len(todo), self.chunk):
            part = todo[at : at + self.chunk]
            started = time.perf_counter()
            found = make([wanted[key] for key in part]).detach().float().cpu()
            spent = time.perf_counter() - started
            self.seconds += spent
            if found.shape != (len(part), *self.shape):
                raise ValueError(
                    f"{self.name!r} gave {list(found.shape)} for {len(part)} texts; rows must be {list(self.shape)}."
                )
            self._store(part, found.numpy(), spent / len(part))
            made.update(zip(part, found, strict=True))
        if missing:
            rows[missing] = torch.stack([made[keys[index]] for index in missing])
        return rows

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.name}\0{text}".encode("utf-8", "surrogatepass")).digest()

    def _look(self) -> None:
        """Learn what has been written since the last look, and forget what is gone."""
        there = set(self.folder.glob("*.npz"))
        if gone := self._seen - there:
            self._places = {key: place for key, place in self._places.items() if place[0] not in gone}
        for path in sorted(there - self._seen):
            keys = self._array(path, "keys")
            if keys is not None and keys.ndim == 2 and keys.shape[1] == 32:
                self._places.update((key.tobytes(), (path, row)) for row, key in enumerate(keys))
        self._seen = there

    def _read(self, keys: list[bytes], rows: Tensor) -> list[int]:
        """Fill the rows that are stored; the indices of the others."""
        missing: list[int] = []
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for index, key in enumerate(keys):
            if key in self._places:
                path, row = self._places[key]
                wanted.setdefault(path, []).append((index, row))
            else:
                missing.append(index)
        for path, pairs in wanted.items():
            indices, places = map(list, zip(*pairs, strict=True))
            stored = self._array(path, "rows")
            if stored is None or stored.dtype != np.float32 or stored.shape[1:] != self.shape:
                missing.extend(indices)
            else:
                rows[indices] = torch.from_numpy(stored)[places]
                seconds = self._array(path, "seconds")
                if seconds is not None and seconds.shape == stored.shape[:1]:
                    self.seconds += float(seconds[list(dict.fromkeys(places))].sum())
        return sorted(missing)

    def _array(self, path: Path, name: str) -> np.ndarray | None:
        """An array of a segment; a damaged segment is removed, one that another process removed is just not there."""
        try:
            with np.load(path, allow_pickle=False) as segment:
                return segment[name] if name != "seconds" or name in segment.files else None  # older ones lack it
        except FileNotFoundError:
            return None
        except _DAMAGED as error:
            warnings.warn(f"{path} is damaged ({error}): removed; its texts are encoded again.", stacklevel=5)
            path.unlink(missing_ok=True)
            return None

    def _store(self, keys: list[bytes], rows: np.ndarray, seconds: float) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
            try:
                hashes = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
                np.savez(file, keys=hashes, rows=rows, seconds=np.full(len(keys), seconds))
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                os.unlink(file.name)
                raise
        os.chmod(file.name, 0o644)  # others on this machine may read it, as they may read any new file
        os.replace(file.name, self.folder / f"{uuid.uuid4().hex}.npz")


class CachedEncoder:
    """An encoder that encodes a text once for all runs on this machine.

    Args:
        encoder: what encodes; its ``name`` is part of every key.
        folder: of the cache; see :func:`cache_folder`.

    Attributes:
        seconds: what was asked for last took when it was made, in this process or before.

    Raises:
        ValueError: an encoder whose vectors depend on the other texts of the call (``transductive``).
    """

    def __init__(self, encoder: TextEncoder, folder: str | os.PathLike[str] | None = None) -> None:
        if getattr(encoder, "transductive", False):
            raise ValueError(
                f"encoder {encoder.name!r} makes a text's vector depend on the other texts; use it as it is."
            )
        self.encoder = encoder
        self._folder = cache_folder(folder)
        self._cache = VectorCache(self._folder, encoder.name, (encoder.dim,))
        self._states: dict[str, VectorCache] = {}
        self.seconds = 0.0

    @property
    def name(self) -> str:
        """The encoder's."""
        return self.encoder.name

    @property
    def dim(self) -> int:
        """The encoder's."""
        return self.encoder.dim

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``[N, D]``, of which only the missing ones are made."""
        found = self._cache.fetch(check_texts(texts), self.encoder.encode)
        self.seconds = self._cache.seconds
        return found

    @property
    def num_layers(self) -> int:
        """The encoder's, if it has layers."""
        return int(self.encoder.num_layers)  # type: ignore[attr-defined]

    def hidden(self, texts: Sequence[str], layers: Sequence[int] = (-1,)) -> Tensor:
        """Mean states ``[N, len(layers), D]`` of an encoder that has layers; only the missing ones are made."""
        encoder: Any = self.encoder
        name = f"{self.name} layers={','.join(map(str, layers))} pool=mean"
        if name not in self._states:
            self._states[name] = VectorCache(self._folder, name, (len(layers), encoder.state_dim), chunk=256)
        found = self._states[name].fetch(check_texts(texts), lambda missing: encoder.hidden(missing, layers))
        self.seconds = self._states[name].seconds
        return found

    def count(self, texts: Sequence[str]) -> Counts:
        """The encoder's, whatever is cached."""
        return self.encoder.count(texts)


def cached_hidden(
    lm: CausalLM,
    texts: Sequence[str],
    layers: Sequence[int] = (-1,),
    pool: str = "mean",
    folder: str | os.PathLike[str] | None = None,
) -> Tensor:
    """``lm.hidden(texts, layers, pool)`` ``[N, len(layers), D]``, of which only the missing texts are computed.

    What they took when they were first made goes to ``lm.ledger``, if it keeps one.
    """
    if pool not in ("mean", "last"):
        raise ValueError(f"pool must be 'mean' or 'last', got {pool!r}.")
    name = f"{lm.name} layers={','.join(map(str, layers))} pool={pool}"
    cache = VectorCache(cache_folder(folder), name, (len(layers), lm.dim), chunk=256)
    started, found = time.perf_counter(), check_texts(texts)
    states = cache.fetch(found, lambda missing: lm.hidden(missing, layers, pool))  # type: ignore[arg-type]
    ledger: Ledger | None = getattr(lm, "ledger", None)
    if ledger is not None:
        key = hashlib.sha256("\0".join((name, *found)).encode("utf-8", "surrogatepass")).hexdigest()
        ledger.states(key, cache.seconds, time.perf_counter() - started)
    return states
