"""Tokens against their formulas written out, and all the way from pretraining to a target."""

import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch_geometric.data import Data
from torch_geometric.nn import GCN as PyGGCN
from torch_geometric.utils import to_undirected

import graphfm
from graphfm.backbones import FAGCN, GAT, GCN
from graphfm.checkpoint import CheckpointError
from graphfm.data.features import Unifier
from graphfm.joined import join
from graphfm.nn import Adjacency
from graphfm.objectives import BGRL, DGI, GraphCL, GraphMAE
from graphfm.samplers import Neighbours, RandomWalks, WholeGraph
from graphfm.tokens import DomainTokens, StructureTokens, TokenPrompts, layers_of

WIDTH = 6
KINDS = [DomainTokens, StructureTokens]
SAMPLERS = [RandomWalks(0.5, 8), WholeGraph(), Neighbours((4, 2), 32)]
both = pytest.mark.parametrize("kind", KINDS)


def graph(nodes, seed, features=9):
    g = torch.Generator().manual_seed(seed)
    edges = to_undirected(torch.randint(nodes, (2, 2 * nodes), generator=g), num_nodes=nodes)
    return Data(
        x=torch.randn(nodes, features, generator=g), edge_index=edges, y=torch.arange(nodes) % 3, name=f"g{seed}"
    )


@pytest.fixture(scope="module")
def sources():
    return [graph(60, 0), graph(40, 1), graph(30, 2, 4)]


@pytest.fixture(scope="module")
def structured(sources):
    return train(sources, coordinators=StructureTokens())


@pytest.mark.parametrize("method", ["prompt:GPF", "prompt:AllInOne(2)+adapter:LoRA(2)", "prompt:MultiGPrompt"])
def test_structure_tokens_are_carried_under_a_prompt(structured, method, tmp_path):
    target = graph(50, 7)
    split = graphfm.few_shot(target.y, shots=2, seed=0)
    options = {"method": method, "seed": 0, "epochs": 2, "lr": 0.05}
    carried, left = (graphfm.adapt(structured, target, split, carry=c, **options) for c in (True, False))
    found = carried.predict(target)
    assert not torch.allclose(found, left.predict(target))
    assert torch.equal(graphfm.Fitted.load(carried.save(tmp_path)).predict(target), found)


def train(graphs, **options):
    given = {"backbone": GCN(WIDTH, 8), "objective": DGI(), "epochs": 3, "seed": 1, "lr": 1e-2}
    return graphfm.pretrain(graphs, **(given | {"sampler": RandomWalks(0.5, 8)} | options))


def same(a, b):
    first, second = a.backbone.state_dict(), b.backbone.state_dict()
    mine, other = a.coordinators.state_dict(), b.coordinators.state_dict()
    equal = all(torch.equal(first[k], second[k]) for k in first) and all(torch.equal(mine[k], other[k]) for k in mine)
    return equal and mine.keys() == other.keys() and a.card["history"] == b.card["history"]


def drawn(tokens):
    for i, place in enumerate(tokens.places):
        place.data = torch.randn(place.shape, generator=torch.Generator().manual_seed(i))
    return tokens


# Formulas


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_domain_tokens_multiply_features_row_by_row(sources, sampler):
    tokens = drawn(DomainTokens().bind(3, GCN(WIDTH, 8)))
    unifier = Unifier(WIDTH).fit(sources)
    plain, whole = join(sources, unifier, None), join(sources, unifier, tokens)
    assert whole.coordinators is None
    assert torch.equal(whole.adj.edge_index, plain.adj.edge_index)
    samples = sampler.draw(whole, 0, 1)
    batch = samples.batch(samples.batches(0)[0], whole.x, 5)
    for row, node in enumerate(batch.node.tolist()):
        expected = plain.x[node] * tokens.places[0][int(plain.domain[node])]
        assert_close(batch.x[row], expected, rtol=0, atol=0)
    assert not batch.is_coordinator.any()


def slow_gcn(network, x, edges, domain, tokens):
    """Two GCN layers on dense matrices, each node's output times its domain's token, node by node."""
    nodes = x.size(0)
    matrix = torch.eye(nodes, dtype=x.dtype)
    for source, target in edges.t().tolist():
        if source != target:
            matrix[target, source] += 1
    scale = matrix.sum(1).rsqrt()
    matrix = scale[:, None] * matrix * scale[None, :]
    for layer, conv in enumerate(network.convs):
        x = matrix @ (x @ conv.lin.weight.t()) + conv.bias
        x = torch.stack([x[i] * tokens.places[layer][int(domain[i])] for i in range(nodes)])
        x = x.relu() if layer + 1 < len(network.convs) else x
    return x


@pytest.mark.parametrize("views", [1, 2])
def test_structure_tokens_multiply_every_layer(views):
    network = GCN(WIDTH, 8, out_channels=5).double()
    data, domain = graph(20, 3), torch.arange(20) % 3
    edges = torch.unique(data.edge_index, dim=1)
    x = torch.randn(20, WIDTH, dtype=torch.float64)
    tokens = drawn(StructureTokens().bind(3, GCN(WIDTH, 8, out_channels=5))).double()
    assert [tuple(p.shape) for p in tokens.places] == [(3, 8), (3, 5)]
    expected = slow_gcn(network, x, edges, domain, tokens)
    tokens.attach(network)
    tokens.dress(Data(x=x, domain=domain))
    together = torch.cat([edges + 20 * v for v in range(views)], dim=1)
    found = network(x.repeat(views, 1), together)
    assert_close(found, expected.repeat(views, 1))
    (gradient,) = torch.autograd.grad(found.square().sum() / views, tokens.places[0])
    (wanted,) = torch.autograd.grad(expected.square().sum(), tokens.places[0])
    assert_close(gradient, wanted)
    with pytest.raises(ValueError, match=r"gave 7 rows for a batch of 20: .*keeps the rows"):
        network(x[:7], torch.empty(2, 0, dtype=torch.long))
    tokens.release()
    assert not network.convs[0]._forward_hooks
    assert_close(network(x, edges), network(x, edges))


@pytest.mark.parametrize("network", [GCN(WIDTH, 8), GAT(WIDTH, 8), FAGCN(WIDTH, 8), GCN(WIDTH, 8, 3, 4)])
@both
def test_tokens_that_never_moved_change_nothing(sources, kind, network):
    options = {"backbone": network, "epochs": 1, "lr": 1e-30, "objective": GraphCL()}
    plain, joined = train(sources, coordinators=None, **options), train(sources, coordinators=kind(), **options)
    assert plain.card["history"]["loss"] == pytest.approx(joined.card["history"]["loss"], rel=1e-6)
    tokens = joined.coordinators
    assert all(torch.equal(p, torch.ones_like(p)) for p in tokens.places)


# All the way


class Size(nn.Module):
    """The mean size of what the backbone gives."""

    def forward(self, backbone, batch):
        return backbone(batch.x, batch.edge_index).abs().mean()


def test_a_token_acts_once_a_layer_in_pretraining(sources):
    network = GCN(WIDTH, 8, 1)
    tokens = StructureTokens().bind(3, network)
    options = {"backbone": network, "objective": Size(), "sampler": WholeGraph(), "warm_start": True, "epochs": 1}
    plain = train(sources, coordinators=tokens, **options).card["history"]["loss"][0]
    with torch.no_grad():
        tokens.places[0].fill_(2.0)
    assert train(sources, coordinators=tokens, **options).card["history"]["loss"][0] == pytest.approx(2 * plain)


@pytest.mark.parametrize("objective", [BGRL(), GraphMAE(), GraphCL()])
@pytest.mark.parametrize("sampler", SAMPLERS)
@both
def test_gradients_reach_the_tokens_of_every_domain(sources, kind, sampler, objective):
    model = train(sources, coordinators=kind(), sampler=sampler, objective=objective, epochs=2)
    for place in model.coordinators.places:
        assert ((place - 1).abs().amax(1) > 1e-4).all()
    assert not any(m._forward_hooks for m in model.backbone.modules())
    assert model.card["coordinators"] == f"{kind.__name__}()"


@both
def test_one_seed_gives_one_model_and_nothing_handed_in_is_edited(sources, kind):
    tokens = kind()
    first = train(sources, coordinators=tokens)
    assert not tokens.is_bound
    assert same(first, train(sources, coordinators=kind()))
    assert same(first, train(sources, coordinators=drawn(kind().bind(5, GCN(WIDTH, 8)))))
    assert not same(first, train(sources, coordinators=kind(), seed=2))


@both
def test_a_warm_start_keeps_the_tokens(sources, kind):
    model = train(sources, coordinators=kind())
    again = train(sources, backbone=model.backbone, coordinators=model.coordinators, warm_start=True, epochs=0)
    assert all(torch.equal(a, b) for a, b in zip(model.coordinators.places, again.coordinators.places, strict=True))
    with pytest.raises(ValueError, match="the tokens are of 3 graphs"):
        train(sources[:2], backbone=model.backbone, coordinators=model.coordinators, warm_start=True)


@both
@pytest.mark.parametrize("groups", [1, 2])
def test_going_on_later_is_the_same_as_at_once(sources, tmp_path, kind, groups):
    options = {"coordinators": kind(), "objective": BGRL(), "groups": groups}
    whole = train(sources, epochs=4, **options)
    train(sources, epochs=2, checkpoint=tmp_path, **options)
    assert same(whole, train(sources, epochs=4, checkpoint=tmp_path, resume=True, **options))
    other = KINDS[1 - KINDS.index(kind)]
    with pytest.raises(CheckpointError, match="differs in coordinators"):
        train(sources, checkpoint=tmp_path, resume=True, **(options | {"coordinators": other()}))


@both
@pytest.mark.parametrize("make", [GCN, GAT, FAGCN])
def test_saved_and_loaded(sources, tmp_path, kind, make):
    model = train(sources, backbone=make(WIDTH, 8), coordinators=kind())
    model.save(tmp_path)
    again = graphfm.Pretrained.load(tmp_path)
    assert type(again.coordinators) is kind
    assert same(model, again)


@both
def test_networks_of_pyg(sources, kind):
    model = train(sources, backbone=PyGGCN(WIDTH, 8, num_layers=2), coordinators=kind())
    assert len(model.coordinators.places) == (1 if kind is DomainTokens else 2)


# On a target


@both
def test_prompts_are_the_formula(sources, kind):
    tokens = drawn(kind().bind(3, GCN(WIDTH, 8)))
    prompts = TokenPrompts.of(tokens).double()
    g = torch.Generator().manual_seed(9)
    for part in (*prompts.own, *prompts.mix):
        part.data = torch.randn(part.shape, generator=g, dtype=torch.float64)
    network, x = GCN(WIDTH, 8).double(), torch.randn(15, WIDTH, dtype=torch.float64)
    edges = torch.unique(graph(15, 4).edge_index, dim=1)
    found = prompts(network, x, Adjacency.from_edges(edges, 15))

    def run(vectors):
        if kind is DomainTokens:
            return network(x * vectors[0], edges)
        frozen = StructureTokens().make(1, [8, 8]).double()
        for place, vector in zip(frozen.places, vectors, strict=True):
            place.data = vector[None]
        return slow_gcn(network, x, edges, torch.zeros(15), frozen)

    own = [p.detach() for p in prompts.own]
    mixed = [
        sum(float(a[d]) * t[d].double() for d in range(3))
        for a, t in zip([p.detach() for p in prompts.mix], (p.detach() for p in tokens.places), strict=True)
    ]
    assert_close(found, (run(own) + run(mixed)) / 2)
    found.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in (*prompts.own, *prompts.mix))
    assert all(p.grad is None for p in prompts.sources)
    assert not network.convs[0]._forward_hooks


@both
@pytest.mark.parametrize("method", ["probe", "finetune"])
def test_carried_to_a_target_and_back_from_disk(sources, tmp_path, kind, method):
    model, target = train(sources, coordinators=kind()), graph(50, 7, 11)
    split = graphfm.few_shot(target.y, shots=2, seed=0)
    plain = graphfm.adapt(model, target, split, method=method, seed=0, epochs=5)
    fitted = graphfm.adapt(model, target, split, method=method, seed=0, epochs=5, carry=True)
    prompts = fitted.coordinators
    moved = [float((p - 1).detach().abs().max()) for p in prompts.own]
    assert all(m > 0 for m in moved) == (method == "finetune")
    for mine, theirs in zip(prompts.sources, model.coordinators.places, strict=True):
        assert torch.equal(mine, theirs)
    scores = fitted.predict(target)
    assert not torch.equal(scores, plain.predict(target))
    fitted.save(tmp_path)
    again = graphfm.Fitted.load(tmp_path)
    assert torch.equal(scores, again.predict(target))
    assert [p.requires_grad for p in again.coordinators.parameters()] == [p.requires_grad for p in prompts.parameters()]
    extra = sum(p.numel() for p in (*prompts.own, *prompts.mix)) * (method == "finetune")
    assert fitted.card["trained_parameters"] - plain.card["trained_parameters"] == extra


@both
def test_prompts_at_their_beginning_are_the_plain_network(kind):
    network, x = GCN(WIDTH, 8), torch.randn(12, WIDTH)
    adj = Adjacency.from_edges(graph(12, 5).edge_index, 12)
    prompts = TokenPrompts.of(kind().bind(4, network))
    assert_close(prompts(network, x, adj), network(x, adj))


# What does not fit


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_channels, self.out_channels, self.lin = WIDTH, 4, nn.Linear(WIDTH, 4)

    def forward(self, x, edge_index, edge_weight=None):
        return self.lin(x)


def test_a_backbone_without_layers_is_refused_by_name(sources):
    with pytest.raises(ValueError, match=r"layers in backbone\.convs; Bare has none.*DomainTokens"):
        train(sources, backbone=Bare(), coordinators=StructureTokens())
    train(sources, backbone=Bare(), coordinators=DomainTokens())
    assert len(layers_of(FAGCN(3, 4))) == 2


def test_tokens_that_saw_no_graph_say_so():
    with pytest.raises(ValueError, match="never bound"):
        TokenPrompts.of(DomainTokens())
    with pytest.raises(ValueError, match="kind must be 'DomainTokens' or 'StructureTokens', got 'Tokens'"):
        TokenPrompts("Tokens", 1, [2])
    tokens = StructureTokens().bind(1, GCN(WIDTH, 8))
    network = GCN(WIDTH, 8)
    tokens.attach(network)
    with pytest.raises(RuntimeError, match="saw no batch yet"):
        network(torch.zeros(2, WIDTH), torch.empty(2, 0, dtype=torch.long))


@both
@pytest.mark.parametrize(
    "change",
    [
        {"domains": 10**9},
        {"domains": 2},
        {"domains": "3"},
        {"widths": [6] * 50},
        {"widths": [-1]},
        {"widths": [5]},
        {"widths": []},
    ],
)
def test_a_checkpoint_that_lies_about_its_tokens_is_refused(sources, tmp_path, monkeypatch, kind, change):
    model = train(sources, coordinators=kind(), epochs=1)
    arguments = model.coordinators.arguments() | change
    monkeypatch.setattr(kind, "arguments", lambda tokens: arguments)
    model.save(tmp_path)
    monkeypatch.undo()
    assert json.loads((tmp_path / "model.json").read_text())
    with pytest.raises(CheckpointError):
        graphfm.Pretrained.load(tmp_path)
