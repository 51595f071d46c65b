"""What every exported prompt must hold to: it reaches the network, and leaves it alone."""

import copy

import pytest
import torch
import torch_geometric.nn as pyg

from graphfm import backbones, prompts
from graphfm.nn import Adjacency
from tests.contracts import permuted, side_by_side

F_IN, HIDDEN = 6, 8


def zero(*names):
    """Neutral once these parameters (and lists of them) are 0."""

    def setting(prompt):
        with torch.no_grad():
            for key, value in prompt.named_parameters():
                if key.split(".")[0] in names:
                    value.zero_()

    return setting


def one(*names):
    def setting(prompt):
        with torch.no_grad():
            for key, value in prompt.named_parameters():
                if key.split(".")[0] in names:
                    value.fill_(1.0)

    return setting


# How each is made for these tests (more than one way where there are several), and the setting at which the output is
# the backbone's; a string says why there is none.
CASES = {
    "GPF": (prompts.GPF, zero("p")),
    "GPF of several": (lambda: prompts.GPF(k=3), zero("p")),
    "GPFPlus": (lambda: prompts.GPFPlus(k=3), zero("p")),
    "EdgePrompt": (prompts.EdgePrompt, zero("p")),
    "EdgePromptPlus": (lambda: prompts.EdgePromptPlus(k=3), zero("p")),
    "SUPT": (lambda: prompts.SUPT(k=3), zero("p")),
    "SUPT hard": (lambda: prompts.SUPT(k=3, hard=True, ratio=0.4), zero("p")),
}


def plain_multi(prompt):
    one("open")(prompt)
    with torch.no_grad():
        for buffer in prompt.buffers():
            buffer.fill_(1.0)
        for mix in prompt.mix:
            mix.fill_(1 / prompt.k)
        prompt.balance.fill_(0.5)


def plain_plus(prompt):
    one("p")(prompt)
    with torch.no_grad():
        prompt.w.zero_()
        prompt.w[-1] = 1.0


def cut(prompt):
    prompt.cross = 1.1


CASES |= {
    "AllInOne": (lambda: prompts.AllInOne(tokens=4, cross=0.4), cut),
    "AllInOne light": (lambda: prompts.AllInOne(tokens=4, structured=False, cross=0.3), cut),
    "GraphPrompt": (prompts.GraphPrompt, "it averages over ego graphs"),
    "GraphPrompt alone": (lambda: prompts.GraphPrompt(hops=0), one("p")),
    "GraphPromptPlus": (prompts.GraphPromptPlus, "it averages over ego graphs"),
    "GraphPromptPlus alone": (lambda: prompts.GraphPromptPlus(hops=0), plain_plus),
    "MultiGPrompt": (prompts.MultiGPrompt, plain_multi),
    "GPPT": (prompts.GPPT, "it averages over neighbours; what is learned is its head"),
}
BACKBONES = {
    name: (lambda name=name: getattr(backbones, name)(F_IN, HIDDEN))
    for name in backbones.__all__
}  # fmt: skip
PYG = {
    "PyG GCN": lambda: pyg.GCN(F_IN, HIDDEN, 2),
    "PyG SAGE": lambda: pyg.GraphSAGE(F_IN, HIDDEN, 2),
    "PyG GIN": lambda: pyg.GIN(F_IN, HIDDEN, 2),
    "PyG GAT": lambda: pyg.GAT(F_IN, HIDDEN, 2, heads=2),
}
each_case = pytest.mark.parametrize("case", list(CASES))


def graph(seed=0, nodes=9, edges=16):
    g = torch.Generator().manual_seed(seed)
    ends = torch.randint(nodes, (2, edges), generator=g)
    return torch.randn(nodes, F_IN, generator=g, dtype=torch.float64), torch.cat([ends, ends.flip(0)], 1).unique(dim=1)


def network(case, make=lambda: backbones.GCN(F_IN, HIDDEN), seed=0, moved=True):
    """The case's prompt on a backbone, its parameters moved away from where they start."""
    torch.manual_seed(seed)
    backbone = make().double().eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    found = prompts.prompted(backbone, CASES[case][0]())
    if moved:
        with torch.no_grad():
            for parameter in found.prompt.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
    return found


def test_every_exported_prompt_is_here():
    assert {case.split()[0] for case in CASES} == set(prompts.__all__)


@pytest.mark.parametrize("name", prompts.__all__)
def test_can_be_made_without_arguments_and_says_how(name):
    cls = getattr(prompts, name)
    made = cls()
    assert not made.is_bound
    assert list(made.parameters()) == []
    again = cls(**made.arguments())
    assert repr(again) == repr(made)
    assert repr(made).startswith(name)


@each_case
def test_neutral_setting(case):
    setting = CASES[case][1]
    if isinstance(setting, str):
        pytest.skip(setting)
    found = network(case)
    setting(found.prompt)
    x, edge_index = graph()
    torch.testing.assert_close(found(x, edge_index), found.backbone(x, edge_index))


def takes(case, backbone):
    return backbone != "MLP" or case not in ("AllInOne", "EdgePrompt", "EdgePromptPlus")


@pytest.mark.parametrize("backbone", [*BACKBONES, *PYG])
@each_case
def test_each_parameter_reaches_the_output_and_gets_a_gradient(case, backbone):
    if not takes(case, backbone):
        pytest.skip("there are no messages to act on")
    found = network(case, {**BACKBONES, **PYG}[backbone])
    x, edge_index = graph()
    before = found(x, edge_index)
    names = dict(found.prompt.named_parameters())
    if case == "GPPT":
        assert not names
        return
    (before * torch.randn_like(before)).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in found.backbone.parameters())
    for name, parameter in names.items():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 1e-9, name
        saved = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter))
            assert not torch.allclose(found(x, edge_index), before), name
            parameter.copy_(saved)


@each_case
def test_the_backbone_and_its_buffers_stay(case):
    found = network(case, lambda: backbones.GCN(F_IN, HIDDEN, norm="BatchNorm", dropout=0.5))
    before = copy.deepcopy(found.backbone.state_dict())
    x, edge_index = graph()
    optimizer = torch.optim.Adam([p for p in found.parameters() if p.requires_grad] or [torch.zeros(1)], lr=0.1)
    for _ in range(3):
        found.train()
        optimizer.zero_grad()
        loss = found(x, edge_index).square().mean() + found.penalty()
        if loss.requires_grad:
            loss.backward()
        optimizer.step()
    for key, value in found.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key


@each_case
def test_training_and_evaluation_agree(case):
    found = network(case, lambda: backbones.GCN(F_IN, HIDDEN, norm="BatchNorm", dropout=0.5))
    x, edge_index = graph()
    torch.testing.assert_close(found.train()(x, edge_index), found.eval()(x, edge_index))


@each_case
def test_a_batch_and_its_graphs_one_by_one_agree(case):
    found = network(case)
    parts = [graph(seed, nodes, edges) for seed, nodes, edges in ((1, 5, 7), (2, 1, 0), (3, 8, 12), (4, 3, 0))]
    x, edge_index, ptr = side_by_side(*parts)
    batch = torch.repeat_interleave(torch.arange(len(parts)), ptr.diff())
    alone = [found(one_x, edges, batch=torch.zeros(len(one_x), dtype=torch.long)) for one_x, edges in parts]
    torch.testing.assert_close(found(x, edge_index, batch=batch), torch.cat(alone))


@pytest.mark.parametrize("backbone", ["GCN", "GAT", "GIN", "FAGCN"])
@each_case
def test_permutation_equivariance(case, backbone):
    found = network(case, BACKBONES[backbone])
    x, edge_index = graph()
    other_x, other_edges, order = permuted(x, edge_index)
    torch.testing.assert_close(found(other_x, other_edges), found(x, edge_index)[order])


@each_case
def test_deterministic_under_a_seed(case):
    x, edge_index = graph()
    first, second, other = (network(case, seed=s)(x, edge_index) for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("case", ["GPFPlus", "EdgePromptPlus", "SUPT", "AllInOne"])
def test_vectors_that_are_mixed_do_not_stay_alike(case):
    """From equal vectors Adam makes equal steps, and the mixture would be one vector for ever."""
    found = network(case, moved=False)
    x, edge_index = graph()
    target = torch.randn(len(x), HIDDEN, dtype=torch.float64)
    optimizer = torch.optim.Adam(found.prompt.parameters(), lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        (found(x, edge_index) - target).square().mean().backward()
        optimizer.step()
    vectors = found.prompt.p if isinstance(found.prompt.p, torch.Tensor) else found.prompt.p[0]
    gap = torch.pdist(vectors.detach()).min()
    assert float(gap) > 0.3 * float(vectors.detach().norm(dim=1).mean())


@each_case
def test_weighted_edges_and_an_adjacency(case):
    found = network(case)
    x, edge_index = graph()
    weight = torch.rand(edge_index.size(1), dtype=torch.float64) + 0.2
    adj = Adjacency.from_edges(edge_index, len(x), weight)
    torch.testing.assert_close(found(x, adj), found(x, edge_index, weight))
    assert not torch.allclose(found(x, adj), found(x, edge_index))


@each_case
def test_inputs_are_not_edited(case):
    found = network(case)
    x, edge_index = graph()
    adj = Adjacency.from_edges(edge_index, len(x))
    kept = x.clone()
    plain = found.backbone(x, adj)
    found(x, adj)
    assert torch.equal(x, kept)
    torch.testing.assert_close(found.backbone(x, adj), plain)


@pytest.mark.parametrize("backbone", [*BACKBONES, *PYG])
@each_case
def test_isolated_nodes_and_single_nodes(case, backbone):
    if not takes(case, backbone):
        pytest.skip("there are no messages to act on")
    found = network(case, {**BACKBONES, **PYG}[backbone])
    for nodes in (1, 3):
        out = found(torch.randn(nodes, F_IN, dtype=torch.float64), torch.empty(2, 0, dtype=torch.long))
        assert out.shape == (nodes, HIDDEN)
        assert bool(torch.isfinite(out).all())


@each_case
def test_refusals(case):
    found = network(case)
    x, edge_index = graph()
    with pytest.raises(ValueError, match=r"x must be \[N, 6\]"):
        found(x[:, :-1], edge_index)
    with pytest.raises(ValueError, match="the prompt is bound to"):
        prompts.prompted(backbones.GCN(F_IN + 1, HIDDEN), found.prompt)
    with pytest.raises(ValueError, match="out_channels must be at least 1"):
        CASES[case][0]().bind(3, 0)


def test_what_is_no_prompt_is_refused():
    with pytest.raises(TypeError, match="prompt must be a Prompt"):
        prompts.prompted(backbones.GCN(3, 4), torch.nn.Linear(3, 3))
    with pytest.raises(ValueError, match="backbone must have an integer in_channels"):
        prompts.prompted(torch.nn.Linear(3, 3), prompts.GPF())
    with pytest.raises(ValueError, match="acts through messages, and this network passes none"):
        prompts.prompted(backbones.MLP(3, 4), prompts.EdgePrompt())
