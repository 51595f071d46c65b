"""Zero-shot language models: likelihoods against the slow way, answers read as a label or as UNKNOWN."""

import collections

import pytest
import torch
from planted import edges_shuffled, planted, texts_shuffled
from torch_geometric.data import Data

from graphfm.graphllm.backends.base import Answer, Usage
from graphfm.graphllm.protocol import answer_scores
from graphfm.graphllm.texts import adjacency, without_labels
from graphfm.graphllm.zeroshot import ChatZeroShot, LMZeroShot, NeighbourChatZeroShot, NeighbourLMZeroShot
from graphfm.graphllm.zeroshot.language_model import drawn_neighbours, parse_label

TOPICS = {
    "football": [
        "The striker scored twice before the final whistle.",
        "The referee showed a red card after the tackle.",
    ],
    "cooking": ["Chop the onions, fry them in butter and add the cream.", "A recipe for apple pie with cinnamon."],
    "astronomy": ["Galaxies drift apart as the universe expands.", "The comet passes near the sun every 76 years."],
    "medicine": ["The patient was given antibiotics.", "High blood pressure can damage the kidneys."],
}
LABELS = ["Networks", "Networks and Systems", "Machine_Learning"]


def texts_told(prompt):
    """The words of all texts in a prompt, without the list of classes before and what is asked after them."""
    return " ".join(prompt.split("\n")[1:-1]).replace("Neighbour: ", "").replace("Text: ", "").split()


class Votes:
    """A chat model that names the word of a class that stands most often in the texts."""

    name = "votes"

    def __init__(self, classes):
        self.classes, self.asked = classes, []

    def complete(self, messages, *, max_tokens=256, temperature=0.0):
        told = messages[0]["content"]
        self.asked.append(told)
        words = collections.Counter(texts_told(told))
        best = max(self.classes, key=lambda word: (words[word], word))
        return Answer(f"It is {best.upper()}." if words[best] else "No idea.", Usage(5, 2, 0.5, 1))


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("networks", 0),
        ("The class is: Networks and Systems.", 1),
        ("machine  learning!", 2),
        ("MACHINE_LEARNING", 2),
        ("Networks or Machine Learning", None),
        ("Networks, not Networks and Systems", None),
        ("Subnetworks", None),
        ("", None),
        ("<html>502</html>", None),
    ],
)
def test_an_answer_is_one_label_or_unknown(answer, label):
    assert parse_label(answer, LABELS) == label


def test_neighbours_are_drawn_once_each_and_all_where_there_are_few():
    data = planted(0, nodes=80)
    adj = adjacency(data)
    sizes = set()
    for node, drawn in enumerate(drawn_neighbours(data, 4, 0)):
        friends = set(adj.col[adj.rowptr[node] : adj.rowptr[node + 1]].tolist())
        assert len(set(drawn)) == len(drawn) == min(4, len(friends))
        assert set(drawn) <= friends
        sizes.add(len(friends))
    assert max(sizes) > 4
    assert drawn_neighbours(data, 4, 0) != drawn_neighbours(data, 4, 1)


def test_a_chat_is_scored_by_its_words_and_neighbours_help():
    data = planted(0, clear=0.6, degree=16, homophily=0.9)
    target = without_labels(data)
    plain = ChatZeroShot(Votes(data.label_text))
    accuracy = answer_scores(plain.fit().predict(target), data.y)["accuracy"]
    said = torch.tensor([data.label_text.index(text.split()[0]) for text in data.text])
    assert accuracy == pytest.approx(float((said == data.y).double().mean()))
    around = NeighbourChatZeroShot(Votes(data.label_text)).fit().predict(target)
    assert answer_scores(around, data.y)["accuracy"] > accuracy + 0.1
    assert plain.trained == {}


class Counts:
    """A causal model that finds a class name likelier the more often it stands in the texts."""

    def score(self, prompts, labels):
        words = [collections.Counter(texts_told(prompt)) for prompt in prompts]
        return torch.tensor([[float(told[label]) for label in labels] for told in words])


@pytest.mark.parametrize("kind", [LMZeroShot, NeighbourLMZeroShot, ChatZeroShot, NeighbourChatZeroShot])
def test_shuffled_texts_cost_and_shuffled_edges_cost_those_who_read_them(kind):
    """No model is at fault here: what a good reader could know from the prompt is lost, or it is not."""
    whole = planted(0, clear=0.6, degree=16, homophily=0.9)

    def accuracy(data):
        method = kind(Votes(data.label_text) if "chat" in kind.needs else Counts())
        scores = method.fit().predict(without_labels(data))
        assert method.trained == {}
        return answer_scores(scores, data.y)["accuracy"]

    found = accuracy(whole)
    assert found - accuracy(texts_shuffled(whole)) >= 0.1
    lost = found - accuracy(edges_shuffled(whole))
    assert lost >= 0.1 if "structure" in kind.uses else lost == 0


def test_unknown_answers_are_rows_of_nan_and_equal_questions_are_asked_once():
    data = planted(0, nodes=8)
    data.text = ["apple", "brick", "apple", "nothing", "", "drum", "cloud", "nothing"]
    chat = Votes(data.label_text)
    method = ChatZeroShot(chat)
    scores = method.predict(without_labels(data))
    assert scores.isnan().all(1).tolist() == [False, False, False, True, True, False, False, True]
    assert scores[0].tolist() == [1, 0, 0, 0]
    assert len(chat.asked) == len(set(chat.asked)) == 6
    assert method.usage == Usage(30, 12, 3.0, 6)
    assert answer_scores(scores, data.y)["unknown_rate"] == 3 / 8


def one_name_at_a_time(lm, prompt, labels):
    """Probabilities of ``labels`` among themselves after ``prompt``, a whole pass for each, float64."""
    start, each = lm.tokenizer(prompt)["input_ids"], []
    for label in lm.label_ids(labels):
        logits = lm.model(input_ids=torch.tensor([start + label])).logits[0].double().log_softmax(-1)
        each.append(logits[range(len(start) - 1, len(start) + len(label) - 1), label].sum())
    return torch.stack(each).softmax(0).detach()


@pytest.mark.parametrize("kind", [LMZeroShot, NeighbourLMZeroShot])
@pytest.mark.parametrize("calibrate", [True, False])
def test_likelihoods_are_those_of_each_name_by_itself(kind, calibrate):
    pytest.importorskip("transformers", reason="the extra llm is not installed")
    from graphfm.graphllm import tiny_llama

    data = planted(0, nodes=12)
    data.label_text = ["apple", "apple brick", "cloud", "drum"]
    lm = tiny_llama(data.text, data.label_text, hidden=16, layers=1, steps=0)
    around, asked = drawn_neighbours(data, 4, 0), "Classes: apple, apple brick, cloud, drum.\n"
    told = 4 if kind is NeighbourLMZeroShot else 0
    found = kind(lm, calibrate=calibrate).fit().predict(without_labels(data))
    free = [
        one_name_at_a_time(lm, asked + f"Neighbour: {empty}\n" * told + f"Text: {empty}\nClass:", data.label_text)
        for empty in ("N/A", "[MASK]", "")
    ]
    for node in (0, 7):
        others = "".join(f"Neighbour: {data.text[i]}\n" for i in around[node]) if told else ""
        slow = one_name_at_a_time(lm, f"{asked}{others}Text: {data.text[node]}\nClass:", data.label_text)
        if calibrate:
            quotient = slow / (sum(free) / 3)
            slow = quotient / quotient.sum()
        torch.testing.assert_close(found[node].double(), slow, atol=1e-5, rtol=0)
    assert torch.isfinite(found).all()


class Prefers:
    """Finds the first name far likelier than all, whatever it reads, and a name a little likelier if it was told it."""

    def score(self, prompts, labels):
        return torch.tensor(
            [[(label in texts_told(prompt)) - 200.0 * (i > 0) for i, label in enumerate(labels)]
             for prompt in prompts]
        )  # fmt: skip


def test_a_model_that_always_prefers_one_name_is_calibrated():
    data = planted(0, nodes=8)
    data.text = ["apple", "brick", "cloud", "drum", "drum", "cloud", "brick", "apple"]
    assert LMZeroShot(Prefers(), calibrate=False).predict(data).argmax(1).tolist() == [0] * 8
    scores = LMZeroShot(Prefers()).predict(data)
    assert [data.label_text[i] for i in scores.argmax(1).tolist()] == data.text
    torch.testing.assert_close(scores.sum(1), torch.ones(8))
    data.text[3] = ""  # says no more than nothing
    torch.testing.assert_close(LMZeroShot(Prefers()).predict(data)[3], torch.full((4,), 0.25))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [LMZeroShot, NeighbourLMZeroShot])
def test_a_real_language_model_tells_topics_apart_and_stays_as_it_is(kind):
    for package in ("transformers", "gguf"):
        pytest.importorskip(package, reason="the extra llm is not installed")
    from graphfm.graphllm import LocalLM
    from graphfm.graphllm.backends.extras import packaged_smollm2

    try:
        packaged_smollm2()
    except ImportError as error:
        pytest.skip(str(error))
    text = [text for topic in TOPICS.values() for text in topic]
    pairs = torch.tensor([[0, 2, 4, 6, 1, 3, 5, 7], [1, 3, 5, 7, 0, 2, 4, 6]])
    data = Data(num_nodes=8, edge_index=pairs, text=text, label_text=list(TOPICS))
    y = torch.arange(4).repeat_interleave(2)
    lm = LocalLM.load()
    before = {key: value.clone() for key, value in lm.model.state_dict().items()}
    method = kind(lm)
    assert float((method.predict(data).argmax(1) == y).double().mean()) >= 0.75, "chance is .25"
    assert method.trained == {}
    assert all(torch.equal(value, before[key]) for key, value in lm.model.state_dict().items())


def test_bad_input():
    with pytest.raises(ValueError, match="neighbours must not be negative"):
        ChatZeroShot(Votes(["a"]), neighbours=-1)
    with pytest.raises(ConnectionError, match="down"):
        ChatZeroShot(Down()).predict(without_labels(planted(0, nodes=8)))


class Down:
    """A chat model that cannot be reached, through the call for many."""

    name = "down"

    def complete_all(self, conversations, **options):
        yield from ((index, ConnectionError("down")) for index in range(len(conversations)))
