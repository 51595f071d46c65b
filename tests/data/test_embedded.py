"""The graphs that need no network."""

import gzip
import hashlib
import importlib.util
import lzma
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.metrics import pairwise_distances

from graphfm.data import check_graph, check_labels, describe, load
from graphfm.data.embedded import load_embedded, nearest_neighbours

CARD = Path(__file__).parents[2] / "datasets" / "debian"


def test_debian_is_what_its_card_says():
    data = load("debian")
    found = describe(data)
    assert found["nodes"] == 7085
    assert found["edges"] == 2 * 11689
    assert found["classes"] == len(data.label_text) == len(data.label_description) == 12
    assert found["features"] == 128
    assert found["undirected"]
    assert found["self_loops"] == found["isolated"] == 0
    assert found["homophily"] == pytest.approx(0.7196, abs=5e-5)
    assert sum(found["class_counts"].values()) == 7085
    assert found["class_counts"]["net"] == 1469
    assert torch.unique(data.edge_index, dim=1).size(1) == data.num_edges
    check_graph(data)
    check_labels(data.y)


def test_debian_has_the_texts_of_its_packages():
    data = load("debian")
    text = dict(zip(data.node_name, data.text, strict=True))
    assert text["0ad"] == "Real-time strategy game of ancient warfare"
    assert all(data.text)
    position = {name: i for i, name in enumerate(data.node_name)}
    assert data.label_text[data.y[position["0ad"]]] == "games"
    edges = set(zip(*data.edge_index.tolist(), strict=True))
    assert (position["0ad"], position["0ad-data"]) in edges


@pytest.mark.skipif(not CARD.is_dir(), reason="the card lies in a checkout only")
def test_the_card_holds_the_checksums():
    card = (CARD / "README.md").read_text()
    rows = re.findall(r"^\| (\S+) \| ([\d,]+) \| ([0-9a-f]{64}) \|$", card, re.MULTILINE)
    assert {row[0] for row in rows} == {"graph.npz", "texts.jsonl.gz", "meta.json"}
    for name, size, digest in rows:
        raw = (CARD / name).read_bytes()
        assert len(raw) == int(size.replace(",", ""))
        assert hashlib.sha256(raw).hexdigest() == digest


@pytest.mark.parametrize(
    ("name", "table"), [("digits", load_digits), ("breast_cancer", load_breast_cancer), ("wine", load_wine)]
)
def test_tables(name, table):
    bunch = table()
    data = load(name)
    assert data.name == name
    assert data.y.tolist() == bunch.target.tolist()
    assert data.label_text == [str(label) for label in bunch.target_names]
    scale = bunch.data.std(0)
    expected = (bunch.data - bunch.data.mean(0)) / np.where(scale > 0, scale, 1)
    assert np.allclose(data.x.numpy(), expected, atol=1e-5)
    degree = torch.bincount(data.edge_index[0], minlength=data.num_nodes)
    assert int(degree.min()) >= 10
    # Every edge is backed by a distance that is among the ten smallest of one of its ends.
    distance = pairwise_distances(expected)
    np.fill_diagonal(distance, np.inf)
    reach = np.sort(distance, axis=1)[:, 9]
    rows, columns = data.edge_index.numpy()
    assert (distance[rows, columns] <= np.maximum(reach[rows], reach[columns]) + 1e-9).all()


def test_nearest_neighbours_against_brute_force():
    x = np.random.default_rng(0).normal(size=(40, 3))
    distance = pairwise_distances(x)
    np.fill_diagonal(distance, np.inf)
    wanted = np.zeros((40, 40), bool)
    np.put_along_axis(wanted, np.argsort(distance, axis=1)[:, :4], True, axis=1)
    edges = nearest_neighbours(x, 4)
    assert edges.tolist() == [part.tolist() for part in np.nonzero(wanted | wanted.T)]


def test_rows_that_are_equal_are_no_neighbours_of_their_own():
    edges = nearest_neighbours(np.zeros((6, 2)), 3)
    assert bool((edges[0] != edges[1]).all())


def test_another_name():
    with pytest.raises(ValueError, match="debian, digits"):
        load_embedded("iris")


INDEX = """\
Package: alpha
Section: games
Pre-Depends: beta (>= 1.0~), libc6
Depends: delta:any | gamma,
 solo-virtual
Description: first line
 more lines

Package: beta
Section: sound
Recommends: beta, many-virtual
Description: b

Package: gamma
Section: games
Provides: solo-virtual (= 2), many-virtual
Suggests: beta
Description: c

Package: delta
Section: web
Provides: many-virtual
Description: d

Package: libc6
Section: libs
Depends: alpha
Description: e

Package: lonely
Section: games
Enhances: alpha
Description: f
"""


@pytest.fixture(scope="module")
def builder():
    if not CARD.is_dir():
        pytest.skip("the build script lies in a checkout only")
    spec = importlib.util.spec_from_file_location("build_debian", CARD / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_rules_of_debian(builder):
    """Alternatives and lone providers make edges; several providers, other sections and other fields make none."""
    names, edges = builder.build(builder.parse(INDEX))
    assert names == ["alpha", "beta", "delta", "gamma"]
    assert edges == [("alpha", "beta"), ("alpha", "delta"), ("alpha", "gamma")]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_an_index_must_belong_to_its_release(builder, tmp_path, suffix):
    raw = INDEX.encode()
    path = tmp_path / f"Packages{suffix}"
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix](raw))
    release = tmp_path / "Release"
    digest = hashlib.sha256(raw).hexdigest()
    release.write_text(f"Date: today\nSHA256:\n {digest} {len(raw)} main/binary-amd64/Packages\n")
    text, index = builder.fetch(str(path), str(release))
    assert index == raw
    assert builder.check(index, text) == digest
    with pytest.raises(ValueError, match="one snapshot"):
        builder.check(index + b"x", text)
