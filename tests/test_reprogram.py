"""A classifier read at other classes: the map that is found, what stays, files, no leak, and bad input."""

import copy

import pytest
import torch
from test_adapt import scramble
from torch.nn import functional as F

import graphfm
from graphfm import prompts
from graphfm.fitted import Fitted
from graphfm.prompts.label_mapping import matched


@pytest.fixture(scope="module")
def data():
    return graphfm.load("digits")


@pytest.fixture(scope="module")
def model(data):
    return graphfm.pretrain(
        [data], backbone=graphfm.backbones.GCN(64, 32), objective=graphfm.objectives.SimGRACE(), epochs=1, seed=0
    )


@pytest.fixture(scope="module")
def source(model, data):
    return graphfm.adapt(model, data, graphfm.few_shot(data.y, shots=10, seed=0), method="probe", seed=0)


def renamed(data, keep):
    """The same graph with classes ``keep`` under new names 0, 1, ...; the others are one more name, unknown."""
    other = data.clone()
    names = torch.full((10,), -1)
    names[keep] = torch.arange(len(keep))
    other.y = names[data.y]
    return other


def accuracy(found, data, split):
    return float((found.argmax(1) == data.y)[split.test].float().mean())


def test_renamed_classes_are_found_again(model, data, source):
    """Nothing is trained: the map is the renaming, and scores are the source's own at these classes."""
    keep = torch.tensor([7, 2, 9, 0])
    target = renamed(data, keep)
    split = graphfm.few_shot(target.y, shots=5, seed=1)
    fitted = graphfm.reprogram(source, target, split, unifier=model.unifier, seed=0)
    assert fitted.card["mapping"] == keep.tolist()
    assert fitted.card["trained_parameters"] == 0
    known = target.y >= 0
    expected = torch.softmax(source.head(source.embed(data))[:, keep], dim=1)
    torch.testing.assert_close(fitted.predict(target)[known], expected[known], rtol=1e-3, atol=1e-4)
    assert accuracy(fitted.predict(target), target, split) > 0.8


@pytest.mark.parametrize("prompt", [prompts.GPFPlus(3), prompts.AllInOne(3), prompts.EdgePrompt()], ids=repr)
@pytest.mark.parametrize("val_shots", [0, 3])
def test_a_prompt_learns_and_all_else_stays(model, source, prompt, val_shots, tmp_path):
    target = graphfm.load("wine")
    split = graphfm.few_shot(target.y, shots=5, seed=0, val_shots=val_shots)
    before, head = copy.deepcopy(source.backbone.state_dict()), copy.deepcopy(source.head.state_dict())
    options = {"seed": 0, "lr": 0.01}
    plain = graphfm.reprogram(source, target, split, **options)
    fitted = graphfm.reprogram(source, target, split, prompt=prompt, epochs=30, **options)
    assert not prompt.is_bound  # a copy was trained
    found = fitted.predict(target)
    losses = [float(F.nll_loss(p[split.train].log(), target.y[split.train])) for p in (plain.predict(target), found)]
    assert losses[1] < losses[0]
    assert all(torch.equal(v, before[k]) for k, v in fitted.backbone.backbone.state_dict().items())
    assert all(torch.equal(v, head[k]) for k, v in fitted.head.source.state_dict().items())
    assert fitted.card["trained_parameters"] == sum(p.numel() for p in fitted.prompt.parameters())
    again = Fitted.load(fitted.save(tmp_path))
    assert torch.equal(again.predict(target), found)
    other = scramble(target, split.test)
    assert torch.equal(
        graphfm.reprogram(source, other, split, prompt=prompt, epochs=30, **options).predict(other), found
    )


def test_it_is_trained_as_one_would_by_hand(source):
    target = graphfm.load("wine")
    split = graphfm.few_shot(target.y, shots=4, seed=0)
    options = {"prompt": prompts.GPF(), "seed": 0, "lr": 0.05, "weight_decay": 1e-3}
    fitted = graphfm.reprogram(source, target, split, epochs=8, **options)
    by_hand = graphfm.reprogram(source, target, split, epochs=0, **options)
    inputs, y = by_hand.inputs(target), target.y[split.train]
    optimizer = torch.optim.Adam(by_hand.prompt.parameters(), lr=0.05, weight_decay=1e-3)
    for _ in range(8):
        z = by_hand.readout(by_hand.backbone(inputs.x, inputs.adj), inputs.x, inputs.adj)[split.train]
        scores = by_hand.head.source(z)
        place = matched(scores, y, 3)
        optimizer.zero_grad()
        F.cross_entropy(scores[:, place], y).backward()
        optimizer.step()
    torch.testing.assert_close(fitted.prompt.p, by_hand.prompt.p, rtol=1e-3, atol=1e-4)


def test_a_source_of_prototypes(model, data, source, tmp_path):
    theirs = graphfm.adapt(model, data, graphfm.few_shot(data.y, shots=5, seed=0), method="prototype", seed=0)
    target = renamed(data, torch.tensor([3, 8, 1]))
    split = graphfm.few_shot(target.y, shots=5, seed=1)
    fitted = graphfm.reprogram(theirs, target, split, unifier=model.unifier, seed=0)
    assert fitted.card["mapping"] == [3, 8, 1]
    assert torch.equal(Fitted.load(fitted.save(tmp_path)).predict(target), fitted.predict(target))


def test_classes_that_the_source_was_not_shown_are_not_mapped_to():
    scores = torch.tensor([[0.0, -torch.inf, 1.0, -3.0], [2.0, -torch.inf, 0.0, -3.0]])
    assert sorted(matched(scores, torch.tensor([0, 1]), 3).tolist()) == [0, 2, 3]
    with pytest.raises(ValueError, match="source knows 3"):
        matched(scores, torch.tensor([0, 1]), 4)


def test_more_classes_than_the_source_has_are_refused(model, data, source):
    wine = graphfm.load("wine")
    three = graphfm.adapt(model, wine, graphfm.few_shot(wine.y, shots=2, seed=0), method="probe", seed=0)
    split = graphfm.few_shot(data.y, shots=2, seed=0)
    with pytest.raises(ValueError, match="10 target classes cannot be mapped one to one to 3 source classes"):
        graphfm.reprogram(three, data, split, seed=0)
    shown = split.train[data.y[split.train] < 4]  # of ten classes the source is shown four
    few = graphfm.adapt(model, data, graphfm.Split(shown, split.val, split.test), method="probe", seed=0)
    five = renamed(data, torch.arange(5))
    with pytest.raises(ValueError, match=r"5 target classes .* 4 source classes"):
        graphfm.reprogram(few, five, graphfm.few_shot(five.y, shots=2, seed=0), seed=0)


def test_other_bad_input_is_named(model, data, source):
    split = graphfm.few_shot(data.y, shots=2, seed=0)
    prompted = graphfm.adapt(model, data, split, method="prompt:GPF", seed=0, epochs=1)
    with pytest.raises(ValueError, match="source has a prompt"):
        graphfm.reprogram(prompted, data, split, seed=0)
    with pytest.raises(ValueError, match="unifier gives 8 features"):
        graphfm.reprogram(source, data, split, unifier=graphfm.Unifier(8), seed=0)
    unknown = renamed(data, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="label is unknown"):
        graphfm.reprogram(source, unknown, split, seed=0)
    with pytest.raises(ValueError, match="kind must be one of"):
        prompts.label_mapping.Reprogrammed(4, 2, 3, "Linear")
