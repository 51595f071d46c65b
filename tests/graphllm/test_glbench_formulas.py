"""Formulas of the methods against slow versions, closed forms and PyG's own."""

import numpy as np
import pytest
import torch
from planted import WordVectors, planted
from torch_geometric.nn import RGCNConv
from torch_geometric.nn.models import CorrectAndSmooth as Reference

from graphfm.data.splits import Split, few_shot
from graphfm.graphllm.classical import LinearGNNs
from graphfm.graphllm.classical.correct_and_smooth import correct, smooth
from graphfm.graphllm.enhancers import FrozenZeroG
from graphfm.graphllm.enhancers.ego_prompts import RELATIONS, egos, prompts
from graphfm.graphllm.enhancers.engine import Ladder
from graphfm.graphllm.enhancers.ofa_network import OFANetwork, RelationalLayer
from graphfm.graphllm.enhancers.zerog import describe, standardised, with_hub
from graphfm.graphllm.enhancers.zerog_frozen import LowRank
from graphfm.graphllm.protocol import answer_scores
from graphfm.graphllm.texts import adjacency, as_tag, class_texts, only_labels_of, without_labels
from graphfm.graphllm.training import train_nodes
from graphfm.graphllm.zeroshot import TextCosine, TextPropagation
from graphfm.nn import Adjacency


def dense_s(data):
    """``D^-1/2 (A + I) D^-1/2`` in float64."""
    a = torch.eye(data.num_nodes, dtype=torch.float64)
    a[data.edge_index[0], data.edge_index[1]] = 1.0
    scale = a.sum(1).rsqrt()
    return scale[:, None] * a * scale[None, :]


def test_propagation_is_powers_of_s_and_a_cosine():
    data = as_tag(planted(0, nodes=60))
    encoder = WordVectors()
    x = torch.nn.functional.normalize(encoder.encode(data.text).double(), dim=1)
    classes = encoder.encode(class_texts(data)).double()
    for kind, rounds in ((TextCosine, 0), (TextPropagation, 2)):
        h = torch.linalg.matrix_power(dense_s(data), rounds) @ x
        slow = torch.stack([torch.stack([h[i] @ c / (h[i].norm() * c.norm()) for c in classes]) for i in range(60)])
        found = kind(encoder).fit().predict(without_labels(data))
        torch.testing.assert_close(found.double(), slow, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="rounds"):
        TextPropagation(encoder, rounds=-1)


def test_correct_and_smooth_is_pygs():
    data = as_tag(planted(0, nodes=80))
    adj, rows = adjacency(data), torch.arange(0, 80, 7)
    soft = torch.rand(80, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)
    target = torch.nn.functional.one_hot(data.y[rows], 4).double()
    theirs = Reference(20, 0.8, 30, 0.6)
    edges = adj.edge_index
    expected = theirs.correct(soft, target, rows, edges)
    found = correct(adj, soft, target, rows, 0.8, 20)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(smooth(adj, found, target, rows, 0.6, 30), theirs.smooth(expected, target, rows, edges))


@pytest.mark.parametrize("shots", [2, 30], ids=["fewer labels than columns", "more labels than columns"])
def test_linear_gnns_are_least_squares(shots):
    data = as_tag(planted(0, nodes=200))
    split = few_shot(data.y, shots, 0)
    found = LinearGNNs(WordVectors()).fit(only_labels_of(data, split), split).predict(data)
    x = WordVectors().encode(data.text).double().numpy()
    a = np.zeros((200, 200))
    a[data.edge_index[1], data.edge_index[0]] = 1.0
    a /= np.maximum(a.sum(1, keepdims=True), 1.0)
    target = np.eye(4)[data.y[split.train]]
    rows = split.train.numpy()
    channels = (x, a @ x, a @ a @ x, x - a @ x, x - 2 * a @ x + a @ a @ x)
    slow = sum(c @ np.linalg.lstsq(c[rows], target, rcond=None)[0] for c in channels) / 5
    # The rule's probabilities are a softmax of its scores at temperature .1.
    slow = torch.from_numpy(slow).div(0.1).softmax(1)
    torch.testing.assert_close(found.double(), slow, atol=2e-3, rtol=0)


def test_relational_layer_is_pygs_rgcn():
    torch.manual_seed(0)
    nodes, relations = 30, 3
    edges = [torch.randint(nodes, (2, 40)).unique(dim=1) for _ in range(relations)]
    layer, theirs = RelationalLayer(8, 6, relations), RGCNConv(8, 6, relations)
    with torch.no_grad():
        theirs.weight.copy_(torch.stack([one.lin_l.weight.t() for one in layer.layers]))
        theirs.root.copy_(sum(one.lin_r.weight.t() for one in layer.layers))
        theirs.bias.copy_(sum(one.lin_l.bias for one in layer.layers))
    x = torch.randn(nodes, 8)
    kind = torch.cat([torch.full((e.size(1),), r) for r, e in enumerate(edges)])
    found = layer(x, tuple(Adjacency.from_edges(e, nodes) for e in edges))
    torch.testing.assert_close(found, theirs(x, torch.cat(edges, 1), kind), atol=1e-5, rtol=1e-4)


def test_prompts_against_a_slow_version():
    data = as_tag(planted(0, nodes=50))
    adj, centre = adjacency(data), torch.tensor([3, 17, 3, 40])
    found = prompts(egos(adj, centre, hops=1, at_most=50), torch.tensor([2, 0, 3]), 50, 4)
    neighbours = [set(data.edge_index[0, data.edge_index[1] == c].tolist()) | {c} for c in range(50)]
    expected = {name: [] for name in RELATIONS}
    for who, c in enumerate((3, 3, 40)):
        inside = neighbours[c]
        expected["edge"] += [
            (who, s, t) for s, t in data.edge_index.t().tolist() if s in inside and t in inside and s != t
        ]
        expected["node to prompt"].append((who, c, 50))
        expected["prompt to node"].append((who, 50, c))
        expected["prompt to class"] += [(who, 50, 51 + k) for k in range(4)]
        expected["class to prompt"] += [(who, 51 + k, 50) for k in range(4)]
    sizes = [len(neighbours[c]) for c in (3, 3, 40)]
    owner = torch.cat([torch.arange(3).repeat_interleave(torch.tensor(sizes)), torch.arange(3)])
    owner = torch.cat([owner, torch.arange(3).repeat_interleave(4)])
    for name, relation in zip(RELATIONS, found.relations, strict=True):
        edges = [(int(owner[s]), int(found.row[s]), int(found.row[t])) for s, t in relation.edge_index.t()]
        assert sorted(edges) == sorted(expected[name]), name
    assert found.row[found.answer].tolist() == [[51, 52, 53, 54]] * 3


def test_a_prompt_does_not_depend_on_its_batch():
    data = as_tag(planted(0, nodes=50))
    torch.manual_seed(0)
    network, vectors = OFANetwork(24, 16, 4, 0.0).eval(), torch.randn(55, 24)
    found = egos(adjacency(data), torch.arange(50), hops=2, at_most=12, generator=torch.Generator().manual_seed(0))
    together = network(vectors, prompts(found, torch.arange(50), 50, 4))
    alone = torch.cat([network(vectors, prompts(found, torch.tensor([i]), 50, 4)) for i in range(50)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_all_prompts_of_cora_in_time(data_root):
    import time

    import graphfm

    data = graphfm.load("tag/cora", root=data_root)
    adj, best = adjacency(data), float("inf")
    for _ in range(3):
        started = time.process_time()
        prompts(egos(adj, torch.arange(2708), hops=2, at_most=24), torch.arange(2708), 2708, 7)
        best = min(best, time.process_time() - started)
    assert best < 5


def test_frozen_zerog_on_the_target_is_the_formula():
    data = as_tag(planted(0, nodes=60))
    encoder = WordVectors()
    method = FrozenZeroG(encoder, steps=0, rounds=4).fit([as_tag(planted(1, nodes=60))])
    torch.manual_seed(1)
    torch.nn.init.normal_(method.map.up, std=0.3)
    a, b = method.map.down.double(), method.map.up.double()
    x = encoder.encode([*data.text, describe(data)]).double()
    classes = encoder.encode(class_texts(data)).double()
    standard = lambda z: (z - z.mean(0)) / z.std(0, correction=0)  # noqa: E731
    big = torch.eye(61, dtype=torch.float64)
    big[data.edge_index[0], data.edge_index[1]] = 1.0
    big[60] = big[:, 60] = 1.0
    scale = big.sum(1).rsqrt()
    h = torch.linalg.matrix_power(scale[:, None] * big * scale, 4) @ standard(x + x @ a @ b)
    e = standard(classes + classes @ a @ b)
    slow = torch.nn.functional.normalize(h[:60], dim=1) @ torch.nn.functional.normalize(e, dim=1).t()
    found = method.predict(without_labels(data))
    torch.testing.assert_close(found.double(), slow, atol=1e-4, rtol=1e-3)


def test_zerog_starts_as_propagation_and_learns_from_sources_alone():
    x = torch.randn(5, 8)
    assert torch.equal(LowRank(8, 4)(x), x)
    constant = standardised(torch.ones(4, 3))
    assert torch.equal(constant, torch.zeros(4, 3))
    adj = with_hub(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 0, 1]), 2)
    assert sorted(map(tuple, adj.edge_index.t().tolist())) == [
        (0, 1), (0, 3), (1, 0), (1, 3), (2, 4), (3, 0), (3, 1), (4, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["FrozenZeroG", "OFAZeroShot"])
def test_learning_methods_refuse_what_cannot_work(name):
    from graphfm.graphllm import TfidfEncoder
    from graphfm.graphllm.catalogue import find_method

    with pytest.raises(ValueError, match="sources is empty"):
        find_method(name)(WordVectors()).fit([])
    with pytest.raises(ValueError, match="cannot compare"):
        find_method(name)(TfidfEncoder()).fit([as_tag(planted(0, nodes=40))])


def test_the_state_that_is_kept_is_the_best_on_validation_nodes():
    """A weight that walks away from the answer: the first state is the best, and the test part says nothing."""
    module = torch.nn.Linear(1, 2, bias=False)
    torch.nn.init.constant_(module.weight, 0.0)
    x, y = torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([0, 1, 0])
    seen = []

    def logits():
        if not module.training:
            seen.append(module.weight.detach().clone())
        return module(x)

    split = Split(torch.tensor([0]), torch.tensor([1]), torch.tensor([2]))
    train_nodes(module, logits, y, split, module.parameters(), lr=0.1, weight_decay=0.0, epochs=5)
    assert len(seen) == 5
    torch.testing.assert_close(module.weight, seen[0])  # validation wants class 1, training pulls to 0
    empty = Split(torch.tensor([0]), torch.tensor([], dtype=torch.long), torch.tensor([2]))
    train_nodes(module, lambda: module(x), y, empty, module.parameters(), lr=0.1, weight_decay=0.0, epochs=5)
    assert float(module.weight[0] - module.weight[1]) > float(seen[0][0] - seen[0][1])


def test_the_ladder_is_the_formula():
    torch.manual_seed(0)
    data = as_tag(planted(0, nodes=30))
    ladder, states = Ladder(6, 5, 2, 3, 0.0).double(), torch.randn(30, 2, 6, dtype=torch.float64)
    torch.nn.init.normal_(ladder.alpha, std=0.1)
    a = torch.zeros(30, 30, dtype=torch.float64)
    a[data.edge_index[1], data.edge_index[0]] = 1.0
    mean, z = a / a.sum(1, keepdim=True).clamp(min=1), torch.zeros(30, 5, dtype=torch.float64)
    for rung in range(2):
        share = 1 / (1 + torch.exp(-ladder.alpha[0] / 0.1)) if rung else 1.0
        first, norm, _, second = ladder.project[rung]
        wide = states[:, rung] @ first.weight.t() + first.bias
        wide = (wide - wide.mean(1, keepdim=True)) / (wide.var(1, correction=0, keepdim=True) + norm.eps).sqrt()
        mixed = share * (torch.relu(wide * norm.weight + norm.bias) @ second.weight.t() + second.bias) + (1 - share) * z
        sage = ladder.layers[rung]
        z = torch.relu(mean @ mixed @ sage.lin_l.weight.t() + sage.lin_l.bias + mixed @ sage.lin_r.weight.t())
    around = mean @ z
    slow = torch.cat([z, around], 1) @ ladder.answer.weight.t() + ladder.answer.bias
    torch.testing.assert_close(ladder(states, adjacency(data)), slow)


def test_a_node_of_no_words_is_answered_from_its_neighbours_or_not_at_all():
    data = planted(0, nodes=12)
    data.text = ["", *data.text[1:11], " "]
    data.edge_index = torch.tensor([[0, 1], [1, 0]])
    alone, spread_out = (
        kind(WordVectors()).fit().predict(without_labels(data)) for kind in (TextCosine, TextPropagation)
    )
    assert alone.isnan().all(1).nonzero().flatten().tolist() == [0, 11]
    assert spread_out.isnan().all(1).nonzero().flatten().tolist() == [11]
    assert answer_scores(alone, data.y)["unknown_rate"] == pytest.approx(2 / 12)
