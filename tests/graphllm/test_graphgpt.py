"""GraphGPT: grounding by hand, matching token by token in float64, and answers from projected nodes."""

import copy

import pytest
import torch
from planted import WordVectors, planted

pytest.importorskip("transformers", reason="the extra llm is not installed")

from graphfm.data.splits import Split
from graphfm.graphllm import tiny_llama
from graphfm.graphllm.predictors.graphgpt import GraphGPT, Grounding
from graphfm.graphllm.predictors.relations import chosen, rings
from graphfm.graphllm.texts import adjacency, as_tag, only_labels_of

SPLIT = Split(torch.arange(20), torch.arange(20, 30), torch.arange(30, 40))
SMALL = {"epochs": 2, "hidden": 16, "neighbours": 2, "grounding": 2, "title": 3}


@pytest.fixture(scope="module")
def data():
    return as_tag(planted(0, nodes=40, degree=4))


@pytest.fixture(scope="module")
def lm(data):
    return tiny_llama(data.text, data.label_text, length=8, steps=20)


@pytest.fixture(scope="module")
def method(data, lm):
    return GraphGPT(WordVectors(), lm, **SMALL).fit(only_labels_of(data, SPLIT), SPLIT)


@torch.no_grad()
def test_grounding_is_three_contrasts(data):
    torch.manual_seed(0)
    x, adj = WordVectors().encode(data.text).double(), adjacency(data)
    module = Grounding(24, 6).double()
    nodes = [4, 9, 30]
    dense = torch.zeros(40, 40, dtype=torch.float64)
    dense[data.edge_index[1], data.edge_index[0]] = 1
    hat = dense + torch.eye(40, dtype=torch.float64)
    hat = hat.sum(1).rsqrt()[:, None] * hat * hat.sum(1).rsqrt()
    first, second = module.graph.convs
    h = hat @ (hat @ x @ first.lin.weight.t() + first.bias).relu() @ second.lin.weight.t() + second.bias
    t = x @ module.text.weight.t() + module.text.bias
    around = torch.stack([t[dense[node] > 0].mean(0) for node in range(40)])

    def contrast(one, other):
        total = 0.0
        for rows, columns in ((one, other), (other, one)):
            for node in nodes:
                cosines = [torch.cosine_similarity(rows[node], columns[each], dim=0) / 0.07 for each in nodes]
                total -= torch.stack(cosines).log_softmax(0)[nodes.index(node)] / len(nodes)
        return total / 2

    wanted = contrast(h, t) + 10 * contrast(h, around) + 10 * contrast(t, around)
    torch.testing.assert_close(module(x, adj, torch.tensor(nodes)), wanted)


@torch.no_grad()
def test_matching_is_the_loss_of_the_texts_in_the_order_of_the_tokens(method, data, lm):
    x, adj = WordVectors().encode(data.text), adjacency(data)
    roots = torch.tensor([1, 17, 25])
    torch.manual_seed(3)
    found = method.matched(data, x)(roots)
    torch.manual_seed(3)
    members = rings(adj, roots, 2)
    order = torch.rand(members[0].shape)
    ids = torch.cat([roots[:, None], *[chosen(each, order, 2) for each in members]], dim=1)
    mixed = ids.gather(1, torch.rand(ids.shape).argsort(1))
    model = copy.deepcopy(lm.model).double()
    rows = torch.nn.functional.normalize(method.grounded.graph(x, adj), dim=1).double() * 4
    project = copy.deepcopy(method.modules["projector"]).double()

    def said(text):
        return lm.tokenizer(text, add_special_tokens=False)["input_ids"]

    def titles(nodes):
        return [token for node in nodes for token in said(f"{data.text[node]} ;")]

    losses = []
    for there, shuffled in zip(ids.tolist(), mixed.tolist(), strict=True):
        there, shuffled = ([node for node in nodes if node < 40] for nodes in (there, shuffled))
        assert sorted(there) == sorted(shuffled)
        asked = said("Which text is of which node?") + titles(shuffled) + said("Answer:")
        answer = titles(there)
        embed = model.get_input_embeddings()
        parts = [embed(torch.tensor([lm.tokenizer.bos_token_id])), project(rows[there]), embed(torch.tensor(asked))]
        whole = torch.cat([*parts, embed(torch.tensor(answer))])
        told = model(inputs_embeds=whole[None]).logits[0].log_softmax(-1)
        losses += [-told[len(whole) - len(answer) - 1 + at, token] for at, token in enumerate(answer)]
    torch.testing.assert_close(found.double(), torch.stack(losses).mean(), atol=1e-4, rtol=0)


def test_only_the_projector_is_trained_after_grounding(method, data, lm):
    """Grounding never sees a label, and neither does matching."""
    assert {name.split(".")[0] for name in method.trained} == {"grounding", "projector"}
    other = only_labels_of(data, SPLIT)
    other.y = torch.where(other.y < 0, other.y, (other.y + 1) % 4)
    again = GraphGPT(WordVectors(), lm, **SMALL).fit(other, SPLIT)
    for one, two in zip(method.grounded.parameters(), again.grounded.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(method.modules["projector"].weight, again.modules["projector"].weight)


def test_grounding_and_matching_get_better(data, lm):
    x, adj = WordVectors().encode(data.text), adjacency(data)
    grounded, matched = [], []
    for passes in (0, 10):
        settings = SMALL | {"grounding": passes, "matching": passes, "epochs": 1}
        method = GraphGPT(WordVectors(), lm, lr=0.0, **settings).fit(data, SPLIT)
        with torch.no_grad():
            grounded.append(float(method.grounded(x, adj, torch.arange(40))))
            torch.manual_seed(0)
            matched.append(float(method.matched(data, x)(torch.arange(40))))
    assert grounded[1] < grounded[0] - 1
    assert matched[1] < matched[0] - 0.05


def test_a_graph_without_edges(data, lm):
    bare = data.clone()
    bare.edge_index = torch.zeros(2, 0, dtype=torch.long)
    assert GraphGPT(WordVectors(), lm, **SMALL).fit(bare, SPLIT).predict(bare).isfinite().all()


def test_bad_input(lm):
    with pytest.raises(ValueError, match="grounding and matching at least 0"):
        GraphGPT(WordVectors(), lm, matching=-1)
