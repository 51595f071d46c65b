"""Real graphs that come with the package, or with scikit-learn, and need no network."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from graphfm.data.tag import read_tag

__all__ = ["load_embedded", "nearest_neighbours"]

NEIGHBOURS = 10


def load_embedded(name: str) -> Data:
    """Load an embedded graph.

    ``"debian"``: packages of Debian bookworm that depend on or recommend one another, 12 sections as classes, a line
    of text each; see ``datasets/debian/README.md``. ``"digits"``, ``"breast_cancer"``, ``"wine"``: the tables that
    scikit-learn ships. ``x`` is the table with every column standardised, ``edge_index`` joins each row to its 10
    nearest rows and back (see ``nearest_neighbours``), ``y`` and ``label_text`` are the table's classes, which take no
    part in the edges.

    Raises:
        ValueError: another name.
        FileNotFoundError: the package lacks its data.
    """
    if name == "debian":
        return read_tag(_folder(name), name)
    from sklearn import datasets
    from sklearn.preprocessing import StandardScaler

    loaders = {"digits": datasets.load_digits, "breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}
    if name not in loaders:
        raise ValueError(f"name must be one of debian, {', '.join(loaders)}, got {name!r}.")
    table = loaders[name]()
    x = StandardScaler().fit_transform(table.data)
    data = Data(x=torch.from_numpy(x).float(), edge_index=nearest_neighbours(x, NEIGHBOURS))
    data.y = torch.from_numpy(table.target).long()
    data.label_text = [str(label) for label in table.target_names]
    data.name = name
    return data


def nearest_neighbours(x: np.ndarray, k: int) -> torch.Tensor:
    """Undirected graph of nearest rows: an edge where either row is among the ``k`` nearest (Euclidean) of the other.

    Args:
        x: ``[N, F]``; a row is no neighbour of its own.
        k: neighbours a row, less than ``N``.

    Returns:
        int64 ``[2, E]``, both directions, sorted, no edge twice.
    """
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=k).fit(x).kneighbors_graph()
    rows, columns = (near + near.T).nonzero()
    order = np.lexsort((columns, rows))
    return torch.from_numpy(np.stack([rows[order], columns[order]]).astype(np.int64))


def _folder(name: str) -> Path:
    """The dataset's folder in an installed package, else in the checkout that holds the package."""
    package = Path(str(resources.files("graphfm.data"))).parent
    for folder in (package / "_datasets" / name, package.parent / "datasets" / name):
        if (folder / "graph.npz").is_file():
            return folder
    raise FileNotFoundError(f"The package in {package} lacks its dataset {name!r}; install graphfm again.")
