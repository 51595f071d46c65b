"""The adapter bank: what separate models say, one base that nothing changes, names and files that do not fit."""

import json
import threading

import pytest
import torch

import graphfm
from graphfm import AdapterBank, adapters, prompts
from graphfm import bank as module
from graphfm.adapters.handle import names
from graphfm.checkpoint import CheckpointError
from graphfm.evaluate import untrained

OPTIONS = {"epochs": 4, "lr": 0.02}
METHODS = {
    "lora": "adapter:LoRA(4)",
    "c3a": "adapter:C3A",
    "bottlenecks": "adapter:AdapterGNN(4)",
    "biases": "adapter:BiasOnly(norms=True)",
    "fourier": "adapter:FourierFT",
    "probe": "probe",
    "prototypes": "prototype",
    "features": "prompt:GPFPlus(3)",
    "tokens": "prompt:AllInOne(3)",
    "factors": "prompt:GraphPrompt",
    "both": "prompt:EdgePrompt+adapter:LoRA(2)",
}


@pytest.fixture(scope="module")
def model():
    return graphfm.pretrain(
        [graphfm.load("breast_cancer")],
        backbone=graphfm.backbones.GCN(16, 16, norm="BatchNorm"),
        objective=graphfm.objectives.SimGRACE(),
        epochs=1,
        seed=0,
    )


@pytest.fixture(scope="module")
def graphs():
    return {"wine": graphfm.load("wine"), "breast_cancer": graphfm.load("breast_cancer")}


@pytest.fixture(scope="module")
def fitted(model, graphs):
    """Models of both graphs, by name."""
    found = {}
    for target, data in graphs.items():
        split = graphfm.few_shot(data.y, 3, 0)
        for name, method in METHODS.items():
            made = graphfm.adapt(model, data, split, method=method, seed=0, **({} if ":" not in method else OPTIONS))
            found[f"{target}-{name}"] = made
    return found


@pytest.fixture
def bank(model, fitted, tmp_path):
    made = AdapterBank(model, tmp_path / "bank")
    for name, one in fitted.items():
        made.add(name, one)
    return made


def picture(model):
    """All there is of a base: tensors where they lie, classes, modes, what requires a gradient, hooks."""
    backbone = model.backbone
    return (
        {k: (v.data_ptr(), v.clone()) for k, v in backbone.state_dict().items()},
        [type(m) for m in backbone.modules()],
        [m.training for m in backbone.modules()],
        [p.requires_grad for p in backbone.parameters()],
        [sorted(vars(m)) for m in backbone.modules()],
        [len(m._forward_hooks) for m in backbone.modules()],
    )


def unchanged(model, before):
    tensors, *rest = picture(model)
    place, *others = before
    return rest == others and all(t[0] == place[k][0] and torch.equal(t[1], place[k][1]) for k, t in tensors.items())


def test_says_what_separate_models_say(model, graphs, fitted, bank):
    before = picture(model)
    for name, one in fitted.items():
        data = graphs[name.split("-")[0]]
        assert torch.equal(bank.predict(name, data), one.predict(data))
        assert unchanged(model, before)
    assert bank.names() == sorted(fitted)


def test_one_call_for_many_graphs_in_their_order(model, graphs, fitted, bank, monkeypatch):
    order = [*fitted, *reversed(fitted)]
    requests = [(name, graphs[name.split("-")[0]]) for name in order]
    built, real = [], module.build_fitted
    monkeypatch.setattr(module, "build_fitted", lambda *a, **k: built.append(1) or real(*a, **k))
    before = picture(model)
    for (name, data), found in zip(requests, bank.predict_many(requests), strict=True):
        assert torch.equal(found, fitted[name].predict(data))
    assert len(built) == len(fitted)  # each was put in place once
    assert unchanged(model, before)
    assert bank.predict_many([]) == []


def test_the_base_is_never_read_and_models_once(model, graphs, bank, monkeypatch):
    reads = []
    real = module.read_bundle
    monkeypatch.setattr(module, "read_bundle", lambda folder, stem: reads.append(folder.name) or real(folder, stem))
    for _ in range(3):
        bank.predict("wine-lora", graphs["wine"])
    assert reads == ["wine-lora"]
    small = AdapterBank(model, bank.folder, keep=1)
    for name in ("wine-lora", "wine-c3a", "wine-lora"):
        small.predict(name, graphs["wine"])
    assert reads == ["wine-lora", "wine-lora", "wine-c3a", "wine-lora"]


def test_another_process_finds_the_models(model, graphs, fitted, bank):
    again = AdapterBank(model, bank.folder)
    assert again.names() == bank.names()
    assert torch.equal(again.predict("wine-lora", graphs["wine"]), fitted["wine-lora"].predict(graphs["wine"]))


def test_the_base_is_not_on_disk(model, fitted, bank, tmp_path):
    size = sum(p.stat().st_size for p in fitted["wine-lora"].save(tmp_path / "whole").iterdir())
    base = sum(v.numel() * v.element_size() for v in model.backbone.state_dict().values())
    assert 0 < bank.size("wine-probe") < bank.size("wine-lora") < size
    assert size - bank.size("wine-lora") == pytest.approx(base, rel=0.5)
    settings = json.loads((bank.folder / "wine-lora" / "banked.json").read_text())["settings"]
    assert "backbone" not in settings


def test_replacing_and_removing(model, graphs, fitted, bank):
    before = picture(model)
    bank.predict("wine-lora", graphs["wine"])
    bank.add("wine-lora", fitted["wine-c3a"])
    assert torch.equal(bank.predict("wine-lora", graphs["wine"]), fitted["wine-c3a"].predict(graphs["wine"]))
    bank.remove("wine-lora")
    assert "wine-lora" not in bank.names()
    assert not (bank.folder / "wine-lora").exists()
    for call in (lambda: bank.predict("wine-lora", graphs["wine"]), lambda: bank.remove("wine-lora")):
        with pytest.raises(ValueError, match="no model 'wine-lora'; there are: breast_cancer"):
            call()
    assert unchanged(model, before)


def test_a_graph_that_has_grown(graphs, fitted, bank):
    data = graphs["wine"].clone()
    data.x = torch.cat([data.x, data.x[:3] + 0.1])
    data.y = None
    data.num_nodes = data.x.size(0)
    new = torch.tensor([[178, 179, 180], [0, 1, 2]])
    data.edge_index = torch.cat([data.edge_index, new, new.flip(0)], dim=1)
    assert torch.equal(bank.predict("wine-lora", data), fitted["wine-lora"].predict(data))
    assert bank.predict("wine-lora", data).shape == (181, 3)


def test_threads_do_not_see_each_other(graphs, fitted, bank):
    names_, found = ["wine-lora", "wine-c3a", "wine-bottlenecks"], {}

    def work(name):
        found[name] = [bank.predict(name, graphs["wine"]) for _ in range(4)]

    threads = [threading.Thread(target=work, args=(name,)) for name in names_]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names_:
        expected = fitted[name].predict(graphs["wine"])
        assert all(torch.equal(each, expected) for each in found[name])


class Shift(prompts.GPF):
    """A prompt of one's own."""


def test_a_prompt_of_ones_own(model, graphs, tmp_path):
    data = graphs["wine"]
    fitted = graphfm.adapt(model, data, graphfm.few_shot(data.y, 2, 0), prompt=Shift(), seed=0, **OPTIONS)
    bank = AdapterBank(model, tmp_path, prompts=[Shift])
    bank.add("own", fitted)
    assert torch.equal(bank.predict("own", data), fitted.predict(data))
    before = picture(model)
    with pytest.raises(CheckpointError, match="Shift"):
        AdapterBank(model, tmp_path).predict("own", data)
    assert unchanged(model, before)


def test_a_prompt_of_another_base_is_refused(model, graphs, fitted, bank):
    """The folder says the base is right, the prompt inside it says otherwise."""
    before, path = picture(model), bank.folder / "wine-features"
    settings, tensors = module.read_bundle(path, "banked")
    settings["prompt"]["base"] = "0" * 64
    module.write_bundle(path, "banked", settings, tensors)
    with pytest.raises(CheckpointError, match="trained before another base"):
        AdapterBank(model, bank.folder).predict("wine-features", graphs["wine"])
    assert unchanged(model, before)


def test_other_bases_are_refused(model, graphs, fitted, bank, tmp_path):
    data = graphs["wine"]
    split = graphfm.few_shot(data.y, 2, 0)
    tuned = graphfm.adapt(model, data, split, method="finetune", seed=0, epochs=1)
    with pytest.raises(ValueError, match="not the bank's base"):
        bank.add("tuned", tuned)
    other = untrained(model, 1)
    with pytest.raises(ValueError, match="not the bank's base"):
        AdapterBank(other, tmp_path / "other").add("wine", fitted["wine-lora"])
    with pytest.raises(CheckpointError, match="another base"):
        AdapterBank(other, bank.folder).predict("wine-lora", data)
    shifted = graphfm.Pretrained(*(getattr(model, k) for k in ("backbone", "unifier", "coordinators", "card")))
    shifted.backbone = type(model.backbone)(16, 16, norm="BatchNorm")
    shifted.backbone.load_state_dict(model.backbone.state_dict())
    shifted.backbone.norms[0].module.running_mean += 1  # weights alone would not tell
    with pytest.raises(CheckpointError, match="another base"):
        AdapterBank(shifted, bank.folder).predict("wine-lora", data)


def test_damaged_files_leave_the_base_as_it_was(model, graphs, bank):
    before = picture(model)
    weights = next((bank.folder / "wine-lora").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="damaged"):
        bank.predict("wine-lora", graphs["wine"])
    with pytest.raises(ValueError, match="has 30 features"):
        bank.predict("wine-c3a", graphs["breast_cancer"])  # of another graph: nothing stays attached
    assert unchanged(model, before)
    assert names(model.backbone) == []


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", 3])
def test_bad_names(fitted, bank, name):
    for call in (lambda: bank.add(name, fitted["wine-lora"]), lambda: bank.remove(name), lambda: bank.size(name)):
        with pytest.raises(ValueError, match="name must be of letters"):
            call()


def test_bad_banks(model, tmp_path):
    with pytest.raises(ValueError, match="keep must not be negative"):
        AdapterBank(model, tmp_path, keep=-1)
    handle = adapters.attach(model.backbone, adapters.LoRA(2))
    with pytest.raises(ValueError, match="has adapters of its own"):
        AdapterBank(model, tmp_path)
    handle.detach()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        AdapterBank(model, tmp_path / "file")
