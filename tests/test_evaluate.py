"""Evaluation: cells that do not depend on order, resume, name themselves, and leak nothing."""

import pytest
import torch
from torch_geometric.data import Data

import graphfm
from graphfm import evaluate as evaluate_verb
from graphfm.evaluate import untrained
from graphfm.results import Result, read

SPEED = {"methods": ("probe", "prototype", "finetune"), "shots": (1, 2)}


@pytest.fixture(scope="module")
def data() -> Data:
    return graphfm.load("wine")


@pytest.fixture(scope="module")
def model() -> graphfm.Pretrained:
    return graphfm.pretrain(
        [graphfm.load("breast_cancer")],
        backbone=graphfm.backbones.GCN(16, 16),
        objective=graphfm.objectives.SimGRACE(),
        epochs=1,
        seed=0,
    )


def values(results: list[Result]) -> dict[tuple[str, int, int], float]:
    return {(r.method, r.settings["shots"], r.seed): r.metrics["accuracy"] for r in results}


def test_cells_do_not_depend_on_their_order(model: graphfm.Pretrained, data: Data) -> None:
    forward = values(evaluate_verb(model, data, seeds=(0, 1, 2), **SPEED))
    backward = values(
        evaluate_verb(model, data, methods=("finetune", "prototype", "probe"), shots=(2, 1), seeds=(2, 0))
    )
    assert set(backward) < set(forward)
    assert all(forward[key] == value for key, value in backward.items())


def test_every_method_has_the_floor_beside_it_on_the_same_splits(model: graphfm.Pretrained, data: Data) -> None:
    results = evaluate_verb(model, data, seeds=(0, 1), **SPEED)
    groups = {r.method: r.settings["group"] for r in results}
    assert sorted(name for name, group in groups.items() if group == "control") == ["scratch", "untrained"]
    assert sum(group == "floor" for group in groups.values()) == len(graphfm.baselines.floor()) >= 8
    cells = {(r.method, r.settings["shots"], r.seed) for r in results}
    assert len(cells) == len(results) == len(groups) * 2 * 2
    for result in results:
        assert set(result.metrics) >= {"accuracy", "macro_f1", "auroc"}
        assert result.seconds > 0
        assert result.peak_memory > 0
        assert result.versions["torch"] == torch.__version__
        assert result.settings["protocol"] == "honest"


def test_interrupted_grid_goes_on(model: graphfm.Pretrained, data: Data, tmp_path, monkeypatch) -> None:
    out = tmp_path / "results.jsonl"
    options = {"methods": ("probe",), "shots": (1,), "baselines": False, "out": out}
    first = evaluate_verb(model, data, seeds=(0, 1), **options)

    import importlib

    module = importlib.import_module("graphfm.evaluate")
    calls = []
    real = module.adapt
    monkeypatch.setattr(module, "adapt", lambda *a, **k: calls.append(k["seed"]) or real(*a, **k))
    second = evaluate_verb(model, data, seeds=(0, 1, 2), **options)
    assert calls == [2]
    assert [r.metrics for r in second[:2]] == [r.metrics for r in first]
    assert len(read(out)) == 3


def test_cells_of_another_checkpoint_are_not_taken_for_ours(model: graphfm.Pretrained, data: Data, tmp_path) -> None:
    options = {"methods": ("probe",), "shots": (1,), "seeds": (0,), "baselines": False, "out": tmp_path / "r.jsonl"}
    evaluate_verb(model, data, **options)
    evaluate_verb(untrained(model, 1), data, **options)
    assert len(read(tmp_path / "r.jsonl")) == 2


def test_published_protocol_carries_weights_over(model: graphfm.Pretrained, data: Data) -> None:
    options = {"methods": ("finetune",), "shots": (1,), "protocol": "paper", "baselines": False}
    both = evaluate_verb(model, data, seeds=(0, 1), **options)
    again = evaluate_verb(model, data, seeds=(0, 1), **options)
    alone = evaluate_verb(model, data, seeds=(1,), **options)
    assert values(both) == values(again)
    assert both[1].seed == alone[0].seed == 1
    assert both[1].metrics != alone[0].metrics  # the second repeat went on from the first


def test_floor_alone(data: Data) -> None:
    results = evaluate_verb(None, data, methods=[], shots=(1,), seeds=(0,))
    assert {r.settings["group"] for r in results} == {"floor"}


def test_untrained_is_drawn_from_its_seed(model: graphfm.Pretrained) -> None:
    first, again, other = untrained(model, 0), untrained(model, 0), untrained(model, 1)
    for a, b in zip(first.backbone.parameters(), again.backbone.parameters(), strict=True):
        assert torch.equal(a, b)
    weights = [m.backbone.convs[0].lin.weight for m in (first, other, model)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("tune",)}, "methods holds 'tune'"),
        ({"protocol": "x"}, "protocol must be one of"),
        ({"shots": ()}, "shots must be positive"),
        ({"shots": (0,)}, "shots must be positive"),
        ({"seeds": ()}, "seeds is empty"),
    ],
)
def test_bad_input_is_named(model: graphfm.Pretrained, data: Data, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_verb(model, data, **options)


def test_methods_without_a_model(data: Data) -> None:
    with pytest.raises(ValueError, match="methods need a pretrained model"):
        evaluate_verb(None, data, methods=("probe",))


def test_one_class_is_refused(model: graphfm.Pretrained, data: Data) -> None:
    flat = data.clone()
    flat.y = torch.zeros_like(data.y)
    with pytest.raises(ValueError, match="at least two"):
        evaluate_verb(model, flat)
