"""What ``load`` knows by name, and a description of what it returned. Nothing heavy is imported until it is needed."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch_geometric.data import Data

__all__ = ["Entry", "catalogue", "describe"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One dataset that ``load`` knows.

    Attributes:
        name: what to pass to ``load``.
        kind: where it comes from: ``"embedded"``, ``"planetoid"``, ``"tu"``, ``"tag"``, ...
        where: ``"embedded"`` (in the package), ``"local"`` (in the root), ``"download"``, or ``"root"`` (cannot be
            downloaded by us: has to be put into the root first).
        domain: what the graph is about, in a few words.
        text: whether the nodes carry text.
        extra: the extra to install for it, or ``None``.
    """

    name: str
    kind: str
    where: str
    domain: str
    text: bool = False
    extra: str | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """How to make one dataset with a class of PyG (or OGB).

    Attributes:
        kind: family, for people.
        cls: name of the class in ``torch_geometric.datasets``.
        arg: the class's ``name`` argument; ``None`` where it takes none.
        folder: its folder below the root, e.g. ``"Planetoid/Cora"``.
        domain: what the graph is about.
        raw: folders and files below ``folder`` that hold the raw data.
        options: further arguments of the class.
        extra: the extra that it needs.
    """

    kind: str
    cls: str
    arg: str | None
    folder: str
    domain: str
    raw: tuple[str, ...] = ("raw",)
    options: tuple[tuple[str, Any], ...] = ()
    extra: str | None = None


EMBEDDED: dict[str, tuple[str, bool]] = {
    "debian": ("software packages that need each other", True),
    "digits": ("images of handwritten digits, nearest neighbours", False),
    "breast_cancer": ("measurements of cell nuclei, nearest neighbours", False),
    "wine": ("chemical analyses of wines, nearest neighbours", False),
}

TAG: dict[str, str] = {
    "cora": "citations of machine-learning papers",
    "cora_ml": "citations of machine-learning papers",
    "citeseer_sub": "citations of computer-science papers",
    "webkb_cornell": "web pages of a university",
    "webkb_texas": "web pages of a university",
    "webkb_wisconsin": "web pages of a university",
    "coauthor_cs_keywords": "co-authors in computer science",
}

GLBENCH = dict.fromkeys("cora citeseer pubmed arxiv wikics reddit instagram".split(), "graph with text, GLBench's")


def _family(kind: str, cls: str, domain: str, args: str, folder: str = "{cls}/{arg}", **more: Any) -> dict[str, Source]:
    """One source for each of the class's own names; ours are the same in lower case."""
    places = {arg: folder.format(cls=cls, arg=arg, lower=arg.lower().replace("-", "_")) for arg in args.split()}
    return {arg.lower(): Source(kind, cls, arg, place, domain, **more) for arg, place in places.items()}


def tu(name: str) -> Source:
    """The source of a TU collection by its own, case-sensitive name."""
    return Source("tu", "TUDataset", name, f"TUDataset/{name}", TU.get(name, "many small graphs"))


TU: dict[str, str] = {
    "MUTAG": "molecules, many graphs",
    "PROTEINS": "proteins, many graphs",
    "ENZYMES": "proteins, many graphs",
    "NCI1": "molecules, many graphs",
    "IMDB-BINARY": "actors of films, many graphs",
    "BZR": "molecules, many graphs",
}

_HETEROPHILOUS = "Minesweeper Tolokers Roman-empire Amazon-ratings Questions"
PYG: dict[str, Source] = {
    **_family("planetoid", "Planetoid", "citations of papers", "Cora CiteSeer PubMed"),
    **_family("amazon", "Amazon", "products bought together", "Photo Computers"),
    **_family("webkb", "WebKB", "web pages of a university", "Texas Cornell Wisconsin", "{cls}/{lower}"),
    **_family(
        "wikipedia",
        "WikipediaNetwork",
        "pages of an encyclopedia",
        "chameleon squirrel",
        raw=("geom_gcn/raw",),
        options=(("geom_gcn_preprocess", True),),
    ),
    "actor": Source("actor", "Actor", None, "Actor", "actors on one page"),
    **_family("coauthor", "Coauthor", "co-authors of papers", "CS Physics"),
    **_family("heterophilous", "HeterophilousGraphDataset", "unlike neighbours", _HETEROPHILOUS, "{cls}/{lower}"),
    **_family("linkx", "LINKXDataset", "friends at a university", "reed98 johnshopkins55 cornell5"),
    **{name.lower(): tu(name) for name in TU},
    **_family(
        "ogb",
        "PygNodePropPredDataset",
        "papers that cite, or products bought together",
        "ogbn-arxiv ogbn-products",
        "ogb/{lower}",
        raw=("",),
        extra="ogb",
    ),
}

ALIASES = {
    "coauthorcs": "cs",
    "coauthorphysics": "physics",
    "amazonphoto": "photo",
    "amazoncomputers": "computers",
    "film": "actor",
    "arxiv": "ogbn-arxiv",
    "products": "ogbn-products",
    "fb100reed98": "reed98",
    "fb100johnshopkins55": "johnshopkins55",
    "fb100cornell5": "cornell5",
}


def squeeze(name: str) -> str:
    """The form in which names are compared: lower case, without ``-``, ``_`` and spaces."""
    return re.sub(r"[-_\s]", "", name.lower())


def data_root(root: str | os.PathLike[str] | None) -> Path | None:
    """The read-only data root: the argument, else ``GRAPHFM_DATA``, else none.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    chosen = root if root is not None else os.environ.get("GRAPHFM_DATA") or None
    if chosen is None:
        return None
    path = Path(chosen).expanduser()
    if not path.is_dir():
        origin = "root" if root is not None else "the environment variable GRAPHFM_DATA"
        raise FileNotFoundError(f"{origin} names {str(path)!r}, which is no folder; name one, or leave it out.")
    return path.resolve()


def _folders(path: Path, marker: str) -> list[str]:
    return sorted(child.name for child in path.iterdir() if (child / marker).exists()) if path.is_dir() else []


def _with_text(root: Path | None) -> dict[str, tuple[dict[str, str], list[str]]]:
    """Graphs with text that are read from the root, by kind: those that are known, and those that lie there."""
    files = sorted(path.stem for path in (root / "GLBench").glob("*.pt")) if root else []
    return {"tag": (TAG, _folders(root / "tag", "graph.npz") if root else []), "glbench": (GLBENCH, files)}


def names(root: Path | None) -> dict[str, str]:
    """Every accepted form, squeezed, with the canonical name it stands for; what lies in the root included."""
    texts = [f"{kind}/{name}" for kind, both in _with_text(root).items() for part in both for name in part]
    known = {squeeze(name): name for name in (*PYG, *EMBEDDED, *texts)}
    # A collection that lies in the root is known by the spelling it has there; others keep the caller's.
    local = {f"tu:{name}" for name in _folders(root / "TUDataset", "raw")} if root else set()
    known |= {squeeze(name): name for name in local}
    known |= {squeeze(f"tu:{name}"): name.lower() for name in TU}
    return known | ALIASES


def resolve(name: str, root: Path | None) -> str | None:
    """The canonical name of a dataset, or ``None`` where the name is not known."""
    found = names(root).get(squeeze(name))
    if found is None and re.fullmatch(r"(?i)tu:[\w.-]+", name.strip()):
        return f"tu:{name.strip()[3:]}"
    return found


def unknown(name: str, root: Path | None) -> ValueError:
    """The error for a name that nothing answers to, with the nearest ones that something does."""
    known = names(root)
    near = difflib.get_close_matches(squeeze(name), known, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(dict.fromkeys(known[key] for key in near))}?" if near else "."
    return ValueError(
        f"name {name!r} is neither a known dataset nor an existing file or folder{hint} "
        "`graphfm data list` (or graphfm.data.catalogue()) shows all names."
    )


def catalogue(root: str | os.PathLike[str] | None = None) -> list[Entry]:
    """List the datasets that ``load`` knows by name, without loading any.

    Args:
        root: read-only data root; the environment variable ``GRAPHFM_DATA`` where it is missing.

    Returns:
        Entries: embedded ones first, then those of PyG and OGB, then graphs with text. ``"tu:NAME"`` reaches any
        other TU collection.

    Raises:
        FileNotFoundError: the root does not exist.
    """
    base = data_root(root)
    entries = [Entry(name, "embedded", "embedded", domain, text) for name, (domain, text) in EMBEDDED.items()]
    sources = {name: PYG[name] if name in PYG else tu(name[3:]) for name in names(base).values() if is_pyg(name)}
    for name, source in sources.items():
        entries.append(Entry(name, source.kind, _where(base, source), source.domain, False, source.extra))
    for kind, (known, local) in _with_text(base).items():
        for name in dict.fromkeys([*known, *local]):
            where = "local" if name in local else "root"
            entries.append(Entry(f"{kind}/{name}", kind, where, known.get(name, "graph with text"), True))
    return entries


def is_pyg(name: str) -> bool:
    """Whether a canonical name belongs to a class of PyG or OGB."""
    return name in PYG or name.startswith("tu:")


def _where(root: Path | None, source: Source) -> str:
    if root is None:
        return "download"
    return "local" if all((root / source.folder / part).exists() for part in source.raw) else "download"


def describe(data: Data) -> dict[str, Any]:
    """Describe a graph in numbers.

    Args:
        data: a graph, or a batch of graphs.

    Returns:
        ``name``, ``graphs``, ``nodes``, ``edges`` (columns of ``edge_index``: both directions of an undirected graph),
        ``features``, ``classes``, ``class_counts`` (by class name where there is ``label_text``; unlabelled left out),
        ``undirected`` (every edge has its reverse of the same weight), ``self_loops``, ``isolated`` (nodes that no
        edge touches, self-loops aside), ``homophily`` (share of the edges between labelled nodes that join one class;
        ``None`` without node labels), ``mean_degree`` (edges / nodes) and ``text``.
    """
    import torch
    from torch_geometric.utils import is_undirected

    nodes, edges = int(data.num_nodes or 0), data.edge_index
    edges = edges if edges is not None else torch.empty(2, 0, dtype=torch.long)
    plain = edges[:, edges[0] != edges[1]]
    y = _classes(data.get("y"))
    counts = torch.bincount(y[y >= 0]).tolist() if y is not None else []
    labels = data.get("label_text") or range(len(counts))
    return {
        "name": data.get("name", ""),
        "graphs": int(getattr(data, "num_graphs", 1)) if "batch" in data else 1,
        "nodes": nodes,
        "edges": edges.size(1),
        "features": data.num_node_features,
        "classes": sum(count > 0 for count in counts),
        "class_counts": {str(label): count for label, count in zip(labels, counts, strict=False)},
        "undirected": bool(is_undirected(edges, data.get("edge_weight"), num_nodes=nodes)),
        "self_loops": edges.size(1) - plain.size(1),
        "isolated": nodes - torch.unique(plain).numel(),
        "homophily": _homophily(edges, y) if y is not None and y.numel() == nodes else None,
        "mean_degree": edges.size(1) / nodes if nodes else 0.0,
        "text": data.get("text") is not None,
    }


def _classes(y: Any) -> Tensor | None:
    """Class numbers ``[N]`` with -1 for unknown, or ``None`` where ``y`` holds no classes."""
    if y is None or y.numel() == 0 or y.numel() != y.size(0):
        return None
    y = y.reshape(-1)
    if y.is_floating_point():
        y = y.nan_to_num(-1)
        if bool((y != y.round()).any()):
            return None
    return y.long()


def _homophily(edges: Tensor, y: Tensor) -> float | None:
    ends = y[edges]
    ends = ends[:, (ends >= 0).all(dim=0)]
    return float((ends[0] == ends[1]).double().mean()) if ends.size(1) else None
