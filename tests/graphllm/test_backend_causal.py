"""A causal model from inside: states, label scores against the slow way, cuts, gradients; on a tiny Llama."""

import pytest
import torch

pytest.importorskip("transformers", reason="the extra llm is not installed")

from graphfm.graphllm import CausalLM, Counts, LocalLM, cached_hidden, tiny_llama
from graphfm.graphllm.backends.prompts import cut_middle, label_tokens, pad_left, prompt_tokens
from graphfm.graphllm.backends.scoring import label_log_likelihoods, one_by_one, positions, reads_blocks

TEXTS = [f"the {kind} number {i} eats {food}" for i in range(30) for kind, food in [("cat", "fish"), ("cow", "grass")]]
LABELS = ["Networks", "Networks and Systems", "Graph-Theory", "fish"]
PROMPTS = ["the cat", "the cow number 3 eats", "", "eats the number of the cat 3 4 5 6 7 8 9 and grass"]


@pytest.fixture(scope="module")
def lm():
    return tiny_llama([*TEXTS, *LABELS], hidden=32, context=64, length=16, steps=150, batch=16, lr=1e-2)


@pytest.fixture(scope="module")
def exact(lm):
    """The same in double precision."""
    other = tiny_llama([*TEXTS, *LABELS], hidden=32, context=64, length=8, steps=0)
    other.model.load_state_dict(lm.model.state_dict())
    return LocalLM(other.model.double(), other.tokenizer, name="exact", context=64, batch=3)


def by_hand(lm, prompt, label):
    """The log-likelihood with nothing shared, padded or batched: one sequence through the model's own ids."""
    ids = lm.tokenizer(prompt)["input_ids"] + label
    logits = lm.model(input_ids=torch.tensor([ids])).logits[0]
    told = logits.log_softmax(-1)[range(len(ids) - len(label) - 1, len(ids) - 1), label]
    return told.sum().item()


def test_it_is_a_causal_lm(lm):
    assert isinstance(lm, CausalLM)
    assert (lm.dim, lm.num_layers, lm.context) == (32, 2, 64)
    assert "float32 context=64" in lm.name or "context=64" in lm.name


@pytest.mark.parametrize("which", ["lm", "exact"])
def test_scores_are_those_of_each_label_by_itself(which, request):
    lm = request.getfixturevalue(which)
    with torch.no_grad():
        wanted = torch.tensor([[by_hand(lm, p, label) for label in lm.label_ids(LABELS)] for p in PROMPTS])
    torch.testing.assert_close(lm.score(PROMPTS, LABELS), wanted, atol=1e-4 if which == "lm" else 1e-6, rtol=1e-6)


def test_one_pass_equals_a_pass_for_each_label_in_double_precision(exact):
    ids, mask = pad_left(prompt_tokens(exact.tokenizer, PROMPTS), 0, torch.device("cpu"))
    embeds = exact.embed(ids).detach().requires_grad_()
    labels = exact.label_ids(LABELS)
    assert reads_blocks(exact.model.config)
    found = label_log_likelihoods(exact.model, embeds, mask, labels)
    slow = one_by_one(exact.model, embeds, mask, labels)
    torch.testing.assert_close(found, slow, atol=1e-12, rtol=0)
    weight = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(0))
    one = torch.autograd.grad((found * weight).sum(), embeds)[0]
    other = torch.autograd.grad((slow * weight).sum(), embeds)[0]
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)  # Llama's norms are in single precision
    assert (one * (1 - mask).unsqueeze(-1)).abs().max() == 0  # padding moves nothing


def test_the_probabilities_of_all_labels_add_up_to_at_most_one(exact):
    """No label is the beginning of another, for the end token is scored."""
    assert float(exact.score(PROMPTS, LABELS).exp().sum(1).max()) <= 1
    ids = exact.label_ids(LABELS)
    assert all(a == b or b[: len(a)] != a for a in ids for b in ids)
    assert ids[0][:-1] == ids[1][:1]


def test_scoring_does_not_depend_on_the_batch(lm):
    alone = torch.cat([lm.score([prompt], LABELS) for prompt in PROMPTS])
    torch.testing.assert_close(lm.score(PROMPTS, LABELS), alone, atol=1e-4, rtol=0)
    assert lm.score([], LABELS).shape == (0, 4)


def test_scores_of_embeddings_are_those_of_the_prompts(exact):
    ids, mask = pad_left(prompt_tokens(exact.tokenizer, PROMPTS), 0, torch.device("cpu"))
    found = exact.score_embeds(exact.embed(ids), mask, LABELS)
    torch.testing.assert_close(found.float(), exact.score(PROMPTS, LABELS))


def test_a_model_that_reads_no_blocks_is_read_label_by_label(exact, monkeypatch):
    wanted = exact.score(PROMPTS, LABELS)
    monkeypatch.setattr(exact.model.config, "sliding_window", 8, raising=False)
    assert not reads_blocks(exact.model.config)
    torch.testing.assert_close(exact.score(PROMPTS, LABELS), wanted)


@pytest.mark.parametrize("kind", ["GPT2", "Qwen2", "GPTNeoX", "OPT", "Mistral"])
def test_other_families_score_as_by_hand(lm, kind):
    """Learned positions, biases, parallel layers, a sliding window: none of it may change what a score is."""
    import transformers

    small = {"vocab_size": len(lm.tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 64, "max_position_embeddings": 64, "num_key_value_heads": 2}  # fmt: skip
    extra = {"OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32}, "Mistral": {"sliding_window": 4}}.get(kind, {})
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**small, **extra)
    model = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config).double()
    other = LocalLM(model, lm.tokenizer, name=kind)
    with torch.no_grad():
        wanted = torch.tensor([[by_hand(other, p, label) for label in other.label_ids(LABELS)] for p in PROMPTS])
    torch.testing.assert_close(other.score(PROMPTS, LABELS), wanted, atol=1e-5, rtol=0)


def test_forward_gives_logits_and_states_with_padding_on_either_side(exact):
    rows = prompt_tokens(exact.tokenizer, [PROMPTS[0], PROMPTS[3]])
    ids, mask = pad_left(rows, 0, torch.device("cpu"))
    left, states = exact.forward(exact.embed(ids), mask)
    torch.testing.assert_close(exact.forward(exact.embed(ids), mask, keep=2)[0], left[:, -2:])
    ids, mask = pad_left([row[::-1] for row in rows], 0, torch.device("cpu"))
    right, _ = exact.forward(exact.embed(ids.flip(1)), mask.flip(1))
    alone = exact.model(input_ids=torch.tensor(rows[:1]), output_hidden_states=True)
    for found in (left[0, -len(rows[0]) :], right[0, : len(rows[0])]):
        torch.testing.assert_close(found, alone.logits[0])
    torch.testing.assert_close(states[0, -len(rows[0]) :], alone.hidden_states[-1][0])


def test_hidden_states_are_those_of_each_text_alone(exact):
    for pool in ("mean", "last"):
        found = exact.hidden([*TEXTS[:3], "", "the"], layers=(0, 1, -1), pool=pool)
        assert found.shape == (5, 3, 32)
        assert not found[3].any()
        for row, text in zip(found[[0, 1, 2, 4]], [*TEXTS[:3], "the"], strict=True):
            states = exact.model(**exact.tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
            one = torch.stack([states[i][0].mean(0) if pool == "mean" else states[i][0, -1] for i in (0, 1, -1)])
            torch.testing.assert_close(row, one.float())


def test_token_states_are_padded_on_the_right(exact):
    found = exact.token_states([TEXTS[0], "the"], layers=(-1,))
    assert found.mask.sum(1).tolist() == [7, 2]
    assert found.ids[1, :2].tolist() == exact.tokenizer("the")["input_ids"]
    alone = exact.model(**exact.tokenizer("the", return_tensors="pt"), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(found.states[1, 0, :2], alone[0].float())


def test_cached_states_are_computed_once(lm, tmp_path, monkeypatch):
    first = cached_hidden(lm, TEXTS[:4], (0, -1), folder=tmp_path)
    torch.testing.assert_close(first, lm.hidden(TEXTS[:4], (0, -1)))
    monkeypatch.setattr(LocalLM, "hidden", None)
    assert torch.equal(cached_hidden(lm, TEXTS[3::-1], (0, -1), folder=tmp_path), first.flip(0))
    with pytest.raises(TypeError):  # other layers are other rows, so the model is asked
        cached_hidden(lm, TEXTS[:4], (0, 1), folder=tmp_path)


def test_a_context_that_is_too_long_loses_its_middle_and_is_counted(exact):
    long = "cat " + "number " * 100 + "grass"
    ids = prompt_tokens(exact.tokenizer, [long])[0]
    room = 64 - max(map(len, exact.label_ids(LABELS)))
    kept = cut_middle(ids, room)
    assert len(kept) == room
    assert kept[:2] == ids[:2]
    assert kept[-1] == ids[-1]
    assert cut_middle([1, 2, 3, 4, 5], 3) == [1, 2, 5]
    assert cut_middle([1, 2, 3], 3) == [1, 2, 3]
    wanted = exact.score_embeds(exact.embed(torch.tensor([kept])), torch.ones(1, room), LABELS)
    torch.testing.assert_close(exact.score([long], LABELS), wanted.float())
    assert exact.count([long, "cat", " "], LABELS) == Counts(3, empty=1, cut=1)
    assert exact.count([]) == Counts(0)
    assert exact.hidden([long]).isfinite().all()
    assert isinstance(exact.generate([long], 4)[0], str)


def test_what_it_was_trained_on_is_what_it_says(lm):
    assert lm.generate(["the cow number 7 eats", "the cat number 7 eats"], 1) == ["grass", "fish"]
    scores = lm.score(["the cow number 7 eats", "the cat number 7 eats"], ["grass", "fish"])
    assert scores.argmax(1).tolist() == [0, 1]


def test_generation_stops_at_the_end_token_and_does_not_depend_on_the_batch(lm):
    prompts = ["the cow", "the cat number 7", "cat"]
    assert lm.generate(prompts, 20) == [lm.generate([prompt], 20)[0] for prompt in prompts]
    assert lm.generate(["the cow number 7 eats grass"], 5) == [""]


class Bytes:
    """A tokenizer that splits every label, cannot tell a space at the start, and ends every text by itself."""

    eos_token_id, pad_token_id, unk_token_id = 0, 1, 2

    def __call__(self, text, add_special_tokens=True, verbose=True):
        if isinstance(text, list):
            return {"input_ids": [self(one)["input_ids"] for one in text]}
        return {"input_ids": [*text.strip().encode(), *([0] if add_special_tokens else [])]}


def test_a_tokenizer_that_splits_labels():
    assert label_tokens(Bytes(), ["ab", " abc "]) == [[32, *b"ab", 0], [32, *b"abc", 0]]
    assert prompt_tokens(Bytes(), ["ab", ""]) == [[*b"ab"], [0]]


def test_bad_labels():
    for labels, words in [([], "at least one"), ([""], "blank"), (["ab", "ab "], "'ab' and 'ab ' are the same tokens")]:
        with pytest.raises(ValueError, match=words):
            label_tokens(Bytes(), labels)
    with pytest.raises(TypeError, match="one string"):
        label_tokens(Bytes(), "ab")


def test_bad_input(lm):
    with pytest.raises(ValueError, match="xx' and 'yy' are the same tokens"):
        lm.score(["a"], ["xx", "yy"])  # both unknown words
    with pytest.raises(ValueError, match="leave no room"):
        lm.generate(["a"], 64)
    with pytest.raises(ValueError, match=r"layers must lie in 0\.\.2"):
        lm.hidden(["a"], layers=(3,))
    with pytest.raises(ValueError, match="pool must be"):
        lm.hidden(["a"], pool="max")
    with pytest.raises(ValueError, match=r"must be \[B, T, 32\]"):
        lm.forward(torch.zeros(1, 2, 31), torch.ones(1, 2))
    with pytest.raises(ValueError, match="there is room for 64"):
        lm.forward(torch.zeros(1, 65, 32), torch.ones(1, 65))
    with pytest.raises(ValueError, match="padding on the left"):
        lm.score_embeds(torch.zeros(1, 2, 32), torch.tensor([[1, 0]]), LABELS)
    with pytest.raises(ValueError, match="texts is empty"):
        lm.token_states([])
    with pytest.raises(ValueError, match="no causal language model that can be loaded"):
        LocalLM.load("/nowhere/at/all")
    with pytest.raises(ValueError, match="batch and context"):
        LocalLM(lm.model, lm.tokenizer, name="x", batch=0)


def test_positions_leave_out_padding():
    assert positions(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]


@pytest.mark.cuda
def test_on_cuda():
    lm = tiny_llama([*TEXTS, *LABELS], hidden=32, context=64, length=8, steps=2, device="cuda")
    cpu = tiny_llama([*TEXTS, *LABELS], hidden=32, context=64, length=8, steps=0)
    cpu.model.load_state_dict(lm.model.state_dict())
    torch.testing.assert_close(lm.score(PROMPTS, LABELS), cpu.score(PROMPTS, LABELS), atol=1e-2, rtol=1e-3)
