"""GraphAdapter: what is foretold, token by token in float64; what is trained; nothing of texts without words."""

import copy
import math

import pytest
import torch
from planted import planted

pytest.importorskip("transformers", reason="the extra llm is not installed")

from graphfm.data.splits import Split
from graphfm.graphllm import tiny_llama
from graphfm.graphllm.backends.prompts import question
from graphfm.graphllm.predictors.graphadapter import GraphAdapter, foretold
from graphfm.graphllm.texts import adjacency, as_tag
from graphfm.nn.adjacency import neighbours

SPLIT = Split(torch.arange(20), torch.arange(20, 30), torch.arange(30, 40))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHFM_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def data():
    found = as_tag(planted(0, nodes=40))
    found.text = [f"{text} apple of {text}" for text in found.text]
    found.text[7] = ""
    return found


@pytest.fixture(scope="module")
def lm(data):
    return tiny_llama(data.text, data.label_text, length=8, steps=20)


@pytest.fixture(scope="module")
def method(data, lm, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHFM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return GraphAdapter(lm, rounds=1, epochs=2, hidden=16).fit(data, SPLIT)


def slow_fusion(adapter, x, data, node, state):
    """``W_2 silu(W_1 [W_g z_v, W_t h])`` for one token, in float64; ``z`` by loops over neighbours."""
    at = {key: value.double() for key, value in adapter.state_dict().items()}
    friends = [set() for _ in range(data.num_nodes)]
    for source, target in data.edge_index.t().tolist():
        friends[target].add(source)

    def layer(k, rows):
        left, bias, right = (at[f"graph.convs.{k}.{name}"] for name in ("lin_l.weight", "lin_l.bias", "lin_r.weight"))
        means = [sum(rows[j] for j in near) / len(near) if near else torch.zeros_like(rows[0]) for near in friends]
        return [left @ mean + bias + right @ row for mean, row in zip(means, rows, strict=True)]

    wide = torch.nn.functional.silu(x.double() @ at["widen.weight"].t()) @ at["shrink.weight"].t()
    read = [at["norm.weight"] * row / (row.square().mean() + torch.finfo(torch.float32).eps).sqrt() for row in wide]
    z = layer(1, [row.relu() for row in layer(0, read)])[node]
    both = torch.cat([at["from_graph.weight"] @ z, at["from_token.weight"] @ state])
    return at, at["narrow.weight"] @ torch.nn.functional.silu(at["mix.weight"] @ both)


@torch.no_grad()
def test_the_loss_is_that_of_the_mean_of_both_distributions_of_the_next_token(method, data, lm):
    x, _, adj = method.states(data)
    told = foretold(lm, data.text, 16)
    nodes = torch.tensor([3, 12])
    rows, owner = neighbours(told.ptr, nodes)
    found = method.loss(told, rows, nodes[owner], x, adj)
    model, wanted = copy.deepcopy(lm.model).double(), 0.0
    for node in nodes.tolist():
        ids = lm.tokenizer(data.text[node])["input_ids"]
        states = model.model(torch.tensor([ids])).last_hidden_state[0]
        follows = ids[1:]
        shares = [1 / follows.count(token) for token in follows]
        for state, token, share in zip(states[:-1], follows, shares, strict=True):
            at, fused = slow_fusion(method.adapter, x, data, node, state)
            own, learned = (model.lm_head(h).softmax(0)[token] for h in (state, at["extend.weight"] @ fused))
            wanted -= share / sum(shares) * math.log(own / 2 + learned / 2) / 2
    assert float(found) == pytest.approx(wanted, abs=2e-3), "states are kept in half precision"


@torch.no_grad()
def test_the_answer_is_a_linear_map_of_the_fusion_with_the_last_state_of_the_question(method, data, lm):
    node = 31
    x = method.states(data)[0]
    ids = lm.tokenizer(f"{data.text[node]} {question(data.label_text)}")["input_ids"]
    last = copy.deepcopy(lm.model).double().model(torch.tensor([ids])).last_hidden_state[0, -1]
    at, fused = slow_fusion(method.adapter, x, data, node, last)
    wanted = (at["answer.weight"] @ fused + at["answer.bias"]).softmax(0)
    torch.testing.assert_close(method.predict(data)[node].double(), wanted, atol=1e-4, rtol=0)


def test_the_first_stage_trains_the_fusion_and_the_second_the_answer(method, data, lm):
    assert {name.split(".")[1] for name in method.trained} == {
        "widen", "shrink", "norm", "graph", "from_graph", "from_token", "mix", "narrow", "extend", "answer",
    }  # fmt: skip
    without = GraphAdapter(lm, rounds=0, epochs=2, hidden=16).fit(data, SPLIT).adapter
    start = torch.nn.Module.state_dict(without)["extend.weight"]
    assert not torch.equal(method.adapter.extend.weight, start), "only foretelling reaches it"


def test_foretelling_gets_better(data, lm):
    told, losses = foretold(lm, data.text, 16), []
    for rounds in (1, 30):
        method = GraphAdapter(lm, rounds=rounds, epochs=1, hidden=16, foretelling_lr=5e-3).fit(data, SPLIT)
        x, _, adj = method.states(data)
        rows, owner = neighbours(told.ptr, torch.arange(40))
        losses.append(float(method.loss(told, rows, owner, x, adj).detach()))
    alone = -float((told.weight * told.known).sum() / told.weight.sum())
    assert losses[1] < min(losses[0], alone - 0.1)


def test_texts_without_words_foretell_nothing(lm):
    told = foretold(lm, ["", "apple of apple", " "], 2)
    assert told.ptr.tolist() == [0, 0, 3, 3]
    assert told.weight.tolist() == [0.25, 0.5, 0.25]
    assert foretold(lm, [], 2).ptr.tolist() == [0]
    assert foretold(lm, ["", ""], 2).state.shape == (0, lm.dim)


def test_positions_bound_a_step_and_the_graph_may_have_no_edges(data, lm):
    bare = data.clone()
    bare.edge_index = torch.zeros(2, 0, dtype=torch.long)
    scores = GraphAdapter(lm, rounds=1, epochs=1, hidden=16, positions=5).fit(bare, SPLIT).predict(bare)
    assert scores.isfinite().all()
    assert adjacency(bare).num_edges == 0


def test_bad_input(lm):
    with pytest.raises(ValueError, match="rounds at least 0"):
        GraphAdapter(lm, rounds=-1)
