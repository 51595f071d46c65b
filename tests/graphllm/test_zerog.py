"""ZeroG with LoRA in the encoder: the formula, what is trained, and that text and structure both count."""

import pytest
import torch
from planted import edges_shuffled, planted, texts_shuffled

pytest.importorskip("sentence_transformers", reason="the extra llm is not installed")

from graphfm.graphllm import tiny_bert
from graphfm.graphllm.enhancers import ZeroG
from graphfm.graphllm.enhancers.zerog import describe
from graphfm.graphllm.protocol import answer_scores
from graphfm.graphllm.texts import adjacency, as_tag, class_texts, without_labels

WORDS = (("fig", "gold", "hat", "ink"), ("jam", "kite", "lamp", "moon"))
QUICK = {"rounds": 3, "hops": 1, "at_most": 12, "batch_size": 16, "lr": 1e-2}


@pytest.fixture(scope="module")
def sources():
    return [as_tag(planted(100 + i, nodes=300, classes=words)) for i, words in enumerate(WORDS)]


@pytest.fixture(scope="module")
def target():
    return as_tag(planted(0))


@pytest.fixture(scope="module")
def encoder(sources, target):
    texts = [text for graph in (*sources, target) for text in graph.text]
    return tiny_bert(texts, [word for words in (*WORDS, target.label_text) for word in words], steps=60)


@pytest.fixture(scope="module")
def method(encoder, sources):
    return ZeroG(encoder, steps=12, **QUICK).fit(sources)


def test_text_and_structure_both_count(method, target):
    def accuracy(data):
        scores = method.predict(without_labels(data))
        assert scores.shape == (900, 4)
        return answer_scores(scores, data.y)["accuracy"]

    whole = accuracy(target)
    assert whole > 0.6, "a text by itself is right for half of the nodes"
    assert whole - accuracy(as_tag(edges_shuffled(target))) >= 0.1
    assert whole - accuracy(as_tag(texts_shuffled(target))) >= 0.1


def test_queries_and_values_are_trained_and_nothing_else(method, encoder):
    places = [f"encoder.layer.{i}.attention.self.{kind}" for i in (0, 1) for kind in ("query", "value")]
    found = {key.removeprefix("lm.0.model.").partition("._adapted")[0] for key in method.trained}
    assert found == set(places)
    assert sum(parameter.numel() for parameter in method.trained.values()) == len(places) * 2 * 4 * 32
    assert all(parameter.grad is not None for parameter in method.trained.values())
    assert any(bool(p.any()) for key, p in method.trained.items() if key.endswith(".B")), "B leaves zero"
    assert all(torch.equal(p, q) for p, q in zip(encoder.model.state_dict().values(),
                                                 method.lm.model.state_dict().values(), strict=True))  # fmt: skip
    assert all(parameter.requires_grad for parameter in encoder.model.parameters())


def slow_scores(x, classes, edge_index, owner, rounds):
    """``S^R`` on graphs, each with a hub of its own, in float64: vectors of the nodes ``[n, D]``, and the classes'."""
    standard = lambda z: (z - z.mean(0)) / z.std(0, correction=0)  # noqa: E731
    n, hubs = owner.numel(), int(owner.max()) + 1
    a = torch.eye(n + hubs, dtype=torch.float64)
    a[edge_index[0], edge_index[1]] = 1.0
    a[range(n), n + owner] = 1.0
    a[n + owner, range(n)] = 1.0
    scale = a.sum(1).rsqrt()
    h = torch.linalg.matrix_power(scale[:, None] * a * scale, rounds) @ standard(x)
    return h[:n], standard(classes)


def test_on_the_target_it_is_the_formula(method):
    data = as_tag(planted(5, nodes=60))
    x = method.lm.encode([*data.text, describe(data)]).double()
    classes = method.lm.encode(class_texts(data)).double()
    h, e = slow_scores(x, classes, data.edge_index, torch.zeros(60, dtype=torch.long), 3)
    slow = torch.nn.functional.normalize(h, dim=1) @ torch.nn.functional.normalize(e, dim=1).t()
    found = method.predict(without_labels(data))
    torch.testing.assert_close(found.double(), slow, atol=1e-4, rtol=1e-3)


def test_the_loss_is_the_formula(encoder):
    """On whole components: two hops reach all of each, so that the neighbourhoods are known."""
    data = as_tag(planted(0, nodes=6))
    data.edge_index = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])
    data.y = torch.tensor([0, 1, 2, 3, -1, 0])  # node 4 is read and not told
    one = ZeroG(encoder, rounds=2, hops=2, at_most=9, steps=0, batch_size=9, seed=1).fit([data])
    read = one.reader(data)
    found = one._loss(data, read, adjacency(data), torch.Generator().manual_seed(0))
    members = ([0, 1, 2], [0, 1, 2], [0, 1, 2], [3, 4], [5])
    node = torch.tensor([node for part in members for node in part])
    owner = torch.tensor([i for i, part in enumerate(members) for _ in part])
    edges = [
        (i, j)
        for i in range(12)
        for j in range(12)
        if owner[i] == owner[j] and [int(node[i]), int(node[j])] in data.edge_index.t().tolist()
    ]
    texts = [data.text[i] for i in node] + [describe(data)] * 5
    h, e = slow_scores(encoder.encode(texts).double(), encoder.encode(class_texts(data)).double(),
                       torch.tensor(edges).t(), owner, 2)  # fmt: skip
    told = data.y[node] >= 0
    slow = torch.nn.functional.cross_entropy(h[told] @ e.t() / 32**0.5, data.y[node[told]])
    torch.testing.assert_close(found.double(), slow, atol=1e-4, rtol=1e-4)


def test_it_starts_as_propagation_and_the_seed_decides(encoder, sources, target):
    small = as_tag(planted(0, nodes=80))
    none, one, again = (ZeroG(encoder, steps=steps, **QUICK).fit(sources) for steps in (0, 2, 2))
    x = encoder.encode(small.text)
    torch.testing.assert_close(none.whole(small)[0], x)
    assert torch.equal(one.predict(small), again.predict(small))
    assert not torch.equal(one.predict(small), none.predict(small))
    with pytest.raises(ValueError, match="sources is empty; ZeroG"):
        ZeroG(encoder).fit([])
