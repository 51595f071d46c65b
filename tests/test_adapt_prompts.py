"""Adaptation by a prompt: its files, its own head and loop, no leak, and what it says of an unfit base."""

import copy
import logging

import pytest
import torch
from test_adapt import scramble
from torch.nn import functional as F

import graphfm
from graphfm import prompts
from graphfm.bundle import read_bundle, write_bundle
from graphfm.checkpoint import CheckpointError
from graphfm.fitted import Fitted

METHODS = [f"prompt:{name}" for name in prompts.__all__]

OWN_HEADS = ["GraphPrompt", "GraphPromptPlus", "GPPT", "MultiGPrompt"]


@pytest.fixture(scope="module")
def data():
    return graphfm.load("wine")


@pytest.fixture(scope="module")
def model():
    """With batch normalisation, whose statistics have to stay."""
    return graphfm.pretrain(
        [graphfm.load("breast_cancer")],
        backbone=graphfm.backbones.GCN(16, 16, norm="BatchNorm"),
        objective=graphfm.objectives.SimGRACE(),
        epochs=1,
        seed=0,
    )


@pytest.fixture(scope="module")
def split(data):
    return graphfm.few_shot(data.y, shots=2, seed=0)


@pytest.mark.parametrize("method", [*METHODS, "prompt:EdgePrompt+adapter:LoRA(2)", "prompt:GPPT+adapter:LoRA(2)"])
def test_round_trip(model, data, split, method, tmp_path):
    fitted = graphfm.adapt(model, data, split, method=method, seed=0, epochs=2, lr=0.01)
    again = Fitted.load(fitted.save(tmp_path))
    assert torch.equal(again.predict(data), fitted.predict(data))
    assert again.card == fitted.card
    assert repr(again.prompt) == repr(fitted.prompt)
    assert repr(again.adapters) == repr(fitted.adapters)
    assert type(again.head) is type(fitted.head)
    trained, theirs = ({k for k, p in f.backbone.named_parameters() if p.requires_grad} for f in (fitted, again))
    assert trained == theirs
    assert torch.equal(Fitted.load(again.save(tmp_path / "twice")).predict(data), fitted.predict(data))


def test_tokens_that_were_loaded_do_not_begin_again(model, data, split, tmp_path):
    fitted = graphfm.adapt(model, data, split, method="prompt:GPPT", seed=0, epochs=5, lr=0.1)
    again = Fitted.load(fitted.save(tmp_path))
    again.head.fit(again.embed(data)[split.train], data.y[split.train])
    assert torch.equal(again.head.tokens, fitted.head.tokens)


def test_round_trip_of_a_network_of_pyg(data, split, tmp_path):
    from torch_geometric.nn import GraphSAGE

    base = graphfm.pretrain(
        [data], backbone=GraphSAGE(16, 16, 2), objective=graphfm.objectives.SimGRACE(), epochs=1, seed=0
    )
    fitted = graphfm.adapt(base, data, split, prompt=prompts.GPFPlus(4), seed=0, epochs=2)
    again = Fitted.load(fitted.save(tmp_path), backbone=GraphSAGE(16, 16, 2))
    assert torch.equal(again.predict(data), fitted.predict(data))


class Shift(prompts.GPF):
    """A prompt of one's own."""


def test_a_class_of_ones_own(model, data, split, tmp_path):
    fitted = graphfm.adapt(model, data, split, prompt=Shift(), seed=0, epochs=2)
    fitted.save(tmp_path)
    with pytest.raises(CheckpointError, match="Shift"):
        Fitted.load(tmp_path)
    assert torch.equal(Fitted.load(tmp_path, prompts=[Shift]).predict(data), fitted.predict(data))


def _without_class(settings, tensors):
    settings["prompt"]["class"] = "os"


def _another_prompt(settings, tensors):
    settings["prompt"]["class"] = "MultiGPrompt"


def _absurd_sizes(settings, tensors):
    settings["prompt"]["sizes"]["in_channels"] = 10**9


def _bad_argument(settings, tensors):
    settings["prompt"]["arguments"]["hops"] = -1


def _lost_tensor(settings, tensors):
    del tensors["prompt.p"]


def _other_width(settings, tensors):
    settings["prompt"]["sizes"]["out_channels"] = 8
    tensors["prompt.p"] = torch.ones(8)


def _absurd_classes(settings, tensors):
    settings["num_classes"] = 10**12


def _another_base(settings, tensors):
    tensors["backbone.convs.0.lin.weight"] = tensors["backbone.convs.0.lin.weight"] + 1


def _no_fields(settings, tensors):
    settings["prompt"] = {}


def _no_json_object(settings, tensors):
    settings["prompt"] = "GraphPrompt"


DAMAGES = [
    _without_class, _another_prompt, _absurd_sizes, _bad_argument, _lost_tensor, _other_width, _absurd_classes,
    _another_base, _no_fields, _no_json_object,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(model, data, split, tmp_path, damage):
    fitted = graphfm.adapt(model, data, split, method="prompt:GraphPrompt", seed=0, epochs=1)
    settings, tensors = read_bundle(fitted.save(tmp_path), "fitted")
    write_bundle(tmp_path, "fitted", settings, tensors)
    Fitted.load(tmp_path)  # untouched it can be read
    damage(settings, tensors)
    write_bundle(tmp_path, "fitted", settings, tensors)
    with pytest.raises(CheckpointError):
        Fitted.load(tmp_path)


def test_flipped_bytes_are_refused(model, data, split, tmp_path):
    fitted = graphfm.adapt(model, data, split, method="prompt:GPF", seed=0, epochs=1)
    (weights,) = fitted.save(tmp_path).glob("*.safetensors")
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 0xFF
    weights.write_bytes(bytes(raw))
    with pytest.raises(CheckpointError):
        Fitted.load(tmp_path)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("val_shots", [0, 2], ids=["fixed steps", "with validation"])
def test_labels_of_test_nodes_change_nothing_and_the_base_stays(model, data, method, val_shots):
    split = graphfm.few_shot(data.y, shots=2, seed=0, val_shots=val_shots)
    options = {"method": method, "seed": 0, "epochs": 3, "lr": 0.05}
    before = copy.deepcopy(model.backbone.state_dict())
    fitted = graphfm.adapt(model, data, split, **options)
    other = scramble(data, split.test)
    assert torch.equal(fitted.predict(data), graphfm.adapt(model, other, split, **options).predict(other))
    for state in (model.backbone.state_dict(), fitted.backbone.backbone.state_dict()):
        assert all(torch.equal(before[k], v) for k, v in state.items())


@pytest.mark.parametrize("name", prompts.__all__)
def test_the_head_is_the_one_that_the_method_prescribes(model, data, split, name):
    fitted = graphfm.adapt(model, data, split, method=f"prompt:{name}", seed=0, epochs=1)
    prescribed = fitted.prompt.head(fitted.num_classes)
    assert (prescribed is not None) == (name in OWN_HEADS)
    if prescribed is None:
        assert type(fitted.head) is graphfm.heads.LinearHead
        return
    assert type(fitted.head) is type(prescribed)
    with torch.no_grad():
        h = fitted.inputs(data).embed(fitted.backbone)
    assert torch.equal(fitted.embed(data), h)  # what the prompt reads out, untouched


@pytest.mark.parametrize("name", OWN_HEADS)
def test_an_own_head_is_trained_as_one_would_by_hand(model, data, split, name):
    """Fit, Adam on the head's loss and the prompt's penalty, over the whole graph, and fit again."""
    options = {"method": f"prompt:{name}", "seed": 3, "weight_decay": 1e-3, "lr": 0.02}
    fitted = graphfm.adapt(model, data, split, epochs=20, **options)
    by_hand = graphfm.adapt(model, data, split, epochs=0, **options)
    start, network, head = by_hand.predict(data), by_hand.backbone, by_hand.head
    moving = [p for p in [*network.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.Adam(moving, lr=0.02, weight_decay=1e-3)
    inputs, y = by_hand.inputs(data), data.y[split.train]
    for _ in range(20):
        loss = head.loss(network(inputs.x, inputs.adj)[split.train], y) + network.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.fit(network(inputs.x, inputs.adj)[split.train].detach(), y)
    assert not torch.allclose(start, by_hand.predict(data), atol=1e-2)
    torch.testing.assert_close(fitted.predict(data), by_hand.predict(data), rtol=1e-3, atol=1e-4)


def test_prototypes_are_those_of_the_labelled_rows_in_the_end(model, data):
    for val_shots in (0, 2):
        split = graphfm.few_shot(data.y, shots=2, seed=0, val_shots=val_shots)
        fitted = graphfm.adapt(model, data, split, method="prompt:GraphPrompt", seed=0, epochs=10, lr=0.1)
        rows = fitted.embed(data)[split.train]
        means = torch.stack([rows[data.y[split.train] == c].mean(0) for c in range(3)])
        torch.testing.assert_close(fitted.head.prototypes, F.normalize(means, dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["prompt:GraphPrompt", "prompt:GPPT+adapter:LoRA(2)", "prompt:AllInOne(3)"])
def test_validation_keeps_the_best_step(model, data, method):
    """Runs of 0 .. 8 steps without validation are the steps of one with it; their losses on its nodes pick the same."""
    split = graphfm.few_shot(data.y, shots=2, seed=3, val_shots=2)
    blind = graphfm.Split(split.train, torch.empty(0, dtype=torch.long), torch.cat([split.val, split.test]))
    options = {"method": method, "seed": 0, "lr": 0.3}
    runs = [graphfm.adapt(model, data, blind, epochs=k, **options) for k in range(9)]
    losses = [float(F.nll_loss(run.predict(data)[split.val].log(), data.y[split.val])) for run in runs]
    best = losses.index(min(losses))
    assert len(set(losses)) > 1
    chosen = graphfm.adapt(model, data, split, epochs=8, **options)
    torch.testing.assert_close(chosen.predict(data), runs[best].predict(data), rtol=1e-4, atol=1e-5)


def test_all_in_one_trains_in_turns(model, data, split):
    """Its own loop, by hand: an Adam each, the head first, the tokens on the head as it then is."""
    options = {"method": "prompt:AllInOne(4)", "seed": 1, "weight_decay": 1e-3, "lr": 0.02}
    fitted = graphfm.adapt(model, data, split, epochs=10, **options)
    by_hand = graphfm.adapt(model, data, split, epochs=0, **options)
    network, head = by_hand.backbone, by_hand.head
    sides = [list(head.parameters()), [network.prompt.p]]
    optimizers = [torch.optim.Adam(side, lr=0.02, weight_decay=1e-3) for side in sides]
    inputs = by_hand.inputs(data)
    for _ in range(10):
        for optimizer in optimizers:
            z = by_hand.readout(network(inputs.x, inputs.adj), inputs.x, inputs.adj)
            loss = F.cross_entropy(head(z)[split.train], data.y[split.train])
            head.zero_grad()
            network.zero_grad()
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(fitted.predict(data), by_hand.predict(data), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fitted.prompt.p, network.prompt.p, rtol=1e-3, atol=1e-4)


def test_all_in_one_trains_an_adapter_in_the_turn_of_the_head(model, data, split):
    start, end = (
        graphfm.adapt(model, data, split, method="prompt:AllInOne(3)+adapter:LoRA(2)", seed=0, epochs=k, lr=0.05)
        for k in (0, 3)
    )
    assert not torch.equal(start.prompt.p, end.prompt.p)
    for before, after in zip(start.adapters[0].trainable(), end.adapters[0].trainable(), strict=True):
        assert not torch.equal(before, after)


def test_structure_goes_with_a_head_of_a_prompts_own(model, data, split):
    options = {"method": "prompt:GraphPrompt", "seed": 0, "epochs": 5, "lr": 0.05}
    drawn = graphfm.adapt(model, data, split, structure=1.0, **options).predict(data)
    assert torch.isfinite(drawn).all()
    assert not torch.equal(drawn, graphfm.adapt(model, data, split, **options).predict(data))


@pytest.mark.parametrize(
    ("name", "objective", "warns"),
    [
        ("GPPT", graphfm.objectives.SimGRACE, True),
        ("GPPT", graphfm.objectives.LinkPrediction, False),
        ("GPPT", graphfm.objectives.MultiTask, False),  # links are among its tasks
        ("GPF", graphfm.objectives.SimGRACE, False),
    ],
)
def test_gppt_warns_of_a_base_that_was_not_pretrained_for_links(data, split, caplog, name, objective, warns):
    base = graphfm.pretrain([data], backbone=graphfm.backbones.GCN(16, 16), objective=objective(), epochs=1, seed=0)
    with caplog.at_level(logging.WARNING, logger="graphfm.beside"):
        fitted = graphfm.adapt(base, data, split, method=f"prompt:{name}", seed=0, epochs=1)
    assert torch.isfinite(fitted.predict(data)).all()  # it runs all the same
    found = [record.getMessage() for record in caplog.records if record.name == "graphfm.beside"]
    assert found == ["GPPT is meant for a model pretrained by LinkPrediction; this one was by SimGRACE"] * warns


def test_a_card_that_tells_nothing_is_not_warned_of(model, data, split, caplog):
    silent = graphfm.Pretrained(model.backbone, model.unifier, None, {})
    graphfm.adapt(silent, data, split, method="prompt:GPPT", seed=0, epochs=1)
    assert not [record for record in caplog.records if record.name == "graphfm.beside"]


def test_what_is_no_prompt_is_refused(model, data, split):
    with pytest.raises(TypeError, match="must be a Prompt"):
        graphfm.adapt(model, data, split, prompt=torch.nn.Identity(), seed=0)
