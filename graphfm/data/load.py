"""One verb for every graph: routes a name or a path to the file that knows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from graphfm.data.catalogue import EMBEDDED, data_root, resolve, unknown

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["load"]


def load(
    name: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Data:
    """Load a graph by name or from a user's files.

    Names are forgiving about case, ``-``, ``_`` and spaces:

    - embedded: ``"debian"``, ``"digits"``, ``"breast_cancer"``, ``"wine"``;
    - through PyG: ``"cora"``, ``"citeseer"``, ``"pubmed"``, ``"photo"``, ``"computers"``, ``"texas"``, ``"actor"``, ...
      and TU collections (``"mutag"``, ..., ``"tu:NAME"``), which come as one batch with ``y`` by graph;
    - through OGB (extra ``ogb``): ``"ogbn-arxiv"``, ``"ogbn-products"``, with their split as masks;
    - ``"tag/NAME"``: graphs with text, from the root; ``"glbench/NAME"``: GLBench's files, ``GLBench/NAME.pt`` in the
      root;
    - a path: ``graph.npz``, ``edges.csv`` (with ``nodes.csv`` beside it), a ``.pt`` file of GLBench's kind
      (:func:`graphfm.data.read_glbench`), or a folder: of either table, of ``nodes.jsonl`` and ``edges.jsonl``
      (:func:`graphfm.data.read_jsonl`), of the ``tag`` layout or of :class:`graphfm.data.GraphWriter`, which is opened
      as :func:`graphfm.data.open_graph` does and stays on disk. A known name wins over a file that is called like it:
      write ``"./cora"``, or pass a ``Path``.

    ``catalogue()`` lists the names. PyG's graphs are handed on as PyG makes them, with ``name`` added. They are read
    from the root where it holds them, else downloaded. The root is never written to: PyG's own processed files go to
    the cache. The root must be trusted: the raw files of Planetoid are pickles, and PyG unpickles them.

    Args:
        name: name or path.
        root: read-only folder of raw data, laid out as PyG lays out its own (``Planetoid/Cora/raw``,
            ``TUDataset/MUTAG/raw``, ``ogb/ogbn_arxiv/raw``, ..., ``tag/NAME``, ``GLBench/NAME.pt``); else the
            environment variable ``GRAPHFM_DATA``.
        cache: folder for processed files and downloads; else ``GRAPHFM_CACHE``, else ``~/.cache/graphfm``.

    Returns:
        The graph, with ``.name``; ``x`` ``[N, F]``, ``edge_index`` ``[2, E]``, ``y`` ``[N]`` and masks where it has
        them.

    Raises:
        ValueError: an unknown name, or files that cannot be understood.
        FileNotFoundError: a missing file; data that is neither in the root nor can be downloaded.
        ImportError: an extra is needed.
    """
    if not isinstance(name, str):
        return _from_path(Path(name))
    base = data_root(root)
    known = resolve(name, base)
    if known is None:
        if Path(name).expanduser().exists():
            return _from_path(Path(name).expanduser())
        if Path(name).suffix in (".npz", ".csv", ".pt"):
            raise FileNotFoundError(f"name {name!r} is no file.")
        raise unknown(name, base)
    if known in EMBEDDED:
        from graphfm.data.embedded import load_embedded

        return load_embedded(known)
    if known.startswith("tag/"):
        return _tag(known, base)
    if known.startswith("glbench/"):
        return _glbench(known, base)
    from graphfm.data.pyg import load_pyg

    return load_pyg(known, base, cache)


def _tag(name: str, root: Path | None) -> Data:
    if root is None or not (root / name).is_dir():
        lacks = f"The root {root} has no folder {name}" if root else "No data root is named"
        raise FileNotFoundError(
            f"{lacks}. {name!r} is read from there: set GRAPHFM_DATA (or root=) to a folder that holds "
            f"{name}/graph.npz, {name}/texts.jsonl.gz and {name}/meta.json."
        )
    from graphfm.data.tag import read_tag

    return read_tag(root / name, name)


def _glbench(name: str, root: Path | None) -> Data:
    file = None if root is None else root / "GLBench" / f"{name.removeprefix('glbench/')}.pt"
    if file is None or not file.is_file():
        lacks = f"There is no file {file}" if file else "No data root is named"
        raise FileNotFoundError(
            f"{lacks}. {name!r} is a file that GLBench's authors hand out: put it there, and set GRAPHFM_DATA (or "
            "root=) to the folder that holds GLBench/."
        )
    from graphfm.data.glbench import read_glbench

    return read_glbench(file, name)


def _from_path(path: Path) -> Data:
    if not path.exists():
        raise FileNotFoundError(f"name {str(path)!r} is no file or folder.")
    if path.is_dir():
        return _from_folder(path)
    from graphfm.data.files import read_csv
    from graphfm.data.glbench import read_glbench
    from graphfm.data.npz import read_npz

    if path.suffix == ".npz":
        return read_npz(path)
    if path.suffix == ".csv":
        return read_csv(path, _nodes_beside(path))
    if path.suffix == ".pt":
        return read_glbench(path)
    raise ValueError(
        f"{path}: the suffix {path.suffix!r} is not known; give .npz, .pt, an edge table .csv, or a folder."
    )


def _from_folder(path: Path) -> Data:
    from graphfm.data.files import read_csv
    from graphfm.data.npz import read_npz
    from graphfm.data.ondisk import HEADER, open_graph
    from graphfm.data.tables import read_jsonl
    from graphfm.data.tag import read_tag

    if (path / "edges.csv").is_file():
        return read_csv(path / "edges.csv", _nodes_beside(path / "edges.csv"))
    if (path / "graph.npz").is_file():
        texts = (path / "texts.jsonl.gz").is_file()
        return read_tag(path, path.resolve().name) if texts else read_npz(path / "graph.npz")
    if (path / "nodes.jsonl").is_file():
        return read_jsonl(path / "nodes.jsonl", path / "edges.jsonl")
    if (path / HEADER).is_file():
        return open_graph(path)
    raise ValueError(
        f"{path} holds neither edges.csv (perhaps with nodes.csv) nor nodes.jsonl (with edges.jsonl) nor graph.npz "
        f"nor {HEADER}."
    )


def _nodes_beside(edges: Path) -> Path | None:
    """``nodes.csv`` for ``edges.csv``, ``my_nodes.csv`` for ``my_edges.csv``, if it is there."""
    nodes = edges.with_name(edges.name.replace("edges", "nodes"))
    return nodes if nodes != edges and nodes.is_file() else None
