"""Names, roots, caches: PyG's datasets against published figures, and everything that can go wrong on the way."""

import gzip
import os
import subprocess
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.datasets import TUDataset

from graphfm.data import catalogue, describe, load
from graphfm.data.catalogue import PYG, resolve

DATA = os.environ.get("GRAPHFM_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="GRAPHFM_DATA is not set")

# Nodes, columns of edge_index, features, classes, edge homophily.
FIGURES = {
    "cora": (2708, 10556, 1433, 7, 0.8100),
    "citeseer": (3327, 9104, 3703, 6, 0.7355),
    "pubmed": (19717, 88648, 500, 3, 0.8024),
    "photo": (7650, 238162, 745, 8, 0.8272),
    "computers": (13752, 491722, 767, 10, 0.7772),
    "texas": (183, 325, 1703, 5, 0.1077),
    "cornell": (183, 298, 1703, 5, 0.3054),
    "wisconsin": (251, 515, 1703, 5, 0.1961),
    "chameleon": (2277, 36101, 2325, 5, 0.2350),
    "squirrel": (5201, 217073, 2089, 5, 0.2239),
    "actor": (7600, 30019, 932, 5, 0.2188),
    "cs": (18333, 163788, 6805, 15, 0.8081),
    "minesweeper": (10000, 78804, 7, 2, 0.6828),
    "tolokers": (11758, 1038000, 10, 2, 0.5945),
    "reed98": (962, 37624, 745, 2, 0.5216),
}
# Graphs, nodes, columns of edge_index, features, classes.
COLLECTIONS = {
    "mutag": (188, 3371, 7442, 7, 2),
    "proteins": (1113, 43471, 162088, 3, 2),
    "enzymes": (600, 19580, 74564, 3, 6),
    "bzr": (405, 14479, 31070, 53, 2),
    "nci1": (4110, 122747, 265506, 37, 2),
    "imdb-binary": (1000, 19773, 193062, 0, 2),
}
MASKED = {"cora": 140, "citeseer": 120, "pubmed": 60}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(tmp_path):
    """A root with one TU collection of two graphs: a path of two nodes, and a triangle."""
    raw = tmp_path / "root" / "TUDataset" / "TINY" / "raw"
    raw.mkdir(parents=True)
    pairs = [(1, 2), (3, 4), (4, 5), (3, 5)]
    (raw / "TINY_A.txt").write_text("".join(f"{a}, {b}\n{b}, {a}\n" for a, b in pairs))
    (raw / "TINY_graph_indicator.txt").write_text("1\n1\n2\n2\n2\n")
    (raw / "TINY_graph_labels.txt").write_text("0\n1\n")
    return tmp_path / "root"


def listing(folder):
    return sorted((str(path.relative_to(folder)), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


@needs_data
@pytest.mark.parametrize("name", FIGURES)
def test_graphs_of_pyg(name, cache):
    data = load(name, cache=cache)
    found = describe(data)
    nodes, edges, features, classes, homophily = FIGURES[name]
    assert data.name == name
    assert (found["nodes"], found["edges"], found["features"], found["classes"]) == (nodes, edges, features, classes)
    assert found["homophily"] == pytest.approx(homophily, abs=1e-4)
    if name in MASKED:
        assert int(data.train_mask.sum()) == MASKED[name]
        assert int(data.test_mask.sum()) == 1000


@needs_data
@pytest.mark.parametrize("name", COLLECTIONS)
def test_collections_of_pyg(name, cache):
    data = load(name, cache=cache)
    found = describe(data)
    assert data.name == name
    assert data.y.size(0) == data.num_graphs
    got = (found["graphs"], found["nodes"], found["edges"], found["features"], found["classes"])
    assert got == COLLECTIONS[name]


@needs_data
def test_nothing_but_the_name_is_added(cache):
    from torch_geometric.datasets import Amazon

    load("photo", cache=cache)
    (folder,) = Path(cache).glob("photo-*")
    bare = Amazon(str(folder / "Amazon"), "Photo")[0]
    data = load("photo", cache=cache)
    assert set(data.keys()) == {*bare.keys(), "name"}
    assert all(torch.equal(data[key], bare[key]) for key in bare.keys())


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("Cora", "cora"),
        ("CiteSeer", "citeseer"),
        ("Coauthor-CS", "cs"),
        ("coauthor physics", "physics"),
        ("Amazon_Photo", "photo"),
        ("IMDB_BINARY", "imdb-binary"),
        ("tu:MUTAG", "mutag"),
        ("tu:COLLAB", "tu:COLLAB"),
        ("OGBN arxiv", "ogbn-arxiv"),
        ("Breast Cancer", "breast_cancer"),
        ("TAG/Cora-ML", "tag/cora_ml"),
        ("Roman Empire", "roman-empire"),
        ("nope", None),
    ],
)
def test_names_are_forgiving(written, canonical):
    assert resolve(written, None) == canonical


def test_every_listed_name_leads_to_itself():
    assert all(resolve(entry.name, None) == entry.name for entry in catalogue() if entry.where != "local")


def test_every_class_is_there():
    from torch_geometric import datasets

    assert all(hasattr(datasets, source.cls) for source in PYG.values() if source.kind != "ogb")


@pytest.mark.parametrize(("name", "near"), [("coraa", "cora"), ("debain", "debian"), ("tag/webkb_utah", "tag/webkb_")])
def test_an_unknown_name_names_its_neighbours(name, near):
    with pytest.raises(ValueError, match=rf"did you mean .*{near}.*graphfm data list"):
        load(name)


def test_a_name_like_nothing():
    with pytest.raises(ValueError, match="'qqqqqqqq' is neither"):
        load("qqqqqqqq")


def test_from_the_root_to_the_cache(tiny, tmp_path, capfd):
    before = listing(tiny)
    first = load("tu:tiny", root=tiny, cache=tmp_path / "cache")
    again = load("TU:Tiny", root=tiny, cache=tmp_path / "cache")
    assert listing(tiny) == before
    for data in (first, again):
        assert data.name == "tu:TINY"
        assert (data.num_graphs, data.num_nodes, data.num_edges) == (2, 5, 8)
        assert data.y.tolist() == [0, 1]
    assert [path.name.rpartition("-")[0] for path in (tmp_path / "cache").iterdir()] == ["tu-TINY"]
    assert capfd.readouterr() == ("", "")


def test_a_root_that_cannot_be_written_to(tiny, tmp_path):
    folders = [tiny, *(path for path in tiny.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert load("tu:TINY", root=tiny, cache=tmp_path / "cache").num_graphs == 2
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_two_roots_and_changed_files_do_not_mix(tiny, tmp_path):
    cache = tmp_path / "cache"
    load("tu:TINY", root=tiny, cache=cache)
    other = tmp_path / "other"
    (tiny).rename(other)
    labels = other / "TUDataset" / "TINY" / "raw" / "TINY_graph_labels.txt"
    labels.write_text("1\n0\n")
    assert load("tu:TINY", root=other, cache=cache).y.tolist() == [1, 0]
    labels.write_text("0\n0 \n")
    assert load("tu:TINY", root=other, cache=cache).y.tolist() == [0, 0]


def test_environment_variables(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHFM_DATA", str(tiny))
    monkeypatch.setenv("GRAPHFM_CACHE", str(tmp_path / "elsewhere"))
    assert load("tu:TINY").num_graphs == 2
    assert list((tmp_path / "elsewhere").iterdir())


def test_without_symbolic_links_it_copies(tiny, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("not here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert load("tu:TINY", root=tiny, cache=tmp_path / "cache").num_graphs == 2


def test_an_incomplete_root_is_named_and_not_filled(tiny, tmp_path):
    (tiny / "TUDataset" / "TINY" / "raw" / "TINY_graph_indicator.txt").unlink()
    before = listing(tiny)
    with pytest.raises(FileNotFoundError, match=r"incomplete in .*TINY: TINY_graph_indicator\.txt missing"):
        load("tu:TINY", root=tiny, cache=tmp_path / "cache")
    assert listing(tiny) == before
    assert not list((tmp_path / "cache").iterdir())


def test_offline_the_error_says_what_to_do(tmp_path, monkeypatch):
    def offline(self):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(TUDataset, "download", offline)
    monkeypatch.delenv("GRAPHFM_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"network.*GRAPHFM_DATA.*TUDataset/MUTAG/raw.*no network") as caught:
        load("mutag", cache=tmp_path)
    assert isinstance(caught.value.__cause__, urllib.error.URLError)
    with pytest.raises(FileNotFoundError, match=f"the root {tmp_path} lacks it"):
        load("mutag", root=tmp_path, cache=tmp_path / "cache")


def test_a_download_goes_to_the_cache_once(tiny, tmp_path, monkeypatch):
    raw = tiny / "TUDataset" / "TINY" / "raw"
    calls = []

    def download(self):
        calls.append(self.raw_dir)
        for file in raw.iterdir():
            (Path(self.raw_dir) / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(TUDataset, "download", download)
    monkeypatch.delenv("GRAPHFM_DATA", raising=False)
    for _ in range(2):
        assert load("tu:TINY", cache=tmp_path / "cache").num_graphs == 2
    assert len(calls) == 1


def test_many_processes_at_once(tiny, tmp_path):
    code = f"from graphfm.data import load; d = load('tu:TINY', root={str(tiny)!r}, cache={str(tmp_path / 'c')!r});"
    command = [sys.executable, "-c", code + "print(d.num_nodes, d.num_edges)"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in running] == ["5 8"] * 3
    assert len(list((tmp_path / "c").iterdir())) == 1


def test_a_root_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="root names"):
        load("cora", root=tmp_path / "none")


def test_a_known_name_wins_over_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wine").mkdir()
    (tmp_path / "wine" / "edges.csv").write_text("source,target\na,b\n")
    assert load("wine").num_nodes == 178
    assert load("./wine").num_nodes == 2
    assert load(Path("wine")).num_nodes == 2


class TestOGB:
    @pytest.fixture
    def root(self, tmp_path):
        """A root with a tiny ogbn-arxiv: six nodes in a directed ring, two in each part of the split."""
        pytest.importorskip("ogb", reason="OGB is not installed (extra 'ogb')")
        folder = tmp_path / "root" / "ogb" / "ogbn_arxiv"
        tables = {
            "raw/edge": [(i, (i + 1) % 6) for i in range(6)],
            "raw/node-feat": np.arange(18).reshape(6, 3) / 2,
            "raw/node-label": [[i % 3] for i in range(6)],
            "raw/node_year": [[2000 + i] for i in range(6)],
            "raw/num-node-list": [[6]],
            "raw/num-edge-list": [[6]],
            "split/time/train": [[0], [1]],
            "split/time/valid": [[2], [3]],
            "split/time/test": [[4], [5]],
        }
        for name, rows in tables.items():
            path = folder / f"{name}.csv.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(path, "wt") as file:
                file.writelines(",".join(map(str, row)) + "\n" for row in rows)
        return tmp_path / "root"

    def test_from_the_root(self, root, tmp_path):
        before = listing(root)
        for _ in range(2):
            data = load("ogbn-arxiv", root=root, cache=tmp_path / "cache")
            assert data.name == "ogbn-arxiv"
            assert data.edge_index.tolist() == [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]]
            assert data.x[5].tolist() == [7.5, 8, 8.5]
            assert data.y.reshape(-1).tolist() == [0, 1, 2, 0, 1, 2]
            assert data.train_mask.nonzero().reshape(-1).tolist() == [0, 1]
            assert data.val_mask.nonzero().reshape(-1).tolist() == [2, 3]
            assert data.test_mask.nonzero().reshape(-1).tolist() == [4, 5]
        assert describe(data)["classes"] == 3
        assert listing(root) == before

    def test_what_safe_loading_allows_is_as_before(self, root, tmp_path):
        before = set(torch.serialization.get_safe_globals())
        load("ogbn-arxiv", root=root, cache=tmp_path / "cache")
        assert set(torch.serialization.get_safe_globals()) == before


def test_without_ogb_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ogb", None)
    monkeypatch.setitem(sys.modules, "ogb.nodeproppred", None)
    with pytest.raises(ImportError, match=r"graphfm\[ogb\]"):
        load("ogbn-arxiv", cache=tmp_path)
