"""GLBench's files, PyG's TAGDataset and JSON lines."""

import os
import types

import pytest
import torch
from torch_geometric.data import Data

from graphfm.data import catalogue, from_tag_dataset, load, read_glbench, read_jsonl
from graphfm.data.words import as_text
from graphfm.graphllm.texts import as_tag, class_texts, node_texts

NODES = (
    '{"id": "a", "text": "one", "label": "x"}\n\n{"id": 7, "text": null, "label": "w"}\n{"id": "c", "text": "three"}\n'
)
EDGES = '{"source": "a", "target": 7}\n{"source": "c", "target": "a"}\n'


def published():
    data = Data(x=torch.rand(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]), y=torch.tensor([[0], [1], [0]]))
    data.raw_texts, data.label_name = ["one", "two", None], ["A", "B"]
    data.train_mask = torch.tensor([True, False, False])
    return data


def test_a_published_file(tmp_path):
    torch.save(published(), tmp_path / "cora.pt")
    data = read_glbench(tmp_path / "cora.pt")
    assert data.text == ["one", "two", ""]
    assert data.label_text == ["A", "B"]
    assert data.y.tolist() == [0, 1, 0]
    assert data.name == "cora"
    assert data.edge_index.tolist() == [[0, 1], [1, 2]]
    assert data.train_mask.tolist() == [True, False, False]


class Evil:
    """Would make a folder when unpickled."""

    def __reduce__(self):
        return os.mkdir, (str(Evil.folder),)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    Evil.folder = tmp_path / "made"
    data = published()
    data.extra = Evil()
    torch.save(data, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="without running code"):
        read_glbench(tmp_path / "evil.pt")
    assert not Evil.folder.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("raw_texts"), "holds no texts"),
        (lambda d: d.pop("edge_index"), "no edge_index"),
        (lambda d: d.update(edge_index=torch.tensor([[0, 1], [1, 2], [2, 0]])), "transpose"),
        (lambda d: d.update(raw_texts=["one"]), "there are 1 texts"),
        (lambda d: d.update(edge_index=torch.tensor([[0], [9]])), "9"),
    ],
)
def test_files_that_do_not_fit(tmp_path, change, words):
    given = published().to_dict()
    change(given)
    torch.save(given, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=words):
        read_glbench(tmp_path / "bad.pt")


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_glbench(tmp_path / "none.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match="cannot be read"):
        read_glbench(tmp_path / "cut.pt")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="PyG Data or a dict"):
        read_glbench(tmp_path / "tensor.pt")


class Tags(types.SimpleNamespace):
    """What is read of PyG's class, which needs a tokenizer and a download to be made."""

    def __getitem__(self, index):
        return self.data

    def get_idx_split(self):
        return {"train": torch.tensor([2]), "valid": torch.tensor([0]), "test": torch.tensor([1])}


def test_a_tag_dataset():
    data = from_tag_dataset(Tags(data=published(), text=["p", "q", "r"], name="ogbn-arxiv"), labels=["A", "B"])
    assert data.text == ["p", "q", "r"]
    assert data.val_mask.tolist() == [True, False, False]
    assert data.train_mask.tolist() == [False, False, True]
    assert (data.name, data.label_text) == ("ogbn-arxiv", ["A", "B"])
    with pytest.raises(ValueError, match="text is missing"):
        from_tag_dataset(Tags(data=published(), text=None))


def test_pygs_own_class(tmp_path):
    """Made from files as users have them."""
    pandas = pytest.importorskip("pandas", reason="PyG's TAGDataset reads its texts with pandas")
    pytest.importorskip("transformers", reason="the extra llm is not installed")
    from torch_geometric.data import InMemoryDataset
    from torch_geometric.datasets import TAGDataset

    from graphfm.graphllm.backends.tiny import word_tokenizer

    class Small(InMemoryDataset):
        name = "some-graph"

        def __init__(self):
            super().__init__(None)
            graph = Data(edge_index=torch.tensor([[0, 1], [1, 2]]), y=torch.tensor([[0], [1], [0]]), x=torch.rand(3, 2))
            self.data, self.slices = self.collate([graph])

        def get_idx_split(self):
            return {"train": torch.tensor([2]), "valid": torch.tensor([0]), "test": torch.tensor([1])}

    word_tokenizer(["p q r"]).save_pretrained(tmp_path / "words")
    (tmp_path / "some_graph" / "raw").mkdir(parents=True)
    texts = pandas.DataFrame({"text": ["p", "r", "q r"]})
    texts.to_csv(tmp_path / "some_graph" / "raw" / "node-text.csv.gz", index=False)
    data = from_tag_dataset(TAGDataset(tmp_path, Small(), str(tmp_path / "words")), labels=["A", "B"])
    assert data.text == ["p", "r", "q r"]
    assert data.y.tolist() == [0, 1, 0]
    assert (data.name, data.train_mask.tolist()) == ("some-graph", [False, False, True])
    assert data.edge_index.tolist() == [[0, 1], [1, 2]]


def test_texts_that_are_not_there_are_empty(tmp_path):
    nodes = NODES.replace('"one"', "NaN")
    (tmp_path / "nodes.jsonl").write_text(nodes)
    (tmp_path / "edges.jsonl").write_text(EDGES)
    assert read_jsonl(tmp_path / "nodes.jsonl", tmp_path / "edges.jsonl").text == ["", "", "three"]
    given = published()
    given.raw_texts = [float("nan"), "two", None]
    torch.save(given, tmp_path / "cora.pt")
    assert read_glbench(tmp_path / "cora.pt").text == ["", "two", ""]
    given.text = given.raw_texts
    assert node_texts(given) == ["", "two", ""]
    assert as_text(pytest.importorskip("pandas", reason="for its NA").NA) == ""
    given.label_name, given.label_text_description = ["A", "B"], [None, "about B"]
    given.y, given.label_text, given.label_description = given.y[:, 0], ["A", "B"], [None, float("nan")]
    assert class_texts(as_tag(given)) == ["A", "B"]


def test_json_lines(tmp_path):
    (tmp_path / "nodes.jsonl").write_text(NODES)
    (tmp_path / "edges.jsonl").write_text(EDGES)
    data = read_jsonl(tmp_path / "nodes.jsonl", tmp_path / "edges.jsonl", descriptions={"x": "about x"})
    assert data.text == ["one", "", "three"]
    assert data.node_name == ["a", "7", "c"]
    assert data.y.tolist() == [1, 0, -1]
    assert (data.label_text, data.label_description) == (["w", "x"], ["", "about x"])
    assert data.edge_index.tolist() == [[0, 2], [1, 0]]
    assert data.name == tmp_path.name


@pytest.mark.parametrize(
    ("nodes", "edges", "words"),
    [
        ('{"id": 1}\n', EDGES, "line 1: expected an object with 'id' and 'text'"),
        (NODES + '{"id": "a", "text": "again"}\n', EDGES, "'a' is there twice"),
        (NODES, '{"source": "a", "target": "zz"}\n', "target 'zz' is no id"),
        (NODES, "[1, 2]\n", "line 1: expected an object"),
        (NODES, "{cut", "line 1 is no JSON"),
        (NODES, EDGES + '{"source": "a", "target": "c", "weight": 2}\n', "line 1: weight"),
    ],
)
def test_json_lines_that_do_not_fit(tmp_path, nodes, edges, words):
    (tmp_path / "n.jsonl").write_text(nodes)
    (tmp_path / "e.jsonl").write_text(edges)
    with pytest.raises(ValueError, match=words):
        read_jsonl(tmp_path / "n.jsonl", tmp_path / "e.jsonl")


def test_load_finds_published_files_by_name_and_by_path(tmp_path, monkeypatch):
    monkeypatch.delenv("GRAPHFM_DATA", raising=False)
    (tmp_path / "GLBench").mkdir()
    torch.save(published(), tmp_path / "GLBench" / "cora.pt")
    torch.save(published(), tmp_path / "GLBench" / "Mine.pt")
    by_name = load("GLBench/Cora", root=tmp_path)
    assert (by_name.name, by_name.text) == ("glbench/cora", ["one", "two", ""])
    assert load("glbench/mine", root=tmp_path).name == "glbench/Mine"
    by_path = load(str(tmp_path / "GLBench" / "cora.pt"))
    assert by_path.name == "cora"
    assert torch.equal(by_path.x, by_name.x)
    where = {entry.name: entry.where for entry in catalogue(tmp_path) if entry.kind == "glbench"}
    assert (where["glbench/cora"], where["glbench/Mine"], where["glbench/reddit"]) == ("local", "local", "root")
    with pytest.raises(FileNotFoundError, match=r"There is no file .*pubmed\.pt.*set GRAPHFM_DATA"):
        load("glbench/pubmed", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="No data root is named"):
        load("glbench/pubmed")
    with pytest.raises(ValueError, match="did you mean glbench/pubmed"):
        load("glbench/pubmedd")
    with pytest.raises(FileNotFoundError, match="is no file"):
        load("nowhere.pt")


def test_load_opens_a_folder_of_json_lines(tmp_path):
    (tmp_path / "nodes.jsonl").write_text(NODES)
    with pytest.raises(FileNotFoundError, match=r"edges\.jsonl"):
        load(tmp_path)
    (tmp_path / "edges.jsonl").write_text(EDGES)
    data = load(tmp_path)
    assert (data.text, data.label_text) == (["one", "", "three"], ["w", "x"])
    assert data.name == tmp_path.name
