"""Every method solves a graph that only text and structure together solve, and depends on what it says it uses."""

import pytest
import torch
from planted import TwoLayers, WordVectors, edges_shuffled, planted, texts_shuffled

from graphfm.data.splits import few_shot
from graphfm.graphllm.catalogue import methods
from graphfm.graphllm.method import ZeroShot
from graphfm.graphllm.protocol import answer_scores
from graphfm.graphllm.texts import as_tag, only_labels_of, without_labels

# Methods that talk to a model or fine-tune one are put on this graph where a small model is trained for it.
HERE = {
    name: kind
    for name, kind in methods().items()
    if set(kind.needs) <= {"encoder", "lm", "states"}
    and kind.family != "predictor"
    and not (kind.family == "zero-shot" and "lm" in kind.needs)
    and name != "LocalTAPE"
}
MODELS = {"encoder": WordVectors(), "lm": TwoLayers(), "states": TwoLayers()}
# Settings that make a method small; those with networks of their own say how many labels a class they get.
SMALL = {name: {"epochs": 50} for name, kind in HERE.items() if hasattr(kind, "backbone")} | {
    "CorrectAndSmooth": {"epochs": 50, "smooth_alpha": 0.5, "correct_alpha": 0.5},
    "ENGINE": {"epochs": 50},
    "EncoderENGINE": {"epochs": 50},
    "FrozenZeroG": {"steps": 20, "rounds": 3},
    "OFA": {"steps": 150, "hidden": 32, "hops": 1, "at_most": 12, "lr": 5e-3},
    "OFAZeroShot": {"steps": 150, "hidden": 32, "hops": 1, "at_most": 12, "lr": 5e-3},
}
SHOTS = {"OFA": 150, "LinearGNNs": 24, "CorrectAndSmooth": 8}
# Labels that are spread solve the usual graph without the texts: here they are fewer and farther between.
SPARSE = {"clear": 0.72, "degree": 6, "homophily": 0.62}
# What learns slowly gets a graph whose edges say more.
EASY = {"clear": 0.55, "degree": 10, "homophily": 0.8}
KIND = {"CorrectAndSmooth": "sparse", "LinearGNNs": "easy", "OFA": "easy", "OFAZeroShot": "easy", "GIN": "sparse"}
# What is trained, by the beginning of the parameters' names; nothing where a method is not here.
TRAINED = {name: {"network"} for name, kind in HERE.items() if hasattr(kind, "backbone")} | {
    "ENGINE": {"ladder"},
    "EncoderENGINE": {"ladder"},
    "FrozenZeroG": {"map"},
    "OFA": {"network"},
    "OFAZeroShot": {"network"},
}
OTHER_WORDS = (("fig", "gold", "hat", "ink"), ("jam", "kite", "lamp", "moon"))


@pytest.fixture(scope="module")
def graphs():
    kinds = {"usual": {}, "sparse": SPARSE, "easy": EASY}
    return {kind: shuffles(planted(0, **options)) for kind, options in kinds.items()}


def shuffles(whole):
    return {"whole": whole, "text": texts_shuffled(whole), "structure": edges_shuffled(whole)}


@pytest.fixture(scope="module")
def answered(graphs, sources):
    """Fits a method on a graph, whole or shuffled, and keeps what came of it."""
    found, fitted = {}, {}

    def answer(name, part):
        if (name, part) not in found:
            found[name, part] = measure(name, graphs[KIND.get(name, "usual")][part], sources, fitted)
        return found[name, part]

    return answer


@pytest.fixture(scope="module")
def sources():
    found = [planted(100 + i, classes=words, filler="s") for i, words in enumerate(OTHER_WORDS)]
    return [as_tag(graph) for graph in found]


def measure(name, graph, sources, fitted):
    """A fitted method and its accuracy on test nodes, labels hidden as a runner hides them."""
    data, kind = as_tag(graph), HERE[name]
    split = few_shot(data.y, SHOTS.get(name, 12), 0, val_shots=8)
    method = kind(**{need: MODELS[need] for need in kind.needs}, **SMALL.get(name, {}))
    if isinstance(method, ZeroShot):
        # The target is shuffled, the sources are not: one fit serves all.
        method = fitted[name] if name in fitted else fitted.setdefault(name, method.fit(kin_of(name, sources)))
    else:
        method.fit(only_labels_of(data, split), split)
    scores = method.predict(without_labels(data))
    assert scores.shape == (data.num_nodes, 4)
    return method, answer_scores(scores[split.test], data.y[split.test])["accuracy"]


def kin_of(name, sources):
    """OFA has a binary answer at class nodes and too few classes here to learn what likeness is: it gets the words."""
    return [as_tag(planted(200, filler="t", **EASY))] if name == "OFAZeroShot" else sources


@pytest.mark.parametrize("name", HERE)
def test_text_and_structure_both_count(name, answered):
    _, whole = answered(name, "whole")
    assert whole > 0.38, "chance is .25"
    for part in ("text", "structure"):
        _, without = answered(name, part)
        if part in HERE[name].uses:
            assert whole - without >= 0.1, f"{part} shuffled: {whole:.3f} -> {without:.3f}"
        else:
            assert without == whole, f"{name} says that it does not use {part}"


@pytest.mark.parametrize("name", HERE)
def test_what_is_trained(name, answered):
    method, _ = answered(name, "whole")
    assert {key.split(".")[0] for key in method.trained} == TRAINED.get(name, set())
    for key, parameter in method.trained.items():
        assert parameter.requires_grad, key
        assert parameter.grad is not None, key


@pytest.mark.parametrize("name", [name for name in HERE if not issubclass(HERE[name], ZeroShot)])
def test_test_labels_do_not_matter(name, graphs):
    """Other labels on the test nodes, the same answers: they are hidden before a method sees the graph."""
    data = as_tag(graphs["usual"]["whole"])
    split = few_shot(data.y, 12, 0, val_shots=12)
    changed = as_tag(graphs["usual"]["whole"])
    changed.y = data.y.clone()
    changed.y[split.test] = (data.y[split.test] + 1) % 4
    small = SMALL.get(name, {}) | ({"epochs": 3} if "epochs" in SMALL.get(name, {}) else {})
    small |= {"steps": 10} if name == "OFA" else {}
    answers = []
    for graph in (data, changed):
        method = HERE[name](**{need: MODELS[need] for need in HERE[name].needs}, **small)
        answers.append(method.fit(only_labels_of(graph, split), split).predict(without_labels(graph)))
    assert torch.equal(*answers)


@pytest.mark.parametrize("name", [name for name in HERE if issubclass(HERE[name], ZeroShot)])
def test_a_target_without_labels_is_enough(name, graphs, sources):
    target = without_labels(as_tag(graphs["usual"]["whole"]))
    assert "y" not in target
    assert "train_mask" not in target
    small = SMALL.get(name, {}) | ({"steps": 2} if "steps" in SMALL.get(name, {}) else {})
    method = HERE[name](encoder=WordVectors(), **small).fit(kin_of(name, sources))
    assert torch.isfinite(method.predict(target)).all()
