"""Prompts of words and vectors: what stands where, row by row."""

import pytest
import torch

pytest.importorskip("transformers", reason="the extra llm is not installed")

from graphfm.graphllm import tiny_llama
from graphfm.graphllm.predictors.sequences import NOTHING, between, embedded, joined, opening, slots, texts, words


@pytest.fixture(scope="module")
def lm():
    return tiny_llama(["a b c d e f g"], ["a"], steps=0, hidden=16, layers=1, context=32, length=8)


def test_pieces_are_joined_without_what_is_nothing_and_padded_on_the_left():
    part = torch.tensor([[5, NOTHING, -1], [NOTHING, NOTHING, 7], [NOTHING, NOTHING, NOTHING]])
    numbers, mask = joined([torch.tensor([1, 2]), part, torch.tensor([3])])
    rows = [row[seen.bool()].tolist() for row, seen in zip(numbers, mask, strict=True)]
    assert rows == [[1, 2, 5, -1, 3], [1, 2, 7, 3], [1, 2, 3]]
    assert mask.tolist() == [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 1, 1, 1]]


def test_a_branch_without_leaves_is_left_out():
    inner = torch.tensor([[4, NOTHING], [NOTHING, NOTHING]])
    found = between(torch.tensor([8]), inner, torch.tensor([9]))
    assert found.tolist() == [[8, 4, NOTHING, 9], [NOTHING] * 4]


def test_numbers_are_words_or_vectors(lm):
    numbers = torch.tensor([[NOTHING, 3, -3], [-3, 6, -1]])
    table = torch.randn(3, 16, requires_grad=True)
    asked = []

    def vectors(key):
        asked.append(key.tolist())
        return table[key]

    found = embedded(lm, numbers, vectors)
    assert asked == [[0, 2]]
    assert torch.equal(found[1, 0], found[0, 2])
    assert torch.equal(found[1, 0], table[2])
    assert torch.equal(found[1, 2], table[0])
    assert torch.equal(found[1, 1], lm.embed(torch.tensor(6)))
    found[:, 2].sum().backward()
    assert table.grad.sum(1).tolist() == [16.0, 0.0, 16.0]


def test_texts_lose_their_middle_and_pieces_have_no_beginning(lm):
    rows = texts(lm, ["a b c d e", "", "f"], 4)
    assert rows.shape == (3, 4)
    assert torch.equal(rows[0], words(lm, "a b d e"))
    assert rows[1].tolist() == [NOTHING] * 4
    assert rows[2].tolist() == [*words(lm, "f").tolist(), *[NOTHING] * 3]
    assert opening(lm).tolist() == [lm.tokenizer.bos_token_id]
    assert slots(torch.tensor([0, 2, 3]), 3).tolist() == [-1, -3, NOTHING]
