"""GIANT: clusters of neighbours against a slow version, the loss, what is trained; text and structure both count."""

import copy

import numpy as np
import pytest
import torch
from planted import edges_shuffled, planted, texts_shuffled
from sklearn.feature_extraction.text import TfidfVectorizer

pytest.importorskip("sentence_transformers", reason="the extra llm is not installed")

from graphfm.data.splits import few_shot
from graphfm.graphllm import tiny_bert
from graphfm.graphllm.enhancers import GIANT
from graphfm.graphllm.enhancers.neighbour_clusters import (
    Level,
    cluster_tree,
    neighbour_words,
    shortlisted_hinge,
    touched,
)
from graphfm.graphllm.protocol import answer_scores
from graphfm.graphllm.texts import adjacency, as_tag, only_labels_of, without_labels

QUICK = {"branches": (4, 3), "steps": 80, "batch": 32, "lm_lr": 3e-3, "epochs": 60}


@pytest.fixture(scope="module")
def graph():
    return as_tag(planted(0))


@pytest.fixture(scope="module")
def encoder(graph):
    return tiny_bert(graph.text, graph.label_text, steps=30)


def fitted(encoder, data, **settings):
    split = few_shot(data.y, 12, 0, val_shots=8)
    method = GIANT(encoder, **QUICK | settings).fit(only_labels_of(data, split), split)
    scores = method.predict(without_labels(data))
    assert scores.shape == (data.num_nodes, 4)
    return method, answer_scores(scores[split.test], data.y[split.test])["accuracy"]


def test_text_and_structure_both_count_and_all_is_trained(graph, encoder):
    before = {key: value.clone() for key, value in encoder.model.state_dict().items()}
    method, whole = fitted(encoder, graph)
    assert whole > 0.5
    assert whole - fitted(encoder, graph, steps=0)[1] >= 0.1, "what is around a text is worth learning"
    assert whole - fitted(encoder, as_tag(edges_shuffled(graph)))[1] >= 0.1
    assert whole - fitted(encoder, as_tag(texts_shuffled(graph)))[1] >= 0.1
    assert {key.split(".")[0] for key in method.trained} == {"lm", "levels", "network"}
    assert {key.split(".")[1] for key in method.trained if key.startswith("levels")} == {"0", "1"}
    assert all(parameter.grad is not None for parameter in method.trained.values())
    assert all(torch.equal(before[key], value) for key, value in encoder.model.state_dict().items())
    assert not torch.allclose(method.lm.encode(graph.text[:9]), encoder.encode(graph.text[:9]), atol=1e-2)


def test_the_encoder_learns_what_is_around_a_text(encoder):
    """Two groups that only know one another: what a text says tells the words around it, after tuning."""
    texts = [f"{'apple' if i % 2 else 'brick'} {i % 7}" for i in range(60)]
    data = as_tag(planted(0, nodes=60))
    data.text = texts
    data.edge_index = torch.stack([torch.arange(60), (torch.arange(60) + 2) % 60])
    data.edge_index = torch.cat([data.edge_index, data.edge_index.flip(0)], 1)
    method = GIANT(encoder, **QUICK | {"branches": (2,)})
    method.lm = copy.deepcopy(encoder)
    torch.manual_seed(0)
    method.learn_neighbours(texts, adjacency(data))
    level = cluster_tree(neighbour_words(texts, adjacency(data)), (2,), 0)[0]
    right = touched(adjacency(data), level)
    assert right.sum(1).eq(1).all()
    scores = method.levels[0](method.lm.encode(texts))
    assert torch.equal(scores > 0, right)


def test_words_around_and_clusters_are_the_formula():
    data = as_tag(planted(0, nodes=40, degree=4))
    data.edge_index = data.edge_index[:, (data.edge_index != 7).all(0)]  # a node by itself
    adj = adjacency(data)
    x = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit_transform(data.text).toarray()
    pairs = {tuple(pair) for pair in data.edge_index.t().tolist()}
    slow = np.zeros_like(x)
    for i in range(40):
        for j in range(40):
            if (i, j) in pairs or (j, i) in pairs:
                slow[i] += x[j]
        slow[i] /= max(np.sqrt((slow[i] ** 2).sum()), 1e-300)
    z = neighbour_words(data.text, adj)
    np.testing.assert_allclose(z.toarray(), slow, atol=1e-12)
    assert not slow[7].any()
    first, second = cluster_tree(z, (3, 4), 0)
    assert first.parent.tolist() == [0] * int(first.cluster.max() + 1)
    for cluster, parent in enumerate(second.parent.tolist()):
        assert (first.cluster[second.cluster == cluster] == parent).all()
    assert sorted(set(second.cluster.tolist())) == list(range(second.parent.numel()))
    again = cluster_tree(z, (3, 4), 0)
    assert all(torch.equal(a.cluster, b.cluster) for a, b in zip(again, (first, second), strict=True))
    found = touched(adj, second)
    for i in range(40):
        around = {int(second.cluster[j]) for j in range(40) if (i, j) in pairs or (j, i) in pairs}
        assert set(torch.nonzero(found[i]).flatten().tolist()) == around


def test_k_means_puts_like_rows_together():
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.eye(3), 5, axis=0)
    level = cluster_tree(csr_matrix(rows), (3,), 0)[0]
    assert all(len(set(level.cluster[i : i + 5].tolist())) == 1 for i in (0, 5, 10))
    assert level.cluster.unique().numel() == 3
    few = cluster_tree(csr_matrix(rows[:2]), (8,), 0)[0]
    assert few.parent.tolist() == [0], "equal rows cannot be parted"


def test_the_loss_is_the_formula():
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 5, generator=random, dtype=torch.float64, requires_grad=True)
    target = torch.rand(6, 5, generator=random) < 0.4
    shortlist = torch.rand(6, 5, generator=random) < 0.6
    shortlist[2] = False
    slow = 0.0
    for i in range(6):
        asked = [c for c in range(5) if shortlist[i, c]]
        each = [max(0.0, 1 - (1 if target[i, c] else -1) * scores[i, c].item()) ** 2 for c in asked]
        slow += sum(each) / len(each) / 6 if each else 0.0
    assert shortlisted_hinge(scores, target, shortlist).item() == pytest.approx(slow, rel=1e-12)
    assert torch.autograd.gradcheck(lambda s: shortlisted_hinge(s, target, shortlist), scores)


def test_weights_of_edges_and_hubs_do_not_change_what_is_touched():
    data = as_tag(planted(0, nodes=30))
    level = Level(torch.arange(30) % 3, torch.zeros(3, dtype=torch.long))
    plain = touched(adjacency(data), level)
    data.edge_weight = torch.zeros(data.edge_index.size(1))
    assert torch.equal(touched(adjacency(data), level), plain)


def test_test_labels_do_not_matter_and_bad_input(encoder):
    data = as_tag(planted(0, nodes=80))
    split = few_shot(data.y, 5, 0, val_shots=3)
    changed = data.clone()
    changed.y[split.test] = (data.y[split.test] + 1) % 4
    small = QUICK | {"steps": 2, "epochs": 3, "rank": 2}
    one, two = (
        GIANT(encoder, **small).fit(only_labels_of(graph, split), split).predict(without_labels(graph))
        for graph in (data, changed)
    )
    assert torch.equal(one, two)
    with pytest.raises(ValueError, match="branches must name"):
        GIANT(encoder, branches=(4, 1))
    with pytest.raises(ValueError, match="no word to cluster"):
        neighbour_words(["", " "], adjacency(as_tag(planted(0, nodes=8))))
    data.edge_index = data.edge_index[:, :0]
    with pytest.raises(ValueError, match="no edges to learn from"):
        GIANT(encoder, **small).fit(data, split)
