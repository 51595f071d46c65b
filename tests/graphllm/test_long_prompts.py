"""Prompts of vectors that are longer than the context, states that were made before, and what a run tells of both."""

import dataclasses
import time

import pytest
import torch
from planted import WordVectors, planted

pytest.importorskip("transformers", reason="the extra llm is not installed")

from graphfm.data.splits import Split
from graphfm.graphllm import LMZeroShot, LocalLM, Setup, Stock, cached_hidden, tiny_llama
from graphfm.graphllm.backends.ledger import Ledger
from graphfm.graphllm.backends.prompts import cut_embeds, cut_middle
from graphfm.graphllm.page import write_glbench_report
from graphfm.graphllm.predictors.instructglm import InstructGLM
from graphfm.graphllm.predictors.llaga import LLaGANeighbours
from graphfm.graphllm.runner import run

LABELS = ["apple", "brick pie", "cloud"]
LONG = "apple " + "brick cloud " * 60 + "drum"


@pytest.fixture
def lm():
    return tiny_llama([LONG, *LABELS], hidden=32, context=40, length=8, steps=0)


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("room", [1, 2, 5, 8])
def test_vectors_are_cut_as_tokens_are(side, room):
    rows = [list(range(1, n + 1)) for n in (9, 3, 5, 1, 8)]
    width = 11 if side == "both" else 9
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    for line, row in zip(ids, rows, strict=True):
        at = {"left": width - len(row), "right": 0, "both": 1}[side]
        line[at : at + len(row)] = torch.tensor(row)
    embeds = ids.double().unsqueeze(2).expand(-1, -1, 3).clone().requires_grad_()
    found, mask, cut = cut_embeds(embeds, (ids > 0).long(), room)
    assert found.shape == (len(rows), room, 3)
    assert cut == sum(len(row) > room for row in rows)
    for line, there, row in zip(found, mask, rows, strict=True):
        assert line[there.bool(), 0].tolist() == cut_middle(row, room)
        assert bool(there[-1])
    (found * mask.unsqueeze(2)).sum().backward()
    assert float(embeds.grad.sum()) == 3 * sum(min(len(row), room) for row in rows)


def test_a_long_prompt_of_vectors_scores_as_the_same_words_do(lm):
    prompts = [LONG, "apple brick", "drum"]
    ids = [torch.tensor(lm.tokenizer(prompt)["input_ids"]) for prompt in prompts]
    width = max(map(len, ids))
    tokens = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0)) for row in ids])
    mask = torch.stack([torch.arange(width) >= width - len(row) for row in ids]).long()
    wanted = lm.score(prompts, LABELS)
    assert (lm.ledger.prompts, lm.ledger.cut) == (3, 1)
    torch.testing.assert_close(lm.score_embeds(lm.embed(tokens), mask, LABELS), wanted, atol=1e-5, rtol=1e-5)
    assert (lm.ledger.prompts, lm.ledger.cut) == (6, 2)
    logits, states = lm.forward(lm.embed(tokens), mask, keep=2)
    assert logits.shape[:2] == (3, 2)
    assert states.shape[1] == lm.context
    short = torch.tensor([cut_middle(ids[0].tolist(), lm.context)])
    alone = lm.forward(lm.embed(short), torch.ones_like(short), keep=2)[0]
    torch.testing.assert_close(logits[:1], alone, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="there is room for 40"):
        lm.forward(lm.embed(tokens), mask, keep=21)  # more than is left of a prompt's end
    with pytest.raises(ValueError, match="there is room for 40"):
        lm.forward(lm.embed(tokens), mask)  # states of all tokens: which of them is whose would be lost


def test_a_method_whose_prompts_are_too_long_is_measured_and_a_run_says_so(lm, tmp_path):
    data = planted(nodes=60)
    data.train_mask = torch.arange(60) < 30
    data.val_mask, data.test_mask = ~data.train_mask & (torch.arange(60) < 40), torch.arange(60) >= 40
    data.name = "toy"

    class Tree(LLaGANeighbours):  # 43 tokens for the graph alone, in a context of 40
        grid = {"fanout": (6,)}  # noqa: RUF012

        def __init__(self, encoder, lm, *, fanout=6, epochs=1, seed=0, device=None):
            super().__init__(encoder, lm, fanout=fanout, epochs=epochs, seed=seed, device=device)

    (cell,) = run([data], [Tree], stock=Stock(encoder=WordVectors(), lm=lm), out=tmp_path, seeds=[0])
    assert cell.metrics["prompts"] >= 60
    assert cell.metrics["prompts_cut"] == cell.metrics["prompts"]
    text = write_glbench_report(tmp_path).read_text()
    assert "prompts that lost their middle" in text
    assert f"Tree: 100.0 % of {cell.metrics['prompts']:,.0f}" in text


def test_states_cost_every_cell_what_they_took_first(lm, tmp_path, monkeypatch):
    hidden, texts = LocalLM.hidden, ["apple brick", "cloud", "drum"]

    def slow(*given):
        time.sleep(0.3)
        return hidden(*given)

    monkeypatch.setattr(LocalLM, "hidden", slow)
    cached_hidden(lm, texts, folder=tmp_path)
    first = lm.ledger.seconds
    assert 0.3 <= first == lm.ledger.paid
    cached_hidden(lm, texts, folder=tmp_path)
    assert lm.ledger.seconds == first  # the same states of one cell
    assert lm.ledger.paid > first
    lm.ledger.clear()
    other = LocalLM(lm.model, lm.tokenizer, name="as if of another process", context=40)
    other.name = lm.name
    for one in (lm, other):
        cached_hidden(one, texts, folder=tmp_path)
        assert one.ledger.seconds >= 0.3  # told by the disk
    before = other.ledger.seconds
    cached_hidden(other, texts[:2], folder=tmp_path)
    assert other.ledger.seconds >= before + 0.2


def test_texts_that_a_method_tells_in_part_are_counted(lm, tmp_path):
    data = planted(nodes=40)
    data.text = ["apple " * (300 if i < 7 else 3) for i in range(40)]
    data.train_mask = data.val_mask = torch.arange(40) < 5
    data.test_mask, data.name = torch.arange(40) >= 10, "toy"
    (cell,) = run([data], [LMZeroShot], stock=Stock(lm=lm), out=tmp_path, setup=Setup(setting="zero-shot"), seeds=[0])
    assert cell.metrics["texts_shortened"] == 7
    assert "toy: 7 by LMZeroShot" in write_glbench_report(tmp_path).read_text()


def test_a_failed_fit_gives_the_language_model_back(lm, monkeypatch):
    data, before = planted(nodes=40), {key: value.clone() for key, value in lm.model.state_dict().items()}

    def broken(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(lm, "forward", broken)
    part = torch.arange(40)
    with pytest.raises(RuntimeError, match="out of memory"):
        InstructGLM(WordVectors(), lm, epochs=1).fit(data, Split(part[:20], part[20:30], part[30:]))
    assert lm.model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in lm.model.state_dict().items())


def test_a_ledger_begins_anew():
    ledger = Ledger()
    ledger.read(5, 2)
    ledger.states("a", 2.0, 0.1)
    ledger.states("a", 2.0, 0.1)
    ledger.states("b", 0.5, 0.7)
    assert dataclasses.astuple(ledger)[:3] == (5, 2, 2.7)
    assert ledger.paid == pytest.approx(0.9)
    ledger.clear()
    assert dataclasses.astuple(ledger)[:4] == (0, 0, 0.0, 0.0)
