"""Each prompt against its formula, taken the slow way in float64, node by node and edge by edge."""

import itertools
import math

import pytest
import torch
import torch_geometric.nn as pyg
from torch.nn import functional as F
from torch_geometric.data import Data

from graphfm import backbones, prompts
from graphfm.nn import Adjacency
from graphfm.prompts.all_in_one import joined
from graphfm.prompts.gppt import TokenHead, k_means
from graphfm.prompts.label_mapping import LabelMapping, matched
from graphfm.prompts.similarity import SimilarityHead
from tests.contracts import HARD, as_dense, dense_gcn, dense_loops, dense_mean, hard
from tests.prompts.test_prompts_contract import F_IN, HIDDEN, graph, network


def sigmoid(value):
    return 1 / (1 + math.exp(-float(value)))


def dressed(case, seed=0):
    """The case's network, a graph, and the graph as the prompt shows it to the backbone."""
    found = network(case)
    x, edge_index = graph(seed)
    adj = Adjacency.from_edges(edge_index, len(x))
    return found.prompt, x, adj, found.prompt.graph(Data(x=x, adj=adj, batch=None))


def test_gpf():
    prompt, x, _, seen = dressed("GPF")
    for i, row in enumerate(x):
        torch.testing.assert_close(seen.x[i], torch.stack([a + b for a, b in zip(row, prompt.p, strict=True)]))


def test_gpf_plus():
    prompt, x, _, seen = dressed("GPFPlus")
    for i, row in enumerate(x):
        score = [math.exp(float((a @ row).detach())) for a in prompt.a]
        wanted = row + sum(s / sum(score) * p for s, p in zip(score, prompt.p, strict=True))
        torch.testing.assert_close(seen.x[i], wanted)


def test_gpf_of_several_vectors_is_gpf_plus():
    made = []
    for kind in (prompts.GPF, prompts.GPFPlus):
        torch.manual_seed(0)
        made.append(kind(k=3).bind(6, 4))
    assert made[0].state_dict().keys() == {"p", "a"}
    assert all(torch.equal(v, made[1].state_dict()[k]) for k, v in made[0].state_dict().items())
    assert prompts.GPFPlus(k=1).bind(6, 4).state_dict().keys() == {"p"}  # a scorer of one would not be learned


def supt_scores(prompt, x, adj):
    total = sum(prompt.p)
    rows = [sum(a * (x[j] + total) for j, a in enumerate(line)) for line in dense_gcn(len(x), adj.edge_index)]
    return torch.stack([torch.stack([w @ row + b for w, b in zip(prompt.weight, prompt.bias)]) for row in rows])  # noqa: B905


def test_supt_soft():
    prompt, x, adj, seen = dressed("SUPT")
    share = torch.softmax(supt_scores(prompt, x, adj), 1)
    for i, row in enumerate(x):
        torch.testing.assert_close(seen.x[i], row + sum(s * p for s, p in zip(share[i], prompt.p, strict=True)))


def test_supt_hard_picks_within_each_graph():
    prompt, x, adj, _ = dressed("SUPT hard")
    batch = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 2])
    seen = prompt.graph(Data(x=x, adj=adj, batch=batch))
    score = supt_scores(prompt, x, adj)
    picked = torch.zeros_like(score, dtype=torch.bool)
    for one in range(3):
        rows = torch.nonzero(batch == one).flatten().tolist()
        for j in range(score.size(1)):
            best = sorted(rows, key=lambda i, j=j: -float(score[i, j].detach()))[: math.ceil(prompt.ratio * len(rows))]
            picked[best, j] = True
    for i, row in enumerate(x):
        mine = torch.nonzero(picked[i]).flatten().tolist()
        wanted = row + sum((torch.tanh(score[i, j]) * prompt.p[j] for j in mine), torch.zeros(F_IN)) / (1 + len(mine))
        torch.testing.assert_close(seen.x[i], wanted)


def test_supt_penalty():
    prompt = prompts.SUPT(k=3, orthogonal=2.0).bind(F_IN, HIDDEN)
    with torch.no_grad():
        prompt.p.normal_()
    gap = [[float(a @ b) - (i == j) for j, b in enumerate(prompt.p)] for i, a in enumerate(prompt.p)]
    assert float(prompt.penalty()) == pytest.approx(2 * math.sqrt(sum(g * g for row in gap for g in row)), rel=1e-5)
    assert float(prompts.GPF().penalty()) == 0


MATRICES = {
    "GCN": lambda nodes, edges: dense_gcn(nodes, edges),
    "GIN": lambda nodes, edges: dense_loops(nodes, edges) - torch.eye(nodes),
    "GraphSAGE": dense_mean,
}


def edge_vector(prompt, layer, x_j, x_i):
    """What an edge's message is given."""
    if isinstance(prompt, prompts.EdgePrompt):
        return prompt.p[layer]
    score = prompt.source[layer] @ x_j + prompt.target[layer] @ x_i + prompt.bias[layer]
    return torch.softmax(F.leaky_relu(score), 0) @ prompt.p[layer]


def slow_aggregate(prompt, layer, h, matrix):
    """``sum_j a_ij (h_j + e_ij)`` one pair at a time."""
    rows = []
    for i, line in enumerate(matrix):
        row = torch.zeros_like(h[0])
        for j, a in enumerate(line):
            if a != 0:
                row = row + a * (h[j] + edge_vector(prompt, layer, h[j], h[i]))
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("case", ["EdgePrompt", "EdgePromptPlus"])
def test_edge_prompts_in_gcn(case):
    found = network(case)
    x, edge_index = graph()
    matrix = dense_gcn(len(x), edge_index)
    first, second = found.backbone.convs
    h = (slow_aggregate(found.prompt, 0, x, matrix) @ first.lin.weight.t() + first.bias).relu()
    wanted = slow_aggregate(found.prompt, 1, h, matrix) @ second.lin.weight.t() + second.bias
    torch.testing.assert_close(found(x, edge_index), wanted)


@pytest.mark.parametrize("case", ["EdgePrompt", "EdgePromptPlus"])
def test_edge_prompts_in_sage_and_gin(case):
    x, edge_index = graph()
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    sage = network(case, lambda: backbones.GraphSAGE(F_IN, HIDDEN, 1))
    layer, mean = sage.backbone.convs[0], dense_mean(len(x), edge_index)
    wanted = layer.lin_l(slow_aggregate(sage.prompt, 0, x, mean)) + layer.lin_r(x)
    torch.testing.assert_close(sage(x, edge_index), wanted)
    gin = network(case, lambda: backbones.GIN(F_IN, HIDDEN, 1))
    plain = dense_loops(len(x), edge_index) - torch.eye(len(x))
    wanted = gin.backbone.convs[0].nn(x + slow_aggregate(gin.prompt, 0, x, plain))
    torch.testing.assert_close(gin(x, edge_index), wanted)


@pytest.mark.parametrize("case", ["EdgePrompt", "EdgePromptPlus"])
def test_edge_prompts_in_attention(case):
    found = network(case, lambda: backbones.GAT(F_IN, HIDDEN, 1, heads=2))
    x, edge_index = graph()
    conv = found.backbone.convs[0]
    h = (x @ conv.lin.weight.t()).view(len(x), 2, HIDDEN)
    wide = h.flatten(1)
    present = dense_loops(len(x), edge_index)
    rows = []
    for i in range(len(x)):
        heads = []
        for k in range(2):
            near = [j for j in range(len(x)) if present[i, j] != 0]
            score = torch.stack([h[j, k] @ conv.att_src[0, k] + h[i, k] @ conv.att_dst[0, k] for j in near])
            share = torch.softmax(F.leaky_relu(score, 0.2), 0)
            vectors = [(wide[j] + edge_vector(found.prompt, 0, wide[j], wide[i])).view(2, -1)[k] for j in near]
            heads.append(sum(s * v for s, v in zip(share, vectors, strict=True)))
        rows.append(sum(heads) / 2 + conv.bias)
    torch.testing.assert_close(found(x, edge_index), torch.stack(rows))


@pytest.mark.parametrize(
    "backbone", ["GCN", "GAT", "GATv2", "GIN", "GraphSAGE", "FAGCN", "SGC", "GPRGNN", "BWGNN", "GPS"]
)
@pytest.mark.parametrize("case", ["EdgePrompt", "EdgePromptPlus"])
def test_products_agree_with_messages_laid_out(case, backbone, monkeypatch):
    found = network(case, lambda: getattr(backbones, backbone)(F_IN, HIDDEN))
    x, edge_index = graph()
    fast = found(x, edge_index)
    monkeypatch.setattr(type(found.prompt), "arriving", prompts.Prompt.arriving)
    torch.testing.assert_close(found(x, edge_index), fast)


@pytest.mark.parametrize("case", ["EdgePrompt", "EdgePromptPlus"])
@pytest.mark.parametrize(("ours", "theirs"), [("GIN", pyg.GIN), ("GraphSAGE", pyg.GraphSAGE)])
def test_hooks_on_pyg_agree_with_our_products(case, ours, theirs):
    found = network(case, lambda: getattr(backbones, ours)(F_IN, HIDDEN, 2))
    other = theirs(F_IN, HIDDEN, 2).double().eval()
    if ours == "GIN":
        other.convs = torch.nn.ModuleList(pyg.GINConv(conv.nn) for conv in found.backbone.convs)
        other.double().eval()
    else:
        other.load_state_dict(found.backbone.state_dict())
    x, edge_index = graph()
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    moved = prompts.prompted(other, found.prompt)
    torch.testing.assert_close(moved(x, edge_index), found(x, edge_index))
    found.prompt.p[0].data.add_(1.0)
    assert not torch.allclose(moved(x, edge_index), other(x, edge_index))
    plain = other(x, edge_index)
    torch.testing.assert_close(other(x, edge_index), plain)  # the hooks are gone


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("case", ["EdgePrompt", "EdgePromptPlus"])
def test_hooks_on_pyg_gcn(case, width):
    """There the message is the image of the layer's input."""
    torch.manual_seed(0)
    found = network(case, lambda: pyg.GCN(F_IN, width, 1))
    x, edge_index = graph()
    conv, matrix = found.backbone.convs[0], dense_gcn(len(x), edge_index)
    wanted = slow_aggregate(found.prompt, 0, x @ conv.lin.weight.t(), matrix) + conv.bias
    torch.testing.assert_close(found(x, edge_index), wanted)


@pytest.mark.parametrize("case", ["EdgePrompt", "EdgePromptPlus"])
@pytest.mark.parametrize("backbone", ["GCN", "GraphSAGE", "SGC"])
@pytest.mark.parametrize("width", [3, 8])
def test_messages_do_not_depend_on_what_is_differentiated(case, backbone, width):
    """These layers choose the side of the product by what it costs; a prompt must not be moved by that."""
    found = network(case, lambda: getattr(backbones, backbone)(F_IN, width, 2))
    x, edge_index = graph()
    with torch.no_grad():
        quiet = found(x, edge_index)
    torch.testing.assert_close(found(x, edge_index), quiet)
    torch.testing.assert_close(found(x.requires_grad_(), edge_index), quiet)


@pytest.mark.parametrize("name", list(HARD))
def test_joined_agrees_with_a_dense_matrix(name):
    nodes, edge_index = hard(name)
    adj = Adjacency.from_edges(edge_index, nodes, torch.rand(edge_index.size(1), dtype=torch.float64) + 0.5)
    cross = torch.rand(nodes, 3, generator=torch.Generator().manual_seed(1)) < 0.6
    inner = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]]).bool()
    both = joined(adj, cross, inner)
    wanted = torch.zeros(nodes + 3, nodes + 3, dtype=torch.float64)
    wanted[:nodes, :nodes] = as_dense(adj)
    wanted[:nodes, nodes:], wanted[nodes:, nodes:] = cross.double(), inner.double()
    assert torch.equal(as_dense(both), wanted)
    assert bool((both.row * both.num_nodes + both.col).diff().ge(0).all())


def one_by_one(found, x, edge_index):
    """A copy of the token graph beside one graph, link by link, as the authors' code has it."""
    prompt, nodes, tokens = found.prompt, len(x), found.prompt.tokens
    links = [(int(j), int(i)) for j, i in edge_index.t()]
    for k in range(tokens):
        links += [(nodes + k, i) for i in range(nodes) if sigmoid(prompt.p[k] @ x[i]) >= prompt.cross]
        links += [(nodes + k, nodes + t) for t in range(tokens) if sigmoid(prompt.p[k] @ prompt.p[t]) >= prompt.inner]
    edges = torch.tensor(links).reshape(-1, 2).t()
    return found.backbone(torch.cat([x, prompt.p]), edges)[:nodes]


@pytest.mark.parametrize("backbone", ["GCN", "GIN", "GAT"])
def test_all_in_one_shares_its_tokens_among_graphs(backbone):
    found = network("AllInOne", lambda: getattr(backbones, backbone)(F_IN, HIDDEN))
    parts = [graph(seed, nodes, edges) for seed, nodes, edges in ((1, 5, 7), (2, 1, 0), (3, 8, 12))]
    first = torch.tensor([0, 5, 6])
    edges = torch.cat([e + f for (_, e), f in zip(parts, first, strict=True)], 1)
    whole = found(torch.cat([x for x, _ in parts]), edges, batch=torch.tensor([0] * 5 + [1] + [2] * 8))
    torch.testing.assert_close(whole, torch.cat([one_by_one(found, x, e) for x, e in parts]))


def test_all_in_one_light():
    prompt, x, _, seen = dressed("AllInOne light")
    for i, row in enumerate(x):
        wanted = row
        for p in prompt.p:
            w = sigmoid(p @ row)
            wanted = wanted + w * p if w >= prompt.cross else wanted
        torch.testing.assert_close(seen.x[i], wanted)


def test_all_in_one_trains_in_turns():
    found = network("AllInOne", moved=False)
    torch.manual_seed(0)
    head = torch.nn.Linear(HIDDEN, 3).double()
    x, edge_index = graph()
    y = torch.arange(len(x)) % 3
    seen, states = [], []

    def loss():
        states.append((head.weight.detach().clone(), found.prompt.p.detach().clone()))
        value = F.cross_entropy(head(found(x, edge_index)), y)
        seen.append(float(value.detach()))
        return value

    found.prompt.fit(head, loss, epochs=30, lr=0.02, head_steps=2)
    moved = [[not torch.equal(a, b) for a, b in zip(s, t, strict=True)] for s, t in itertools.pairwise(states)]
    assert moved[:5] == [[True, False], [True, False], [False, True], [True, False], [True, False]]
    assert seen[-1] < 0.8 * seen[0]
    with pytest.raises(ValueError, match="the loss is nan"):
        found.prompt.fit(head, lambda: loss() * torch.nan, epochs=1)
    with pytest.raises(ValueError, match="bind the prompt first"):
        prompts.AllInOne().fit(head, loss, epochs=1)


def test_graphprompt():
    found = network("GraphPrompt")
    x, edge_index = graph()
    h = found.backbone(x, edge_index)
    edge_index = torch.cat([edge_index, torch.arange(len(x)).expand(2, -1)], 1).unique(dim=1)
    for i, row in enumerate(found(x, edge_index)):
        near = [int(j) for j, t in edge_index.t() if int(t) == i]
        torch.testing.assert_close(row, sum(found.prompt.p * h[j] for j in near) / len(near))


def test_graphprompt_plus():
    found = network("GraphPromptPlus alone", lambda: backbones.GCN(F_IN, HIDDEN, 3))
    x, edge_index = graph()
    matrix, levels = dense_gcn(len(x), edge_index), []
    h = x
    for i, conv in enumerate(found.backbone.convs):
        h = matrix @ h @ conv.lin.weight.t() + conv.bias
        h = h.relu() if i < 2 else h
        levels.append(h)
    wanted = sum(w * p * h for w, p, h in zip(found.prompt.w, found.prompt.p, levels, strict=True))
    torch.testing.assert_close(found(x, edge_index), wanted)


def test_multigprompt():
    found = network("MultiGPrompt", lambda: backbones.GCN(F_IN, HIDDEN, 3))
    x, edge_index = graph()
    matrix, prompt = dense_gcn(len(x), edge_index), found.prompt

    def at(place, factor):
        h = x
        for i, conv in enumerate(found.backbone.convs):
            h = matrix @ (h * factor if i == place else h) @ conv.lin.weight.t() + conv.bias
            h = h.relu() if i < 2 else h
        return h

    composed = sum(at(i, sum(g * t for g, t in zip(prompt.mix[i], prompt._tokens(i), strict=True))) for i in range(3))
    free = sum(at(i, prompt.open[i]) for i in range(3))
    wanted = (prompt.balance[0] * composed + prompt.balance[1] * free) / 3
    torch.testing.assert_close(found(x, edge_index), wanted)


def test_multigprompt_takes_tokens():
    prompt = network("MultiGPrompt").prompt
    tokens = [torch.rand(3, F_IN), torch.rand(3, HIDDEN)]
    prompt.take(tokens)
    torch.testing.assert_close(prompt._tokens(1), tokens[1].double())
    with pytest.raises(ValueError, match=r"tokens must have the shapes \[\[3, 6\], \[3, 8\]\]"):
        prompt.take(tokens[:1])
    with pytest.raises(ValueError, match="bind the prompt first"):
        prompts.MultiGPrompt().take(tokens)


def labelled(seed=0, rows=12, classes=3):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % classes
    return torch.randn(rows, HIDDEN, generator=g, dtype=torch.float64) + 2 * F.one_hot(y, HIDDEN), y


def test_similarity_head():
    z, y = labelled()
    head = SimilarityHead(HIDDEN, 4, temperature=0.5).double()
    means = [z[y == c].mean(0) for c in range(3)]
    scores = torch.tensor([[float(F.cosine_similarity(row, m, dim=0)) / 0.5 for m in means] for row in z])
    assert float(head.loss(z, y)) == pytest.approx(float(F.cross_entropy(scores, y)), rel=1e-6)
    out = head.fit(z, y)(z)
    torch.testing.assert_close(out[:, :3].float(), scores.float())
    assert bool((out[:, 3] == -torch.inf).all())
    z.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: head.loss(z, y), (z,))


def test_token_head():
    z, y = labelled()
    torch.manual_seed(0)
    head = TokenHead(HIDDEN, 3, clusters=2, orthogonal=0.3).double().fit(z, y)
    for c in range(3):
        torch.testing.assert_close(head.tokens[:, c], z[y == c].mean(0).expand(2, -1))
    with torch.no_grad():
        head.tokens.normal_()
    scores = []
    for row in z:
        nearest = min(range(2), key=lambda k: float((row - head.centres[k]).norm()))
        scores.append([float(head.tokens[nearest, c] @ row) for c in range(3)])
    torch.testing.assert_close(head(z), torch.tensor(scores, dtype=torch.float64))
    apart = sum(float((e @ e.t() - torch.eye(3)).square().sum()) for e in head.tokens)
    wanted = float(F.cross_entropy(head(z), y)) + 0.3 * apart
    assert float(head.loss(z, y)) == pytest.approx(wanted, rel=1e-9)
    head.fit(z, y)
    assert not torch.allclose(head.tokens[0, 0], z[y == 0].mean(0))  # begun once


def test_the_nearest_cluster_is_found_far_from_the_origin():
    """Sums over large graphs are long; distances by a product of matrices lose what tells them apart."""
    g = torch.Generator().manual_seed(0)
    z = 1000 + 0.1 * torch.randn(40, 33, generator=g)
    head = TokenHead(33, 2, 4, 0.0).fit(z[:8], torch.arange(8) % 2)
    nearest = (z.double().unsqueeze(1) - head.centres.double()).norm(dim=2).argmin(1)
    expected = torch.stack([head.tokens[k] @ row for k, row in zip(nearest, z, strict=True)])
    torch.testing.assert_close(head(z), expected, rtol=1e-5, atol=0.0)


def test_k_means_of_few_rows():
    z = torch.tensor([[0.0, 1.0], [0.0, 1.0], [2.0, 0.0]])
    assert k_means(z, 4).unique(dim=0).tolist() == [[0.0, 1.0], [2.0, 0.0]]
    assert sorted(k_means(torch.cat([z, z + 100]), 2)[:, 0].tolist()) == pytest.approx([2 / 3, 100 + 2 / 3], rel=1e-5)


def test_label_mapping_takes_the_most_frequent_pairs_first():
    # Source class 1 is hit by both targets, more often by target 1; so target 0 gets its second choice.
    scores = F.one_hot(torch.tensor([1, 1, 3, 1, 1, 1]), 4).double() * 5
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    assert matched(scores, y, 2).tolist() == [3, 1]
    with pytest.raises(ValueError, match="5 target classes cannot be mapped one to one to 4"):
        matched(scores, y, 5)
    with pytest.raises(ValueError, match="4 target classes cannot be mapped one to one to 3"):
        LabelMapping(torch.nn.Linear(2, 3), 4)


def test_label_mapping_puts_a_frozen_classifier_to_use():
    """The source knows the classes by other numbers; only the map has to be found."""
    z, y = labelled(rows=30)
    source = torch.nn.Linear(HIDDEN, 6).double()
    order = torch.tensor([4, 0, 5])
    with torch.no_grad():
        source.bias.zero_()
        source.weight.zero_()
        for c in range(3):
            source.weight[order[c]] = z[y == c].mean(0)
    head = LabelMapping(source, 3).fit(z, y)
    assert head.mapping.tolist() == order.tolist()
    torch.testing.assert_close(head(z), source(z)[:, order])
    assert float((head(z).argmax(1) == y).double().mean()) > 0.8
    assert [p for p in head.parameters() if p.requires_grad] == []
    assert float(head.loss(z, y)) == pytest.approx(float(F.cross_entropy(source(z)[:, order], y)))


def test_label_mapping_learns_among_the_classes_that_were_labelled():
    """A class without a labelled row gets no probability, so no share of the loss either."""
    z, y = labelled(rows=12)
    source = torch.nn.Linear(HIDDEN, 6).double()
    head = LabelMapping(source, 4).fit(z, y)
    expected = F.cross_entropy(head(z), y)
    torch.testing.assert_close(head.loss(z, y), expected)
    torch.testing.assert_close(expected, F.cross_entropy(source(z)[:, head.mapping[:3]], y))
