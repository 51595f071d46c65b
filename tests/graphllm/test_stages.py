"""A first stage that is gone through once for all settings after it: the same bits, and only where nothing differs."""

import pytest
import torch
from planted import WordVectors, planted

pytest.importorskip("transformers", reason="the extra llm is not installed")

from graphfm.data.splits import Split
from graphfm.graphllm import tiny_llama
from graphfm.graphllm.choose import choose
from graphfm.graphllm.predictors.graphadapter import GraphAdapter
from graphfm.graphllm.predictors.graphgpt import GraphGPT
from graphfm.graphllm.texts import as_tag, only_labels_of

SPLIT = Split(torch.arange(20), torch.arange(20, 30), torch.arange(30, 40))
DATA = as_tag(planted(0, nodes=40, degree=4))
ENCODER = WordVectors()
COUNTED = {GraphAdapter: "_foretell", GraphGPT: "matched"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHFM_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def lm():
    return tiny_llama(DATA.text, DATA.label_text, length=8, steps=20)


def make(kind, lm, **settings):
    if kind is GraphAdapter:
        return GraphAdapter(lm, **{"rounds": 1, "epochs": 3, "hidden": 16, "dropout": 0.3} | settings)
    small = {"epochs": 2, "hidden": 16, "neighbours": 2, "grounding": 2, "title": 3}
    return GraphGPT(ENCODER, lm, **small | settings)


def counting(kind, monkeypatch):
    times, inner = [], getattr(kind, COUNTED[kind])
    monkeypatch.setattr(kind, COUNTED[kind], lambda self, *given: (times.append(1), inner(self, *given))[1])
    return times


@pytest.mark.parametrize("kind", [GraphAdapter, GraphGPT])
def test_what_goes_on_is_what_would_have_come_by_itself(kind, lm, monkeypatch):
    data, times = only_labels_of(DATA, SPLIT), counting(kind, monkeypatch)
    fitted = []

    def one(setting):
        fitted.append(make(kind, lm, **setting))
        return fitted[-1]

    choose(one, [{"lr": lr} for lr in (1e-3, 2e-2, 5e-2)], data, SPLIT)
    assert len(times) == 1
    for method in fitted:
        alone = make(kind, lm, lr=method.lr).fit(data, SPLIT)
        assert torch.equal(alone.predict(DATA), method.predict(DATA))
        assert {key: value.tolist() for key, value in alone.trained.items()} == {
            key: value.tolist() for key, value in method.trained.items()
        }
    assert not torch.equal(fitted[0].predict(DATA), fitted[1].predict(DATA))


@pytest.mark.parametrize("kind", [GraphAdapter, GraphGPT])
def test_nothing_is_taken_from_what_differs(kind, lm, monkeypatch):
    data, times = only_labels_of(DATA, SPLIT), counting(kind, monkeypatch)
    first = make(kind, lm).fit(data, SPLIT)
    other_lm = tiny_llama(DATA.text, DATA.label_text, length=8, steps=0)
    for other in (make(kind, lm, hidden=8), make(kind, lm, seed=1), make(kind, other_lm)):
        other.go_on_from(first)
        other.fit(data, SPLIT)
    assert len(times) == 4
    again = make(kind, lm)
    again.go_on_from(first)
    again.fit(data, SPLIT)
    assert len(times) == 4
    again.fit(data, SPLIT)  # perhaps on another graph
    assert len(times) == 5
    again.go_on_from(object())
    again.fit(data, SPLIT)
    assert len(times) == 6
