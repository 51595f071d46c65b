"""Predictors on a tiny Llama: each is the method it says, trains what it says, and needs text and structure."""

import pytest
import torch
from planted import WordVectors, edges_shuffled, planted, texts_shuffled

pytest.importorskip("transformers", reason="the extra llm is not installed")

from graphfm.data.splits import Split
from graphfm.graphllm import predictors, tiny_llama
from graphfm.graphllm.backends.prompts import question
from graphfm.graphllm.predictors.llaga import LLaGA, LLaGANeighbours, hops, neighbour_tree, tree_encoding
from graphfm.graphllm.texts import adjacency, as_tag, only_labels_of, without_labels
from graphfm.nn import Adjacency

# Those that look inside a language model; what each trains, and settings under which it trains in seconds.
WHITE = [name for name in predictors.__all__ if "lm" in getattr(predictors, name).needs]
LORA = {f"lora.model/layers/{k}/self_attn/{x}_proj/weight.{part}" for k in (0, 1) for x in "qkvo" for part in "AB"}
NODES = {"nodes.own.weight", "nodes.first.weight", "nodes.norm.weight", "nodes.norm.bias", "nodes.second.weight"}
TRAINED = {
    "GraphGPT": {f"grounding.graph.convs.{k}.{name}" for k in (0, 1) for name in ("lin.weight", "bias")}
    | {"grounding.text.weight", "grounding.text.bias", "projector.weight", "projector.bias"},
    "InstructGLM": LORA | NODES,
    "GraphAdapter": {
        f"adapter.graph.convs.{k}.lin_{name}" for k in (0, 1) for name in ("l.weight", "l.bias", "r.weight")
    }
    | {f"adapter.{name}.weight" for name in ("widen", "shrink", "norm", "from_graph", "from_token", "mix", "narrow")}
    | {"adapter.extend.weight", "adapter.answer.weight", "adapter.answer.bias"},
    "GraphTextTuned": {"tags.weight", "classes.weight", "answers.weight"}
    | {f"encoders.{k}.{part}.{kind}" for k in range(3) for part in (0, 2, 3) for kind in ("weight", "bias")},
    "LLaGA": {"projector.weight", "projector.bias"},
    "LLaGANeighbours": {"projector.weight", "projector.bias"},
}
QUICK = {
    "GraphGPT": {"lr": 2e-2, "epochs": 8, "hidden": 32, "grounding": 5, "neighbours": 8},
    "InstructGLM": {"lr": 1e-2, "epochs": 8, "hidden": 64, "neighbours": 8},
    "GraphAdapter": {"lr": 2e-3, "rounds": 2, "epochs": 60},
    "GraphTextTuned": {"lr": 1e-2, "epochs": 20, "neighbours": 5},
    "LLaGA": {"lr": 1e-2, "epochs": 10},
    "LLaGANeighbours": {"lr": 1e-2, "epochs": 10, "fanout": 6},
}
# Labels that are spread solve the usual graph without the texts: where they are read they are fewer and farther apart.
SPARSE = {"clear": 0.72, "degree": 6, "homophily": 0.62}
TRAINING = {"GraphTextTuned": 100}


@pytest.fixture(scope="module")
def graph():
    return planted()


@pytest.fixture(scope="module")
def sparse():
    return planted(**SPARSE)


@pytest.fixture(scope="module")
def lm(graph):
    return tiny_llama(graph.text, graph.label_text, length=8, steps=300)


def split_of(data, training=300):
    order = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(0))
    return Split(order[:training], order[300:400], order[400:])


def made(name, lm, **settings):
    cls = getattr(predictors, name)
    backends = {"encoder": WordVectors(), "lm": lm}
    return cls(**{need: backends[need] for need in cls.needs}, **settings)


def accuracy_of(name, lm, data):
    split = split_of(data, TRAINING.get(name, 300))
    method = made(name, lm, **QUICK[name]).fit(only_labels_of(data, split), split)
    scores = method.predict(data)
    assert scores.shape == (data.num_nodes, 4)
    assert scores.isfinite().all()
    return float((scores[split.test].argmax(1) == data.y[split.test]).double().mean()), method


@pytest.mark.parametrize("name", WHITE)
def test_it_needs_text_and_structure(name, lm, graph, sparse):
    """Each shuffle costs ten points at least, and only the parameters of the method are trained."""
    graph = sparse if name in TRAINING else graph
    before = {key: value.clone() for key, value in lm.model.state_dict().items()}
    whole, method = accuracy_of(name, lm, graph)
    assert set(method.trained) == TRAINED[name]
    assert all(torch.equal(value, before[key]) for key, value in lm.model.state_dict().items())
    assert all(parameter.requires_grad for parameter in lm.model.parameters())
    assert whole - accuracy_of(name, lm, edges_shuffled(graph))[0] >= 0.1
    assert whole - accuracy_of(name, lm, texts_shuffled(graph))[0] >= 0.1


def path_and_star():
    """Node 0 is joined to 1..12, 12 to 13; 14 is alone."""
    ends = torch.tensor([[0] * 12 + [12], [*range(1, 13), 13]])
    return Adjacency.from_edges(torch.cat([ends, ends.flip(0)], dim=1), 15)


def test_hops_are_powers_of_the_normalised_adjacency():
    adj = path_and_star()
    dense = torch.eye(15, dtype=torch.float64)
    dense[adj.edge_index[0], adj.edge_index[1]] = 1
    scale = dense.sum(1).rsqrt()
    s = scale[:, None] * dense * scale
    x = torch.randn(15, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = torch.stack([torch.linalg.matrix_power(s, k) @ x for k in range(5)], dim=1)
    torch.testing.assert_close(hops(x, adj, 4), wanted)


def test_the_tree_holds_neighbours_each_once_and_nobody_where_there_are_fewer():
    adj = path_and_star()
    tree = neighbour_tree(adj, torch.arange(15), 4, torch.Generator().manual_seed(0))
    assert tree.shape == (15, 1 + 4 + 16)
    friends = {node: set(adj.col[adj.rowptr[node] : adj.rowptr[node + 1]].tolist()) for node in range(15)} | {15: set()}
    for row in tree.tolist():
        for place, parent in enumerate(row[:5]):
            children = [child for child in row[1 + 4 * place : 5 + 4 * place] if child != 15]
            assert len(children) == len(set(children)) == min(4, len(friends[parent]))
            assert set(children) <= friends[parent]
    assert tree[14].tolist() == [14, *[15] * 20]
    drawn = neighbour_tree(adj, torch.zeros(4000, dtype=torch.long), 4, torch.Generator().manual_seed(1))[:, 1:5]
    share = torch.bincount(drawn.flatten(), minlength=15)[1:13] / 4000
    torch.testing.assert_close(share, torch.full((12,), 4 / 12), atol=0.03, rtol=0)
    empty = Adjacency.from_edges(torch.zeros(2, 0, dtype=torch.long), 2)
    assert neighbour_tree(empty, torch.arange(2), 1, torch.Generator()).tolist() == [[0, 2, 2], [1, 2, 2]]


def test_the_encoding_is_the_spectrum_of_the_tree_and_loses_no_dimension():
    basis = tree_encoding(10)
    assert torch.linalg.matrix_rank(basis) == 111
    edges = torch.zeros(111, 111, dtype=torch.float64)
    for child in range(1, 111):
        edges[child, (child - 1) // 10] = edges[(child - 1) // 10, child] = 1
    scale = edges.sum(1).rsqrt()
    laplacian = torch.eye(111, dtype=torch.float64) - scale[:, None] * edges * scale
    values = basis.T @ laplacian @ basis
    torch.testing.assert_close(values, torch.diag(values.diagonal()), atol=1e-12, rtol=0)
    torch.testing.assert_close(basis.T @ basis, torch.eye(111, dtype=torch.float64), atol=1e-12, rtol=0)


def test_llaga_asks_with_projected_hops_between_the_words(lm, graph):
    """The score is that of the language model on the prompt written out by hand, and the loss its next-token loss."""
    split = split_of(graph)
    method = LLaGA(WordVectors(), lm, epochs=1).fit(only_labels_of(graph, split), split)
    x = WordVectors().encode(graph.text)
    nodes = [3, 77]
    fields = hops(x, adjacency(graph), 4)[nodes]
    tokens = method.modules["projector"](fields)
    start = lm.embed(torch.tensor([[lm.tokenizer.bos_token_id]])).expand(2, -1, -1)
    asked = lm.tokenizer(question(graph.label_text), add_special_tokens=False, return_tensors="pt")["input_ids"]
    prompt = torch.cat([start, tokens, lm.embed(asked).expand(2, -1, -1)], dim=1)
    with torch.no_grad():
        wanted = torch.zeros(2, 4)
        for label, ids in enumerate(lm.label_ids(graph.label_text)):
            whole = torch.cat([prompt, lm.embed(torch.tensor([ids])).expand(2, -1, -1)], dim=1)
            told = lm.model(inputs_embeds=whole).logits.log_softmax(-1)
            for at, token in enumerate(ids):
                wanted[:, label] += told[:, prompt.size(1) - 1 + at, token]
    torch.testing.assert_close(method.predict(graph)[nodes], wanted.softmax(1), atol=1e-4, rtol=0)


def test_the_neighbourhood_template_is_the_tree_place_by_place(lm, graph):
    """Each place its vector and its row of the encoding, projected; zeros where nobody is."""
    method = LLaGANeighbours(WordVectors(), lm, epochs=1, fanout=3, seed=5)
    few = Split(torch.arange(8), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    method.fit(graph, few)
    x, adj = WordVectors().encode(graph.text), adjacency(graph)
    loner = Adjacency.from_edges(adj.edge_index[:, (adj.edge_index != 9).all(0)], adj.num_nodes)
    tree = neighbour_tree(loner, torch.arange(adj.num_nodes), 3, torch.Generator().manual_seed(5))[[9, 77]]
    alone = graph.clone()
    alone.edge_index = loner.edge_index
    found, mask = method._prompts(method.template(alone, x))(torch.tensor([9, 77]))
    weight, bias = (value.double() for value in method.modules["projector"].state_dict().values())
    basis = tree_encoding(3)
    for row in range(2):
        for place, node in enumerate(tree[row].tolist()):
            vector = torch.zeros(0, dtype=torch.float64) if node == 900 else torch.cat([x[node].double(), basis[place]])
            wanted = torch.zeros(lm.dim, dtype=torch.float64) if node == 900 else weight @ vector + bias
            torch.testing.assert_close(found[row, 1 + place].double(), wanted, atol=1e-5, rtol=1e-5)
    assert tree[0].tolist() == [9, *[900] * 12]
    assert bool(mask.all())


@pytest.mark.parametrize("name", WHITE)
def test_the_seed_decides_and_labels_of_test_nodes_do_not(name, lm):
    data = as_tag(planted(0, nodes=60))
    split = Split(torch.arange(20), torch.arange(20, 30), torch.arange(30, 60))
    hidden = only_labels_of(data, split)
    answers = [
        made(name, lm, **QUICK[name] | {"epochs": 1, "seed": seed}).fit(graph, split).predict(without_labels(data))
        for seed, graph in ((3, data), (3, hidden), (4, hidden))
    ]
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_bad_input(lm):
    with pytest.raises(ValueError, match="fanout must be at least 1"):
        LLaGANeighbours(WordVectors(), lm, fanout=0)
