"""GraphText: the tree by hand, what a reader makes of it, and the tuned form against a slow version in float64."""

import copy
import re

import pytest
import torch
from planted import WordVectors, edges_shuffled, planted, texts_shuffled

from graphfm.data.splits import Split, few_shot
from graphfm.graphllm.backends.base import Answer, Usage
from graphfm.graphllm.backends.prompts import question
from graphfm.graphllm.predictors.graphtext import GraphText, known_labels, tree
from graphfm.graphllm.predictors.graphtext_tuned import GraphTextTuned
from graphfm.graphllm.predictors.relations import relations
from graphfm.graphllm.protocol import answer_scores
from graphfm.graphllm.texts import adjacency, as_tag, only_labels_of, without_labels


class Counter:
    """Answers with the class that the last tree names most often, its own text counting three times."""

    name = "counter"

    def __init__(self):
        self.asked = []

    def complete(self, messages, *, max_tokens=256, temperature=0.0):
        prompt = messages[0]["content"]
        self.asked.append(prompt)
        last = prompt[prompt.rindex("<graph>") :]
        told, classes = last.split("Question: the classes are ")[0], ["apple", "brick", "cloud", "drum"]
        own = re.search("<self>(.*?)</self>", told).group(1)
        return Answer(max(classes, key=lambda c: told.count(c) + 2 * own.count(c)), Usage(2, 1, 0.0, 1))


def test_a_tree_is_written_depth_first_without_empty_branches():
    found = tree("me", [["a", "b"], [""], []], [["", "x"], [], ["y"]])
    wanted = (
        "<graph> <text> <self> me </self> <hop1> a ; b </hop1> </text> "
        "<label> <hop1> x </hop1> <near> y </near> </label> </graph> "
    )
    assert found == wanted
    assert tree("", [[""], [], []], [[], [], []]) == ""


def asked_of(data, split, **settings):
    method = GraphText(Counter(), **settings).fit(only_labels_of(data, split), split)
    scores = method.predict(without_labels(data))
    return method, scores, answer_scores(scores[split.test], data.y[split.test])["accuracy"]


def test_in_context_text_and_structure_both_count():
    data = as_tag(planted(0))
    split = few_shot(data.y, 12, 0, val_shots=8)
    method, scores, whole = asked_of(data, split)
    assert method.trained == {}
    assert method.usage.requests == len(set(method.chat.asked))
    assert scores.sum(1).tolist() == [1.0] * 900
    assert whole > 0.5, "chance is .25"
    assert whole - asked_of(as_tag(edges_shuffled(data)), split)[2] >= 0.1
    assert whole - asked_of(as_tag(texts_shuffled(data)), split)[2] >= 0.1


def test_a_prompt_tells_labels_of_training_nodes_and_never_its_own():
    """The line 0 - 1 - 2 - 3 with the labels of 0 and 2."""
    data = planted(0, nodes=4, degree=2)
    data.text, data.edge_index = ["t0", "t1 long", "t2", "t3"], torch.tensor([[0, 1, 2, 1, 2, 3], [1, 2, 3, 0, 1, 2]])
    data.y = torch.tensor([0, 1, 2, 3])
    split = Split(torch.tensor([0, 2]), torch.tensor([1]), torch.tensor([3]))
    method = GraphText(Counter(), demonstrations=1, neighbours=2, neighbour_characters=2).fit(data, split)
    first = tree("t1 long", [["t2", "t0"], ["t3"], ["t2", "t0"]], [["cloud", "apple"], [""], ["cloud", "apple"]])
    prompt = method.prompts(data)[1]
    assert first in prompt
    shown, label = (("t0", "apple"), ("t2", "cloud"))[int(method.shown[0]) == 2]
    assert prompt.startswith(f"<graph> <text> <self> {shown} </self>")
    assert f"{question(data.label_text)} {label}\n" in prompt
    own = method.prompts(data)[0].split("\n\n")[-1]
    assert "apple" not in own.split("Question")[0], "the label of node 0 itself"
    assert known_labels(data, split).tolist() == [0, -1, 2, -1]


def test_an_answer_without_a_class_is_unknown():
    class Silent(Counter):
        def complete(self, messages, *, max_tokens=256, temperature=0.0):
            return Answer("who knows", Usage())

    data = as_tag(planted(0, nodes=20))
    split = Split(torch.arange(4), torch.arange(4, 8), torch.arange(8, 20))
    method = GraphText(Silent()).fit(data, split)
    assert method.predict(data).isnan().all()
    with pytest.raises(ValueError, match="data has 24 nodes, it was fitted on 20"):
        method.predict(as_tag(planted(0, nodes=24)))


@pytest.fixture(scope="module")
def lm():
    pytest.importorskip("transformers", reason="the extra llm is not installed")
    from graphfm.graphllm import tiny_llama

    graph = planted(0, nodes=60)
    return tiny_llama(graph.text, graph.label_text, length=8, steps=20)


def test_the_tuned_answer_is_the_softmax_over_class_tokens_at_the_end_of_the_tree(lm):
    data = as_tag(planted(0, nodes=60))
    split = Split(torch.arange(30), torch.arange(30, 40), torch.arange(40, 60))
    method = GraphTextTuned(WordVectors(), lm, epochs=2, neighbours=3).fit(only_labels_of(data, split), split)
    scores = method.predict(without_labels(data))
    for node in (3, 45):
        torch.testing.assert_close(scores[node].double(), slow_answer(method, lm, data, node), atol=1e-4, rtol=0)


def slow_answer(method, lm, data, node):
    """One node, one token after the other, in float64."""
    model = copy.deepcopy(lm.model).double()
    table = {name: module.state_dict() for name, module in method.modules.items()}
    tags, classes, answers = (table[name]["weight"].double() for name in ("tags", "classes", "answers"))
    names = ["graph", "feature", "label", "x", "a1x", "a2x", "hop1", "hop2", "near"]
    dense = torch.eye(data.num_nodes, dtype=torch.float64)
    dense[data.edge_index[0], data.edge_index[1]] = 1
    s = dense.sum(1).rsqrt()[:, None] * dense * dense.sum(1).rsqrt()
    rows = [torch.linalg.matrix_power(s, k)[node] @ WordVectors().encode(data.text).double() for k in range(3)]

    def word(ids):
        return list(model.get_input_embeddings()(torch.tensor(ids)))

    def tagged(name, inside):
        at = 2 * names.index(name)
        return [tags[at], *inside, tags[at + 1]] if inside else []

    def token(k):
        norm = torch.nn.functional.layer_norm
        first, weight = (table["encoders"][f"{k}.{part}"].double() for part in ("0.weight", "2.weight"))
        read = norm(rows[k], rows[k].shape) * first + table["encoders"][f"{k}.0.bias"]
        out = weight @ read + table["encoders"][f"{k}.2.bias"]
        return norm(out, out.shape) * table["encoders"][f"{k}.3.weight"] + table["encoders"][f"{k}.3.bias"]

    around = relations(adjacency(data), torch.tensor([node]), 3)
    told = [[method.known[n] for n in ids[0].tolist() if n < 60 and method.known[n] >= 0] for ids in around]
    labels = [
        each for name, ids in zip(names[6:], told, strict=True) for each in tagged(name, [classes[c] for c in ids])
    ]
    features = [each for k, name in enumerate(names[3:6]) for each in tagged(name, [token(k)])]
    inside = tagged("graph", tagged("feature", features) + tagged("label", labels))
    asked = lm.tokenizer(question(data.label_text), add_special_tokens=False)["input_ids"]
    whole = torch.stack([*word([lm.tokenizer.bos_token_id]), *inside, *word(asked)])[None]
    last = model.model(inputs_embeds=whole).last_hidden_state[0, -1]
    return (answers @ last).softmax(0)


def test_the_tuned_form_trains_only_its_tokens(lm):
    data = as_tag(planted(0, nodes=60))
    split = Split(torch.arange(30), torch.arange(30, 40), torch.arange(40, 60))
    before = {key: value.clone() for key, value in lm.model.state_dict().items()}
    method = GraphTextTuned(WordVectors(), lm, epochs=1).fit(only_labels_of(data, split), split)
    assert {name.split(".")[0] for name in method.trained} == {"tags", "classes", "answers", "encoders"}
    assert all(torch.equal(value, before[key]) for key, value in lm.model.state_dict().items())


def test_bad_input(lm):
    with pytest.raises(ValueError, match="demonstrations at least 0"):
        GraphText(Counter(), demonstrations=-1)
    with pytest.raises(ValueError, match="neighbours must be at least 1"):
        GraphTextTuned(WordVectors(), lm, neighbours=0)
    with pytest.raises(ValueError, match="epochs and batch must be at least 1"):
        GraphTextTuned(WordVectors(), lm, epochs=0)
