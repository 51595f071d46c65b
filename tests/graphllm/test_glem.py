"""GLEM: the loss is PyG's, both models are trained, text and structure both count."""

import pytest
import torch
from planted import WordVectors, edges_shuffled, planted, texts_shuffled
from torch import nn

from graphfm.data.splits import few_shot
from graphfm.graphllm.alignment.glem import GLEM, em_loss
from graphfm.graphllm.protocol import answer_scores
from graphfm.graphllm.texts import as_tag, only_labels_of, without_labels


class TunableWords(WordVectors):
    """Word vectors through a matrix that can be trained."""

    def __init__(self):
        self.model = nn.Linear(self.dim, self.dim, bias=False)
        nn.init.eye_(self.model.weight)

    def embed(self, texts):
        return self.model(super().encode(texts))

    @torch.no_grad()
    def encode(self, texts):
        return self.embed(texts)


SMALL = {"steps": 60, "lm_lr": 5e-3, "epochs": 50, "rounds": 1}


def fitted(data):
    split = few_shot(data.y, 40, 0, val_shots=10)
    method = GLEM(TunableWords(), **SMALL).fit(only_labels_of(data, split), split)
    scores = method.predict(without_labels(data))
    assert scores.shape == (data.num_nodes, 4)
    return method, answer_scores(scores[split.test], data.y[split.test])["accuracy"]


def test_text_and_structure_both_count_and_both_models_are_trained():
    data = as_tag(planted(0, clear=0.55, homophily=0.8))
    method, whole = fitted(data)
    assert {key.split(".")[0] for key in method.trained} == {"lm", "head", "network"}
    assert not torch.equal(method.lm.model.weight, TunableWords().model.weight)
    assert whole - fitted(as_tag(edges_shuffled(data)))[1] >= 0.1
    assert whole - fitted(as_tag(texts_shuffled(data)))[1] >= 0.1


@pytest.mark.parametrize("gold", [[1, 0, 1, 0, 0], [1, 1, 1, 1, 1]])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_is_that_of_pyg(gold, weight):
    models = pytest.importorskip("torch_geometric.llm.models")
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=random, dtype=torch.float64, requires_grad=True)
    y, pseudo = torch.randint(3, (2, 5), generator=random)
    mask = torch.tensor(gold).bool()
    found = em_loss(logits, y, mask, pseudo, weight)
    wanted = models.GLEM.loss(None, logits, y, nn.CrossEntropyLoss(), mask, pseudo, weight, True)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, wanted)))


def test_every_weight_of_a_bert_is_trained_and_no_text_is_zero_in_both_steps():
    pytest.importorskip("transformers", reason="the extra llm is not installed")
    from graphfm.graphllm import tiny_bert

    data = as_tag(planted(0, nodes=60))
    data.text = ["", *data.text[1:]]
    split = few_shot(data.y, 4, 0, val_shots=2)
    encoder = tiny_bert(data.text, data.label_text, steps=0)
    method = GLEM(encoder, steps=2, epochs=2, rounds=1).fit(data, split)
    assert all(parameter.grad is not None for parameter in method.trained.values())
    names = {name for name in method.trained if name.startswith("lm.")}
    assert {f"lm.{name}" for name, _ in encoder.model.named_parameters() if "pooler" not in name} == names
    seen = []
    method.head.register_forward_hook(lambda module, given, out: seen.append(given[0].detach()))
    method._teach([""] * 60, data.y, split.train, None)
    assert seen
    assert not torch.cat(seen).any(), "as encode has it"


def test_labels_of_the_other_step_are_learned_where_there_are_none():
    """The E-step: with weight 0 on gold labels, what the graph network said of unlabelled nodes is all that is told."""
    data = as_tag(planted(0, nodes=80))
    split = few_shot(data.y, 4, 0)
    method = GLEM(TunableWords(), alpha=1.0, steps=150, batch=32, lm_lr=0.0, head_lr=0.1)
    method.lm, method.head = TunableWords(), nn.Linear(24, 4)
    pseudo = torch.full((80,), 2)
    torch.manual_seed(0)
    method._teach(data.text, data.y, split.train, pseudo)
    assert (method.head(method.lm.encode(data.text)).argmax(1) == 2).all()


def test_what_is_given_stays_as_it_was_and_test_labels_do_not_matter():
    data = as_tag(planted(0, nodes=120))
    split = few_shot(data.y, 6, 0, val_shots=4)
    changed = data.clone()
    changed.y[split.test] = (data.y[split.test] + 1) % 4
    encoder = TunableWords()
    one, two = (
        GLEM(encoder, steps=3, epochs=3).fit(only_labels_of(graph, split), split).predict(without_labels(graph))
        for graph in (data, changed)
    )
    assert torch.equal(one, two)
    assert torch.equal(encoder.model.weight, torch.eye(24))


def test_bad_input():
    with pytest.raises(ValueError, match="alpha and beta in"):
        GLEM(TunableWords(), alpha=1.5)
