"""TAPE: answers once a question, ranked guesses by hand, averaged logits, text and structure both count."""

import time

import pytest
import torch
from planted import WordVectors, edges_shuffled, planted, texts_shuffled

from graphfm.data.splits import few_shot
from graphfm.graphllm import Setup, Stock, run
from graphfm.graphllm.backends.base import Answer, Usage
from graphfm.graphllm.backends.ledger import Ledger
from graphfm.graphllm.enhancers.tape import TAPE, LocalTAPE, ranked_features, ranked_labels
from graphfm.graphllm.protocol import answer_scores
from graphfm.graphllm.texts import adjacency, as_tag, only_labels_of, without_labels

SMALL = {"epochs": 50, "hidden": 32}


class Reader:
    """Says the first word of what it is asked as its guess; counts how often it is asked."""

    name = "reader"

    def __init__(self):
        self.asked = 0

    def complete(self, messages, *, max_tokens=256, temperature=0.0):
        self.asked += 1
        return Answer(self.say(messages[0]["content"]), Usage(3, 1, 0.0, 1))

    def generate(self, prompts, max_new_tokens=32):
        self.asked += len(prompts)
        return [self.say(prompt) for prompt in prompts]

    def say(self, prompt):
        word = prompt.split()[0]
        return f"{word}, because the text speaks of {word}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHFM_CACHE", str(tmp_path))


def fitted(data, kind=TAPE):
    split = few_shot(data.y, 12, 0, val_shots=8)
    method = kind(Reader(), WordVectors(), **SMALL).fit(only_labels_of(data, split), split)
    scores = method.predict(without_labels(data))
    return method, scores, answer_scores(scores[split.test], data.y[split.test])["accuracy"]


def test_text_and_structure_both_count():
    data = as_tag(planted(0))
    method, _, whole = fitted(data)
    assert {key.split(".")[0] for key in method.trained} == {"orig", "expl", "pred"}
    assert all(parameter.grad is not None for parameter in method.trained.values())
    assert whole - fitted(as_tag(edges_shuffled(data)))[2] >= 0.1
    assert whole - fitted(as_tag(texts_shuffled(data)))[2] >= 0.1


def test_logits_of_three_networks_are_averaged_and_the_local_kind_is_the_same():
    data = as_tag(planted(0, nodes=120))
    method, scores, _ = fitted(data)
    text = WordVectors().encode(data.text)
    explained = WordVectors().encode([Reader().say(one) for one in data.text])
    guess = torch.zeros(120, 20)
    guess[range(120), [data.label_text.index(one.split()[0]) for one in data.text]] = 1
    adj = adjacency(data)
    with torch.no_grad():
        slow = sum(method.networks[name](x, adj) for name, x in [("orig", text), ("expl", explained), ("pred", guess)])
    torch.testing.assert_close(scores, (slow / 3).softmax(1))
    torch.testing.assert_close(fitted(data, LocalTAPE)[1], scores)


def test_a_question_is_asked_once_for_all_runs():
    data = as_tag(planted(0, nodes=60))
    first, _, _ = fitted(data)
    assert first.model.asked == len(set(data.text))
    again, _, _ = fitted(data)
    assert again.model.asked == 0
    asked = len(set(data.text))
    assert first.usage == again.usage == Usage(3 * asked, asked, 0.0, asked), "what it once cost, not what is paid now"


def test_an_answer_is_counted_once_for_all_settings_that_are_tried(tmp_path):
    data = planted(0, nodes=60)
    stock, asked = Stock(encoder=WordVectors(), chat=Reader()), len(set(data.text))
    for grid in ("one", "small"):
        (cell,) = run([data], [TAPE], stock=stock, out=tmp_path / grid, setup=Setup(grid=grid), seeds=[0])
        assert cell.metrics["prompt_tokens"] == 3 * asked, grid


def test_answers_are_kept_as_they_come(monkeypatch):
    """And a text that is no Unicode is asked like others."""
    data = as_tag(planted(0, nodes=200))
    data.text = [f"{text} number {i}" for i, text in enumerate(data.text)]
    data.text[3] = "fig \ud800"

    class Stops(Reader):
        def generate(self, prompts, max_new_tokens=32):
            if self.asked >= 128:
                raise KeyboardInterrupt
            return super().generate(prompts, max_new_tokens)

    with pytest.raises(KeyboardInterrupt):
        LocalTAPE(Stops(), WordVectors()).answers(data)
    rest = LocalTAPE(Reader(), WordVectors())
    assert len(rest.answers(data)) == 200
    assert rest.model.asked == 200 - 128


def test_time_on_answers_is_told_by_the_ledger():
    data = as_tag(planted(0, nodes=30))

    class Slow(Reader):
        def __init__(self):
            super().__init__()
            self.ledger = Ledger()

        def generate(self, prompts, max_new_tokens=32):
            time.sleep(0.05)
            return super().generate(prompts, max_new_tokens)

    first, again = (LocalTAPE(Slow(), WordVectors()) for _ in range(2))
    first.answers(data)
    first.answers(data)
    again.answers(data)
    assert first.model.ledger.paid >= 0.05
    assert again.model.ledger.paid == 0
    assert again.model.ledger.seconds == pytest.approx(first.model.ledger.seconds)
    assert first.model.ledger.seconds == pytest.approx(first.model.ledger.paid)


def test_ranked_guesses():
    labels = ["Networks", "Networks and Systems", "Theory"]
    assert ranked_labels("Theory, Networks_and_Systems, networks; theory again", labels, 5) == [2, 1, 0]
    assert ranked_labels("Theory, Networks", labels, 1) == [2]
    assert ranked_labels("none of them", labels, 5) == []
    wanted = [[0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert ranked_features([[2, 1], [], [0]], 3, 2).tolist() == wanted


def test_bad_input():
    with pytest.raises(ValueError, match="ranks, characters and max_tokens"):
        TAPE(Reader(), WordVectors(), ranks=0)
