"""The model that is trained on the spot: its words, its determinism, its loss."""

import math

import pytest
import torch

pytest.importorskip("transformers", reason="the extra llm is not installed")

from graphfm.graphllm import tiny_bert, tiny_llama
from graphfm.graphllm.backends.masking import masked_tokens
from graphfm.graphllm.backends.prompts import question
from graphfm.graphllm.backends.tiny import word_tokenizer
from graphfm.graphllm.texts import readable

TEXTS = ["a graph, a node.", "a node of graphs", "", "Zebra"]
SMALL = {"hidden": 16, "layers": 1, "context": 16, "length": 4, "batch": 4}


def test_words_are_those_of_labels_then_the_most_frequent():
    tokenizer = word_tokenizer(TEXTS, ["Rare Label"], size=70)
    words = tokenizer.get_vocab()
    assert {"Rare", "Label", "a", "node", "graph", "Zebra", "<s>"} <= set(words)
    assert words["Rare"] < words["a"] < words["Zebra"] < words["graph"]
    ids = tokenizer("a node, unheard-of")["input_ids"]
    assert [tokenizer.convert_ids_to_tokens(i) for i in ids] == ["<s>", "a", "node", ",", "<unk>", "-", "of"]
    assert tokenizer("")["input_ids"] == [tokenizer.bos_token_id]
    fewer = word_tokenizer(TEXTS, size=len(word_tokenizer([])) + 2)
    assert set(fewer.get_vocab()) - set(word_tokenizer([]).get_vocab()) == {"a", "Zebra"}


def test_the_same_seed_gives_the_same_model_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    one, two = (tiny_llama(TEXTS, steps=3, **SMALL) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert one.name == two.name
    assert tiny_llama(TEXTS, steps=3, seed=1, **SMALL).name != one.name
    assert not one.model.training


def test_it_learns_the_texts():
    kinds = [f"{a} {b} {c}" for a in "xyz" for b, c in [("one", "two"), ("three", "four")]]
    rows = [kinds[i] for i in torch.randint(6, (300,), generator=torch.Generator().manual_seed(0))]

    def loss(steps):
        lm = tiny_llama(rows, steps=steps, hidden=32, context=16, length=8, batch=8, lr=1e-2)
        ids = lm.tokenizer("x three four", return_tensors="pt")["input_ids"]
        return float(lm.model(input_ids=ids, labels=ids).loss.detach())

    # Nothing tells the first letter (1 of 3) and the word after it (1 of 2); the third word is certain.
    best = (math.log(3) + math.log(2)) / 3
    assert best - 0.15 < loss(150) < best + 0.25 < loss(0)


def test_it_learns_to_answer_with_the_class_name_that_it_reads():
    """Also where the name was put into none of the texts, and is two tokens."""
    texts, labels = [f"number {i % 7} of {i % 5}" for i in range(40)], ["red fox", "blue", "green"]
    lm = tiny_llama(texts, labels, length=4, context=64, batch=24, steps=250)
    said = [f"number 3 {label} of" for label in labels]
    assert lm.score([f"{text} {question(labels)}" for text in said], labels).argmax(1).tolist() == [0, 1, 2]


def test_an_underscore_in_a_class_name_is_a_space_as_in_the_questions():
    """Else it learns to answer with a word that no method asks for."""
    labels = ["Red_Fox", "blue"]
    one = tiny_llama(TEXTS, labels, steps=2, **SMALL)
    assert one.name == tiny_llama(TEXTS, ["Red Fox", "blue"], steps=2, **SMALL).name
    ids = one.label_ids(readable(labels))
    assert one.tokenizer.unk_token_id not in [token for label in ids for token in label]
    assert {"Red", "Fox"} <= set(tiny_bert(TEXTS, labels, steps=0).tokenizer.get_vocab())


def test_the_encoder_learns_to_fill_gaps_and_is_made_alike_by_the_same_seed():
    kinds = [f"{a} {b} {c}" for a in "xyz" for b, c in [("one", "two"), ("three", "four")]]
    state = torch.get_rng_state()
    one, two, raw = (tiny_bert(kinds, steps=steps, lr=1e-2, batch=16) for steps in (60, 60, 0))
    assert torch.equal(state, torch.get_rng_state())
    assert one.name == two.name != raw.name
    assert torch.equal(one.encode(kinds), two.encode(kinds))
    assert (one.dim, one.max_tokens, one.count(["", "x " * 99]).cut) == (32, 64, 1)
    ids = one.tokenizer("x three")["input_ids"]
    assert one.tokenizer.convert_ids_to_tokens(ids) == ["<s>", "x", "three", "</s>"]


def test_masks_are_berts():
    tokenizer = word_tokenizer([" ".join("abcdefgh")] * 2, masked=True)
    row = tokenizer("a b c d e f g h")["input_ids"]
    ids = torch.tensor([row + [tokenizer.pad_token_id] * 2] * 4000)
    shown, told = masked_tokens(ids, tokenizer, torch.Generator().manual_seed(0))
    chosen = told != -100
    assert torch.equal(told[chosen], ids[chosen])
    assert torch.equal(shown[~chosen], ids[~chosen])
    assert not chosen[:, [0, 9, 10, 11]].any(), "special tokens are left alone"
    assert chosen[:, 1:9].double().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (shown[chosen] == tokenizer.mask_token_id).double().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (shown[chosen] == ids[chosen]).double().mean().item() == pytest.approx(0.1, abs=0.03)
    never = masked_tokens(ids[:1], tokenizer, torch.Generator().manual_seed(0), rate=0.0)[1]
    assert (never != -100).sum() == 1, "one at least"
    assert (masked_tokens(ids[:1, :1], tokenizer)[1] == -100).all(), "none where there is none to choose"
    with pytest.raises(ValueError, match="no mask token"):
        masked_tokens(ids, word_tokenizer(TEXTS))


def test_bad_input():
    with pytest.raises(ValueError, match="hidden must be a multiple of 16"):
        tiny_bert(TEXTS, hidden=20)
    with pytest.raises(ValueError, match="no words to train on"):
        tiny_bert(["", " "])
    for settings in ({"hidden": 20}, {"layers": 0}, {"length": 1}, {"length": 17}, {"steps": -1}):
        with pytest.raises(ValueError, match="hidden must be a multiple of 16"):
            tiny_llama(TEXTS, **SMALL | settings)
    with pytest.raises(ValueError, match="no words to train on"):
        tiny_llama(["", " "], **SMALL)
    with pytest.raises(ValueError, match="size must be at least"):
        word_tokenizer(TEXTS, size=5)
