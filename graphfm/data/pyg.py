"""Datasets through the classes of PyG and OGB, from a read-only root or by download; all writing goes to the cache."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch_geometric import __version__ as pyg_version
from torch_geometric import datasets
from torch_geometric.data import Batch, Data, InMemoryDataset

from graphfm.data.catalogue import PYG, Source, tu

__all__ = ["load_pyg"]

_log = logging.getLogger(__name__)


def load_pyg(name: str, root: Path | None, cache: str | os.PathLike[str] | None) -> Data:
    """Load one dataset of PyG or OGB by its canonical name.

    Args:
        name: a key of ``catalogue.PYG``, or ``"tu:NAME"``.
        root: read-only folder of raw data, or ``None``.
        cache: folder to write to; else ``GRAPHFM_CACHE``, else ``~/.cache/graphfm``.

    Returns:
        The graph as PyG makes it, with ``name``; a collection of graphs as one ``Batch``; for OGB with ``train_mask``,
        ``val_mask``, ``test_mask`` ``[N]`` of its own split.

    Raises:
        FileNotFoundError: neither in the root nor to be downloaded, or incomplete in the root.
        ImportError: OGB is asked for and not installed.
    """
    source = PYG[name] if name in PYG else tu(name[3:])
    cls = _ogb_class() if source.kind == "ogb" else getattr(datasets, source.cls)
    local = _local(root, source)
    folder = _cache_folder(cache) / f"{name.replace(':', '-')}-{_key(local, source)}"
    cls = _guarded(cls, _advice(name, source, root, local), offline=local is not None)
    data = _built(folder, lambda path: _read(cls, source, path), lambda path: _link(local, source, path))
    data.name = name
    return data


def _read(cls: type[InMemoryDataset], source: Source, folder: Path) -> Data:
    """Make the dataset below ``folder`` and take its graph out of it."""
    # PyG derives the rest of the folder from the name; its root is what comes before that.
    above = str(folder / Path(source.folder).parts[0])
    if source.kind == "ogb":
        return _read_ogb(cls, source, above)
    arguments = [] if source.arg is None else [source.arg]
    dataset = cls(above, *arguments, **dict(source.options))
    return Batch.from_data_list(list(dataset)) if source.kind == "tu" else dataset[0]


def _ogb_class() -> Any:
    try:
        from ogb.nodeproppred import PygNodePropPredDataset
    except ImportError as error:
        raise ImportError("OGB datasets need the extra 'ogb': pip install 'graphfm[ogb]'.") from error
    return PygNodePropPredDataset


def _read_ogb(cls: Any, source: Source, above: str) -> Data:
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    # OGB stores PyG objects, which safe loading refuses unless they are named; nothing else is let in. Leaving the
    # scope takes every name in it away, those that PyG itself had allowed before as well, so these stay out of it.
    allowed = set(torch.serialization.get_safe_globals())
    needed = [kind for kind in (Data, DataEdgeAttr, DataTensorAttr, GlobalStorage) if kind not in allowed]
    with torch.serialization.safe_globals(needed):
        dataset = cls(source.arg, root=above)
        data, split = dataset[0], dataset.get_idx_split()
    for key, part in {"train_mask": "train", "val_mask": "valid", "test_mask": "test"}.items():
        data[key] = torch.zeros(data.num_nodes, dtype=torch.bool)
        data[key][split[part]] = True
    return data


def _guarded(cls: Any, advice: Callable[[list[str]], str], *, offline: bool) -> Any:
    """A subclass that does not chat, and that says what to do where a download fails.

    ``offline`` refuses to download: in a folder linked to the root it would write through the links.
    """

    def download(self: Any) -> None:
        missing = [path for path in self.raw_paths if not os.path.exists(path)]
        if offline:
            raise FileNotFoundError(advice(missing))
        _log.info("downloading %s", cls.__name__)
        try:
            # Not stdout: OGB asks there before it fetches more than a gigabyte.
            with contextlib.redirect_stderr(io.StringIO()):
                cls.download(self)
        except (Exception, SystemExit) as error:
            raise FileNotFoundError(f"{advice(missing)} ({type(error).__name__}: {error})") from error

    def process(self: Any) -> None:
        _log.info("processing %s", cls.__name__)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            cls.process(self)

    log = property(lambda self: False, lambda self, value: None)
    return type(cls.__name__, (cls,), {"download": download, "process": process, "log": log})


def _advice(name: str, source: Source, root: Path | None, local: Path | None) -> Callable[[list[str]], str]:
    """The words for data that is not there, given the files that are missing."""

    def words(missing: list[str]) -> str:
        files = ", ".join(sorted(Path(path).name for path in missing)[:4])
        if local is not None:
            return f"{name!r} is incomplete in {local}: {files} missing. Complete it, or name another root to download."
        wanted = " and ".join(f"{source.folder}/{part}".rstrip("/") for part in source.raw)
        lacks = f"the root {root} lacks it" if root else "no data root is named"
        return (
            f"{name!r} could not be downloaded and {lacks}. Either connect to the network, or set GRAPHFM_DATA "
            f"(or root=) to a folder that holds {wanted} (with {files}, ...)."
        )

    return words


def _local(root: Path | None, source: Source) -> Path | None:
    """The dataset's folder in the root, if it is there."""
    if root is None:
        return None
    folder = root / source.folder
    return folder if all((folder / part).is_dir() for part in source.raw) else None


def _cache_folder(cache: str | os.PathLike[str] | None) -> Path:
    chosen = cache or os.environ.get("GRAPHFM_CACHE") or "~/.cache/graphfm"
    return Path(chosen).expanduser().resolve()


def _key(local: Path | None, source: Source) -> str:
    """Tells two roots, and two states of one root, apart: processed files of one never serve the other."""
    if local is None:
        return "download"
    parts = [pyg_version.rpartition(".")[0], str(local)]
    for part in source.raw:
        for path in sorted((local / part).rglob("*")):
            stat = path.stat()
            parts.append(f"{path.relative_to(local)} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _link(local: Path | None, source: Source, folder: Path) -> None:
    """Make the root's raw folders visible below ``folder``, at the same relative path."""
    if local is None:
        return
    for part in source.raw:
        # Without a raw folder of its own (OGB) the entries are linked, for its processed/ lies beside them.
        entries = [local / part] if part else [path for path in local.iterdir() if path.name != "processed"]
        for entry in entries:
            place = folder / source.folder / entry.relative_to(local)
            place.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(entry, place)
    if source.kind == "ogb" and not any(local.glob("RELEASE_v*.txt")):
        # OGB asks on the terminal where this mark is missing.
        (folder / source.folder / "RELEASE_v1.txt").touch()


def _link_or_copy(entry: Path, place: Path) -> None:
    try:
        place.symlink_to(entry, target_is_directory=entry.is_dir())
    except OSError:
        _log.info("no symbolic links here, copying %s", entry)
        if entry.is_dir():
            shutil.copytree(entry, place)
        else:
            shutil.copy2(entry, place)


def _built(folder: Path, read: Callable[[Path], Data], prepare: Callable[[Path], None]) -> Data:
    """Read from ``folder``, building it first if need be.

    It is built under another name and renamed when it is whole. So a second process never sees half of it, and of two
    that build at once the first to finish wins; the other has its graph in memory all the same.
    """
    if folder.is_dir():
        return read(folder)
    with _scratch(folder) as scratch:
        prepare(scratch)
        data = read(scratch)
        with contextlib.suppress(OSError):
            scratch.rename(folder)
    return data


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    scratch = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
