"""InstructGLM: the prompt word by word, both losses in float64, and a language model that is given back as it was."""

import copy

import pytest
import torch
from planted import WordVectors, planted

pytest.importorskip("transformers", reason="the extra llm is not installed")

from graphfm.data.splits import Split
from graphfm.graphllm import tiny_llama
from graphfm.graphllm.backends.prompts import question
from graphfm.graphllm.predictors.instructglm import InstructGLM
from graphfm.graphllm.predictors.relations import chosen, pagerank, rings
from graphfm.graphllm.texts import adjacency, as_tag, only_labels_of, without_labels

SPLIT = Split(torch.arange(20), torch.arange(20, 30), torch.arange(30, 40))
SMALL = {"epochs": 2, "hidden": 16, "neighbours": 3, "rank": 2}


@pytest.fixture(scope="module")
def data():
    return as_tag(planted(0, nodes=40, degree=4))


@pytest.fixture(scope="module")
def lm(data):
    return tiny_llama(data.text, data.label_text, length=8, steps=20)


@pytest.fixture(scope="module")
def method(data, lm):
    return InstructGLM(WordVectors(), lm, **SMALL).fit(only_labels_of(data, SPLIT), SPLIT)


@pytest.fixture(scope="module")
def exact(method, lm):
    """The language model with ``W + (16 / r) B A`` written into its weights, in float64."""
    model = copy.deepcopy(lm.model).double()
    for name, parameter in model.named_parameters():
        if f"{name}/A" in method._learned:
            a, b = (method._learned[f"{name}/{part}"].double() for part in "AB")
            parameter.data += 8 * b @ a
    assert len(method._learned) == 2 * 4 * lm.num_layers
    return model


def token(method, data, node):
    at = {name: value.double() for name, value in method.modules["nodes"].state_dict().items()}
    inner = at["first.weight"] @ WordVectors().encode(data.text)[node].double()
    inner = torch.nn.functional.layer_norm(inner, inner.shape, at["norm.weight"], at["norm.bias"])
    return at["own.weight"][node] + at["second.weight"] @ torch.nn.functional.elu(inner)


def said(lm, model, text):
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    return list(model.get_input_embeddings()(torch.tensor(ids)))


@torch.no_grad()
def test_the_prompt_tells_rings_of_node_tokens_and_the_answer_is_the_likelihood_of_the_name(method, data, lm, exact):
    scores, adj = method.predict(without_labels(data)), adjacency(data)
    for node in (2, 33):
        root = torch.tensor([node])
        start = said(lm, exact, lm.tokenizer.bos_token)
        prompt = [*start, token(method, data, node), *said(lm, exact, data.text[node])]
        for ring, far in zip(rings(adj, root, 2), ("one hop,", "two hops,"), strict=True):
            ids = [each for each in chosen(ring, pagerank(adj, root, 0.15, 20), 3)[0].tolist() if each < 40]
            if ids:
                prompt += said(lm, exact, "is connected with") + [token(method, data, each) for each in ids]
                prompt += said(lm, exact, f"within {far}")
        prompt = torch.stack(prompt + said(lm, exact, question(data.label_text)))
        wanted = []
        for ids in lm.label_ids(data.label_text):
            whole = torch.cat([prompt, exact.get_input_embeddings()(torch.tensor(ids))])[None]
            told = exact(inputs_embeds=whole).logits[0].log_softmax(-1)
            wanted.append(sum(told[len(prompt) - 1 + at, each] for at, each in enumerate(ids)))
        torch.testing.assert_close(scores[node].double(), torch.stack(wanted).softmax(0), atol=1e-4, rtol=0)


@torch.no_grad()
def test_links_are_a_softmax_over_the_nodes_asked_for_less_other_neighbours(method, data, lm, exact):
    x, adj = WordVectors().encode(data.text), adjacency(data)
    with method.adapted():
        torch.manual_seed(5)
        found = method.beside(data, x)()
    torch.manual_seed(5)
    linked = torch.nonzero(adj.rowptr.diff()).flatten()
    roots = linked[torch.randperm(linked.numel())[: method.batch]]
    members = rings(adj, roots, 1)[0]
    drawn = chosen(members, torch.rand(members.shape), 4).tolist()
    candidates, losses = sorted({row[0] for row in drawn}), []
    for column, (root, row) in enumerate(zip(roots.tolist(), drawn, strict=True)):
        others = [token(method, data, each) for each in row[1:] if each < 40]
        prompt = [*said(lm, exact, lm.tokenizer.bos_token), token(method, data, root)]
        prompt += said(lm, exact, "is connected with") + others
        prompt += said(lm, exact, "within one hop. Which other node is it?")
        last = exact.model(inputs_embeds=torch.stack(prompt)[None]).last_hidden_state[0, -1]
        left = [each for each in candidates if each == row[0] or not members[each, column]]
        logits = torch.stack([last @ token(method, data, each) for each in left])
        losses.append(-logits.log_softmax(0)[left.index(row[0])])
    torch.testing.assert_close(found.double(), method.links * torch.stack(losses).mean(), atol=1e-3, rtol=1e-4)


def test_the_language_model_is_given_back_as_it_was(method, data, lm):
    before = {key: value.clone() for key, value in lm.model.state_dict().items()}
    plain = lm.score(["apple"], data.label_text)
    answers = method.predict(data)
    with pytest.raises(RuntimeError, match="in between"), method.adapted():
        assert not torch.equal(lm.score(["apple"], data.label_text), plain)
        raise RuntimeError("in between")
    assert torch.equal(lm.score(["apple"], data.label_text), plain)
    assert lm.model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in lm.model.state_dict().items())
    assert all(parameter.requires_grad for parameter in lm.model.parameters())
    assert torch.equal(method.predict(data), answers)


def test_a_graph_without_edges_has_no_links(data, lm):
    bare = data.clone()
    bare.edge_index = torch.zeros(2, 0, dtype=torch.long)
    assert InstructGLM(WordVectors(), lm, **SMALL).fit(bare, SPLIT).predict(bare).isfinite().all()


def test_bad_input(lm):
    with pytest.raises(ValueError, match=r"hops must lie in \[1, 3\]"):
        InstructGLM(WordVectors(), lm, hops=4)
    with pytest.raises(ValueError, match="links at least 0"):
        InstructGLM(WordVectors(), lm, links=-1.0)


def test_another_graph_is_refused(method):
    with pytest.raises(ValueError, match="data has 50 nodes, it was fitted on 40"):
        method.predict(as_tag(planted(0, nodes=50, degree=4)))
