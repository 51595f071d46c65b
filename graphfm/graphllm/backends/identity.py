"""What a model is called in cache keys: its content, not its place."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

__all__ = ["model_identity"]

_WHOLE = 512 * 2**20


def model_identity(path: str | os.PathLike[str]) -> str:
    """A name and a hash for a folder or file: the same model elsewhere is the same, another in its place is not.

    Files above 512 MB count by size and 64 pieces; a hub name, which cannot be looked into, as it is.
    """
    place = Path(path)
    if not place.exists():
        return str(path)
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    stats = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"{place.name}-{_digest(place, tuple(files), tuple(stats))}"


@functools.lru_cache(maxsize=64)
def _digest(place: Path, files: tuple[Path, ...], stats: tuple[tuple[int, int], ...]) -> str:
    found = hashlib.sha256()
    for file, (size, _) in zip(files, stats, strict=True):
        found.update(f"{file.relative_to(place) if file != place else ''}\0{size}\0".encode())
        step = 2**20 if size <= _WHOLE else size // 64
        with file.open("rb") as stream:
            for start in range(0, size, step):
                stream.seek(start)
                found.update(stream.read(2**20))
    return found.hexdigest()[:12]
