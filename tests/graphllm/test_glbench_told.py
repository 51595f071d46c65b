"""What cells and the page tell: descriptions read, tokens and price, texts cut, nodes left out."""

import re

import pytest
import torch
from planted import WordVectors, planted

from graphfm.graphllm import Setup, Stock, run
from graphfm.graphllm.backends.base import Answer, Counts, Usage
from graphfm.graphllm.backends.prompts import question
from graphfm.graphllm.classical import LabelPropagation, LMHead
from graphfm.graphllm.page import write_glbench_report
from graphfm.graphllm.predictors.graphtext import GraphText
from graphfm.graphllm.protocol import answer_scores, glbench_split
from graphfm.graphllm.texts import as_tag, only_labels_of, without_labels
from graphfm.graphllm.zeroshot import ChatZeroShot, LMZeroShot, TextCosine

STOCK = Stock(encoder=WordVectors())


@pytest.fixture
def graph():
    return planted(0, nodes=120)


class Teller:
    """Says the first word of a text, or nothing of a class at all; answers are dear, old ones from a disk."""

    name = "teller"

    def __init__(self):
        self.known = set()

    def complete(self, messages, *, max_tokens=256, temperature=0.0):
        text = messages[0]["content"]
        told = text.split("Text: ")[-1].split("\nAnswer")[0].split("Question")[0]
        word = "nothing" if " 1" in told else told.split()[0]
        cost, old = Usage(10, 2, 0.5, 1), text in self.known
        self.known.add(text)
        return Answer(word, Usage(), cost) if old else Answer(word, cost)


def test_tokens_price_and_missing_answers_are_in_the_cell_and_on_the_page(graph, tmp_path):
    stock, setup = Stock(chat=Teller()), Setup(setting="zero-shot")
    first, again = run([graph], [ChatZeroShot], stock=stock, out=tmp_path, setup=setup, seeds=[0, 1])
    for one in (first, again):  # the second finds some answers on disk: the method costs what it costs
        asked = len({graph.text[node] for node in glbench_split(graph, one.seed).test.tolist()})
        assert 0 < asked < 60, "no more than are tested"
        told = {name: one.metrics[name] for name in ("prompt_tokens", "completion_tokens", "price")}
        assert told == {"prompt_tokens": 10 * asked, "completion_tokens": 2 * asked, "price": 0.5 * asked}
        assert 0.2 < one.metrics["unknown_rate"] < 0.9
    page = write_glbench_report(tmp_path).read_text()
    price = (first.metrics["price"] + again.metrics["price"]) / 2
    assert f'<td class="number">{24 * price:,.0f}</td>' in page
    assert f'<td class="number">{price:.4f}</td>' in page
    share = 100 * (first.metrics["unknown_rate"] + again.metrics["unknown_rate"]) / 2
    assert f"{share:.1f} %" in page


@pytest.mark.parametrize("kind", [ChatZeroShot, LMZeroShot, GraphText])
def test_only_nodes_that_are_scored_are_asked_about(kind, graph):
    class Likely:
        def score(self, prompts, labels):
            return torch.tensor([[float(len(prompt)), 0.0, 1.0, 2.0] for prompt in prompts])

    class Namer(Teller):
        def complete(self, messages, *, max_tokens=256, temperature=0.0):
            answer = super().complete(messages)
            return Answer([*graph.label_text, "none"][len(messages[0]["content"]) % 5], answer.usage, answer.kept)

    tag = as_tag(graph)
    method = kind(Likely() if kind is LMZeroShot else Namer())
    split = glbench_split(tag, 0)
    if kind is GraphText:
        method.fit(only_labels_of(tag, split), split)
    some = torch.tensor([90, 4, 4, 17])
    whole, part = (method.predict(without_labels(tag, asked)) for asked in (None, some))
    assert whole.shape == part.shape == (120, 4)
    torch.testing.assert_close(part[some], whole[some], equal_nan=True)
    others = [node for node in range(120) if node not in (90, 4, 17)]
    assert part[others].isnan().all()
    assert not whole[others].isnan().all()
    if kind is not LMZeroShot:
        assert method.usage.requests == len(set(method.prompts(tag)[node] for node in (90, 4, 17)))


def test_descriptions_are_told_to_those_who_read_them_and_cells_say_so(graph, tmp_path):
    graph.label_description = ["about drum", "about apple", "about brick", "about cloud"]  # misleading
    found = {}
    for labels in ("descriptions", "names"):
        setup = Setup(setting="zero-shot", labels=labels)
        (found[labels],) = run([graph], [TextCosine], stock=STOCK, out=tmp_path / "zero", setup=setup, seeds=[0])
        assert found[labels].settings["labels"] == labels
        (head,) = run([graph], [LMHead], stock=STOCK, out=tmp_path / labels, setup=Setup(labels=labels, grid="one"),
                      seeds=[0])  # fmt: skip
        assert head.settings["labels"] == "names"
    assert found["names"].metrics["accuracy"] != found["descriptions"].metrics["accuracy"]
    page = write_glbench_report(tmp_path / "zero").read_text()
    assert "Read by TextCosine; all others read names at most." in page
    assert "class descriptions" not in write_glbench_report(tmp_path / "names").read_text()


def test_the_question_tells_descriptions_where_there_are_some(graph):
    assert question(["a_b", "c"]) == question(["a_b", "c"], ["", " "])
    assert "the classes are a b (all of it), c. Which" in question(["a_b", "c"], ["all of it. ", ""])
    graph.label_description = ["of apples", "", "", ""]
    assert "apple (of apples), brick, cloud, drum." in LMZeroShot(None).prompts(graph)[0]


def test_nodes_whose_text_a_source_holds_are_in_no_score(tmp_path):
    target, source = planted(0, nodes=400), planted(1, nodes=400, classes=("fig", "gold", "hat", "ink"), filler="z")
    target.text = [f"{text} {' '.join(f'w{i}x{j}' for j in range(9))}" for i, text in enumerate(target.text)]
    setup, tag = Setup(setting="zero-shot"), as_tag(target)
    scores, test = TextCosine(WordVectors()).fit().predict(without_labels(tag)), glbench_split(tag, 0).test
    wrong = test[scores[test].argmax(1) != target.y[test]][:3].tolist()
    for name, nodes in (("apart", []), ("shared", wrong)):
        for node in nodes:
            source.text[node] = target.text[node]
        (found,) = run(
            [target], [TextCosine], stock=STOCK, out=tmp_path / name, setup=setup, sources=[source], seeds=[0]
        )
        kept = torch.tensor([node for node in test.tolist() if node not in nodes])
        assert found.metrics["left_out"] == len(nodes)
        assert found.metrics["accuracy"] == answer_scores(scores[kept], target.y[kept])["accuracy"]
        assert ("nodes left out" in write_glbench_report(tmp_path / name).read_text()) == bool(nodes)
    assert len(wrong) == 3


def test_texts_that_are_cut_or_empty_are_told(graph, tmp_path):
    class Short(WordVectors):
        name = "short"

        def count(self, texts):
            return Counts(len(texts), empty=sum(not text.strip() for text in texts), cut=sum(len(t) > 9 for t in texts))

    graph.text[5] = " "
    cut = sum(len(text) > 9 for text in graph.text)
    stock, setup = Stock(encoder=Short()), Setup(grid="one")
    cells = run([graph], [LMHead, LabelPropagation], stock=stock, out=tmp_path, setup=setup, seeds=[0])
    assert cells[0].metrics["texts_cut"] == cut
    assert cells[0].metrics["texts_empty"] == 1
    page = re.sub(r"<[^>]*>", " ", write_glbench_report(tmp_path).read_text())
    assert f"planted-0: {cut} cut by short, 1 without a word" in page
