"""Tokens of pretext tasks: the formula, that they are learned, kept, stored, and composed from."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

import graphfm
from graphfm import backbones, prompts
from graphfm.bundle import read_bundle, write_bundle
from graphfm.checkpoint import CheckpointError
from graphfm.nn import Adjacency


class Spread(nn.Module):
    """A pretext whose loss is a plain function of the embeddings."""

    def __init__(self, power):
        super().__init__()
        self.power = power

    def forward(self, backbone, batch):
        return backbone(batch.x, batch.edge_index).pow(self.power).mean()


@pytest.fixture(scope="module")
def data():
    return graphfm.load("wine")


@pytest.fixture(scope="module")
def model(data):
    return graphfm.pretrain(
        [graphfm.load("breast_cancer"), data],
        backbone=backbones.GCN(16, 16),
        objective=prompts.PretextTokens(),
        epochs=2,
        seed=0,
    )


def graph():
    random = torch.Generator().manual_seed(0)
    edge_index = torch.randint(9, (2, 30), generator=random)
    return torch.randn(9, 6, generator=random, dtype=torch.float64), edge_index


@pytest.mark.parametrize("given", ["edge_index", "Adjacency"])
def test_each_pretext_sees_its_own_network(given):
    """``h = mean_l f(t_kl at layer l)``, the slow way."""
    x, edge_index = graph()
    network = backbones.GCN(6, 8, 3).double()
    tasks = prompts.PretextTokens([Spread(2), Spread(4)]).bind(6, 8).follow(network).double()
    for token in tasks.tokens:
        nn.init.uniform_(token, 0.5, 2.0)
    assert [list(t.shape) for t in tasks.tokens] == [[2, 6], [2, 8], [2, 8]]
    adj = Adjacency.from_edges(edge_index, 9)
    dense = torch.zeros(9, 9, dtype=torch.float64)
    form = adj.gcn(torch.float64)
    dense.index_put_((form.row, form.col), form.values(torch.float64), accumulate=True)
    expected = []
    for k, power in enumerate((2, 4)):
        levels = []
        for place in range(3):
            h = x
            for i, conv in enumerate(network.convs):
                h = dense @ (h * tasks.tokens[i][k] if i == place else h) @ conv.lin.weight.t() + conv.bias
                h = h.relu() if i < 2 else h
            levels.append(h)
        expected.append(torch.stack(levels).mean(0).pow(power).mean())
    batch = Data(x=x, edge_index=edge_index if given == "edge_index" else adj)
    losses = tasks(network, batch)
    torch.testing.assert_close(losses, torch.stack(expected))
    losses[0].backward()
    assert all(bool(t.grad[0].any()) and not bool(t.grad[1].any()) for t in tasks.tokens)


def test_tokens_at_one_are_the_network():
    x, edge_index = graph()
    network, plain = backbones.GCN(6, 8).double(), Spread(2)
    tasks = prompts.PretextTokens([plain]).bind(6, 8).follow(network).double()
    batch = Data(x=x, edge_index=edge_index)
    torch.testing.assert_close(tasks(network, batch)[0], plain(network, batch))


def test_they_are_learned_and_kept(model, tmp_path):
    assert [list(t.shape) for t in model.pretext] == [[3, 16], [3, 16]]
    assert all(bool((t != 1).any(dim=1).all()) for t in model.pretext)
    again = graphfm.Pretrained.load(model.save(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(model.pretext, again.pretext, strict=True))
    assert model.card["objective"] == "PretextTokens"


def test_adaptation_composes_from_them(model, data, tmp_path):
    split = graphfm.few_shot(data.y, shots=2, seed=0)
    options = {"method": "prompt:MultiGPrompt", "seed": 0, "lr": 0.05}
    fitted = graphfm.adapt(model, data, split, epochs=3, **options)
    for place, tokens in enumerate(model.pretext):
        assert torch.equal(getattr(fitted.prompt, f"tokens{place}"), tokens)
    bare = graphfm.Pretrained(model.backbone, model.unifier, None, model.card)
    other = graphfm.adapt(bare, data, split, epochs=3, **options)
    assert not torch.allclose(other.predict(data), fitted.predict(data))
    again = graphfm.fitted.Fitted.load(fitted.save(tmp_path))
    assert torch.equal(again.predict(data), fitted.predict(data))
    (cell,) = graphfm.evaluate(model, data, methods=["prompt:MultiGPrompt"], shots=(2,), seeds=(0,), baselines=False)
    found = graphfm.adapt(model, data, split, method="prompt:MultiGPrompt", seed=0).predict(data)
    hits = found[split.test].argmax(1) == data.y[split.test]
    assert cell.metrics["accuracy"] == pytest.approx(float(hits.float().mean()))


def test_another_number_of_tasks_is_refused(model, data):
    split = graphfm.few_shot(data.y, shots=2, seed=0)
    with pytest.raises(ValueError, match=r"tokens must have the shapes \[\[2, 16\], \[2, 16\]\]"):
        graphfm.adapt(model, data, split, method="prompt:MultiGPrompt(k=2)", seed=0)


def test_tokens_that_do_not_belong_together_are_refused(model, tmp_path):
    settings, tensors = read_bundle(model.save(tmp_path), "model")
    tensors["pretext.7"] = tensors.pop("pretext.1")
    write_bundle(tmp_path, "model", settings, tensors)
    with pytest.raises(CheckpointError, match="one matrix a layer"):
        graphfm.Pretrained.load(tmp_path)


def test_without_a_backbone_there_are_no_tokens():
    x, edge_index = graph()
    with pytest.raises(RuntimeError, match="no tokens yet"):
        prompts.PretextTokens([Spread(2)])(backbones.GCN(6, 8).double(), Data(x=x, edge_index=edge_index))
