"""Layers against PyG's on the same weights, the state dict loaded both ways."""

import pytest
import torch
from contracts import HARD, adjacency, hard, weights
from torch.nn import functional as F
from torch.testing import assert_close
from torch_geometric.nn import FAConv, GATConv, GCNConv

from graphfm.backbones import FAGCN, GAT, GCN
from graphfm.backbones.fagcn import FALayer
from graphfm.backbones.gat import GATLayer
from graphfm.backbones.gcn import GCNLayer

# Several loops on one node are left out: PyG takes one of them without saying which.
each_graph = pytest.mark.parametrize("graph", [g for g in HARD if g != "several loops on a node"])


def same_state(ours, theirs):
    """Load PyG's weights into our layer and ours back, strictly."""
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    return ours.double().eval(), theirs.double().eval()


def compare(ours, theirs, x, layers):
    """Values, and gradients of features and weights."""
    results = []
    for function, layer in zip((ours, theirs), layers, strict=True):
        leaf = x.clone().requires_grad_()
        out = function(layer, leaf)
        names, parameters = zip(*layer.named_parameters(), strict=True)
        probe = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view_as(out)
        grads = torch.autograd.grad((out * probe).sum(), [leaf, *parameters])
        results.append((out, grads[0], dict(zip(names, grads[1:], strict=True))))
    assert_close(results[0], results[1])


def features(nodes, width=5):
    return torch.randn(nodes, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@each_graph
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("width", [3, 9], ids=["narrowing", "widening"])
def test_gcn_layer(graph, weighted, width):
    nodes, edges = hard(graph)
    weight = weights(edges) if weighted else None
    layers = same_state(GCNLayer(5, width), GCNConv(5, width))
    adj = adjacency(nodes, edges, weight)
    compare(lambda m, x: m(x, adj), lambda m, x: m(x, edges, weight), features(nodes), layers)


@each_graph
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_fa_layer(graph, weighted):
    nodes, edges = hard(graph)
    layers = same_state(FALayer(5, eps=0.3), FAConv(5, eps=0.3))
    weight = weights(edges) if weighted else None
    adj = adjacency(nodes, edges, weight)
    x_0 = features(nodes).flip(1)

    def theirs(layer, x):
        layer.normalize = weight is None
        if weight is None:
            return layer(x, x_0, edges)
        gcn = adj.gcn()  # FAConv takes weights as they are; the normalised ones are tested against PyG elsewhere
        return layer(x, x_0, gcn.edge_index, gcn.weight)

    compare(lambda m, x: m(x, x_0, adj), theirs, features(nodes), layers)


@each_graph
@pytest.mark.parametrize("concat", [True, False], ids=["concat", "mean"])
@pytest.mark.parametrize("heads", [1, 3])
def test_gat_layer(graph, concat, heads):
    nodes, edges = hard(graph)
    plain = edges[:, edges[0] != edges[1]]  # GATConv replaces loops, so ours must be given none of its own
    layers = same_state(GATLayer(5, 4, heads, concat=concat), GATConv(5, 4, heads, concat=concat))
    adj = adjacency(nodes, plain)
    compare(lambda m, x: m(x, adj), lambda m, x: m(x, plain), features(nodes), layers)


def test_a_loop_that_is_there_is_not_added_again():
    nodes, edges = hard("self-loops")
    layer, theirs = same_state(GATLayer(5, 4), GATConv(5, 4))
    assert_close(layer(features(nodes), adjacency(nodes, edges)), theirs(features(nodes), edges))


def test_gat_counts_an_edge_of_weight_two_twice():
    nodes, edges = hard("directed")
    torch.manual_seed(0)
    layer, x = GATLayer(5, 4, 2).double(), features(nodes)
    doubled = torch.cat([edges, edges[:, [1]]], 1)
    weight = torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    assert_close(layer(x, adjacency(nodes, edges, weight)), layer(x, adjacency(nodes, doubled)))


def test_gat_of_a_loop_of_weight_zero_is_finite():
    torch.manual_seed(0)
    layer, x = GATLayer(5, 4).double(), features(2)
    weight = torch.zeros(1, dtype=torch.float64)
    out = layer(x, adjacency(2, torch.tensor([[0], [0]]), weight))
    assert_close(out[0], layer.bias)  # it has no edge at all, and takes up nothing
    assert_close(out[1], layer.lin(x)[1] + layer.bias)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_gcn_is_its_formula(layers):
    nodes, edges = hard("directed")
    torch.manual_seed(0)
    model, x = GCN(5, 7, layers, 3).double(), features(nodes)
    norm = adjacency(nodes, edges).gcn(torch.float64)
    matrix = torch.zeros(nodes, nodes, dtype=torch.float64)
    matrix[norm.row, norm.col] = norm.weight
    h = x
    for i, conv in enumerate(model.convs):
        h = matrix @ h @ conv.lin.weight.t() + conv.bias
        h = h.relu() if i < layers - 1 else h
    assert_close(model(x, edges), h)


def test_fagcn_is_its_formula():
    nodes, edges = hard("directed")
    torch.manual_seed(0)
    model, x = FAGCN(5, 6, 2, 3, eps=0.2).double().eval(), features(nodes)
    norm = adjacency(nodes, edges).gcn(torch.float64)
    first = h = F.linear(x, model.lin_in.weight, model.lin_in.bias).relu()
    for conv in model.convs:
        new = 0.2 * first
        for source, target, w in zip(norm.col.tolist(), norm.row.tolist(), norm.weight, strict=True):
            score = (h[source] @ conv.att_l.weight[0] + h[target] @ conv.att_r.weight[0]).tanh()
            row = torch.zeros(nodes, 1, dtype=torch.float64)
            row[target] = 1.0
            new = new + row * score * w * h[source]
        h = new
    assert_close(model(x, edges), F.linear(h, model.lin_out.weight, model.lin_out.bias))


def test_fagcn_drops_attention_at_its_rate():
    edges = torch.stack([torch.arange(1, 4001), torch.zeros(4000, dtype=torch.long)])
    torch.manual_seed(0)
    layer = FALayer(1, eps=0.0, dropout=0.3).double().train()
    x = torch.ones(4001, 1, dtype=torch.float64)
    adj = adjacency(4001, edges)
    exact = layer.eval()(x, x, adj)[0]
    drawn = torch.stack([layer.train()(x, x, adj)[0] for _ in range(30)])
    spread = abs(float(exact)) * (0.3 / 0.7 / 4000) ** 0.5
    assert abs(float(drawn.mean() - exact)) < 4 * spread / 30**0.5
    assert 0.5 * spread < float(drawn.std()) < 1.6 * spread


def test_gat_refuses_heads_that_do_not_fit():
    with pytest.raises(ValueError, match=r"heads must divide hidden_channels \(8\), got 3"):
        GAT(5, 8, heads=3)
