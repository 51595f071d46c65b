"""Graphs with text, and features of texts."""

import gzip
import json
import os

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from graphfm.data import load
from graphfm.data.tag import text_features

DATA = os.environ.get("GRAPHFM_DATA")
TEXTS = ["a green tea", "a black tea", "", "graphs of trees", "trees and green forests", "the black forest"]


def tag(folder, texts=TEXTS, meta=None, **arrays):
    arrays = {"edge_index": np.array([[0, 1], [1, 0]]), "y": np.array([0, 1, 0, 1, 1, 0])} | arrays
    np.savez_compressed(folder / "graph.npz", **arrays)
    with gzip.open(folder / "texts.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts))
    meta = meta or {"label_names": ["p", "q"], "label_descriptions": ["the ps", "the qs"]}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def test_features_keep_the_cosines_of_tfidf():
    """With full rank the SVD only turns the space."""
    words = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit_transform(TEXTS).toarray()
    x = text_features(TEXTS, dim=64)
    assert x.shape == (6, 64)
    assert x.dtype == np.float32
    assert np.allclose(x @ x.T, words @ words.T, atol=1e-5)
    assert not x[2].any()
    assert np.array_equal(x, text_features(TEXTS, dim=64))


def test_features_of_no_words():
    with pytest.raises(ValueError, match="no word"):
        text_features(["", "the"])


def test_a_folder(tmp_path):
    data = load(tag(tmp_path))
    assert data.text == TEXTS
    assert data.label_text == ["p", "q"]
    assert data.label_description == ["the ps", "the qs"]
    assert data.y.tolist() == [0, 1, 0, 1, 1, 0]
    assert np.array_equal(data.x.numpy(), text_features(TEXTS))
    assert data.name == tmp_path.name
    assert "train_mask" not in data


def test_texts_that_are_not_there_are_empty(tmp_path):
    assert load(tag(tmp_path, texts=["a green tea", None, float("nan"), *TEXTS[3:]])).text[:3] == [
        "a green tea",
        "",
        "",
    ]


def test_features_of_the_file_win(tmp_path):
    data = load(tag(tmp_path, x=np.arange(12, dtype=np.float16).reshape(6, 2)))
    assert data.x.tolist() == [[2 * i, 2 * i + 1] for i in range(6)]


def test_the_root_is_searched(tmp_path):
    folder = tmp_path / "tag" / "my graph"
    folder.mkdir(parents=True)
    tag(folder)
    assert load("tag/My_Graph", root=tmp_path).name == "tag/my graph"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"texts": TEXTS[:4]}, "y has 6 entries"),
        ({"edge_index": np.array([[0], [9]])}, r"has nodes 0\.\.5"),
        ({"y": np.array([0, 1, 2, 0, 0, 0])}, "class 2, meta.json names 2 classes"),
        ({"train_mask": np.ones(5, bool)}, "train_mask has 5 entries"),
        ({"edge_index": np.array("a")}, r"graph\.npz: array 'edge_index' must hold whole numbers"),
        ({"y": np.array(["p"] * 6)}, "'y' must hold class numbers, got <U1"),
        ({"meta": [1]}, "one JSON object, got list"),
    ],
)
def test_files_that_do_not_match(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        load(tag(tmp_path, **arguments))


def test_broken_files(tmp_path):
    tag(tmp_path)
    texts = tmp_path / "texts.jsonl.gz"
    whole = texts.read_bytes()
    texts.write_bytes(whole[:-12])
    with pytest.raises(ValueError, match=r"texts\.jsonl\.gz cannot be read"):
        load(tmp_path)
    texts.write_bytes(gzip.compress(b'{"id": 1, "text": "a"}\n'))
    with pytest.raises(ValueError, match=r"line 1: expected an object with 'text' and 'id' 0"):
        load(tmp_path)
    texts.write_bytes(whole)
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(ValueError, match=r"meta\.json is no JSON"):
        load(tmp_path)
    (tmp_path / "meta.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no meta\.json"):
        load(tmp_path)


def test_without_a_root_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("GRAPHFM_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"GRAPHFM_DATA.*tag/cora/graph\.npz"):
        load("tag/cora")
    with pytest.raises(FileNotFoundError, match="has no folder tag/cora"):
        load("tag/cora", root=tmp_path)


@pytest.mark.skipif(not DATA, reason="GRAPHFM_DATA is not set")
@pytest.mark.parametrize(
    ("name", "nodes", "edges", "classes", "masks"),
    [
        ("cora", 2708, 10556, 7, True),
        ("cora_ml", 2995, 16316, 7, False),
        ("citeseer_sub", 1274, 2720, 6, True),
        ("webkb_cornell", 191, 548, 5, False),
        ("webkb_texas", 187, 560, 5, False),
        ("webkb_wisconsin", 265, 918, 5, False),
        ("coauthor_cs_keywords", 18333, 163788, 15, False),
    ],
)
def test_real_ones(name, nodes, edges, classes, masks):
    data = load(f"tag/{name}")
    assert (data.num_nodes, data.num_edges, len(data.label_text)) == (nodes, edges, classes)
    assert len(data.text) == len(data.x) == nodes
    assert data.x.shape[1] == 128
    assert len(data.label_description) == classes
    assert ("train_mask" in data) is masks
    assert data.name == f"tag/{name}"
