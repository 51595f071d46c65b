"""Faults of published benchmarks that must not come back: a wrong network by name, settings without effect.

And a method that nothing proves.
"""

import re
from pathlib import Path

import pytest
import torch
from planted import WordVectors
from test_planted import HERE
from torch import nn

from graphfm.backbones.gat import GATLayer
from graphfm.backbones.gcn import GCNLayer
from graphfm.backbones.gin import GINLayer
from graphfm.backbones.sage import SAGELayer
from graphfm.graphllm.catalogue import methods
from graphfm.graphllm.classical import GAT, GCN, GIN, MLP, SAGE, SGC

LAYERS = (GATLayer, GCNLayer, GINLayer, SAGELayer)
# Where a method that is not in test_planted.py loses ten points without the texts or the edges that it reads.
PREDICTORS = ("GraphAdapter", "GraphGPT", "GraphTextTuned", "InstructGLM", "LLaGA", "LLaGANeighbours")
ASKED = ("ChatZeroShot", "LMZeroShot", "NeighbourChatZeroShot", "NeighbourLMZeroShot")
ELSEWHERE = {
    "GIANT": ("test_giant.py", "test_text_and_structure_both_count_and_all_is_trained"),
    "GLEM": ("test_glem.py", "test_text_and_structure_both_count_and_both_models_are_trained"),
    "GraphText": ("test_graphtext.py", "test_in_context_text_and_structure_both_count"),
    "LMTuning": ("test_lm_tuning.py", "test_the_text_counts_and_the_edges_do_not"),
    "LocalTAPE": ("test_tape.py", "test_logits_of_three_networks_are_averaged_and_the_local_kind_is_the_same"),
    "PATTON": ("test_patton.py", "test_text_and_structure_both_count_and_all_is_trained"),
    "TAPE": ("test_tape.py", "test_text_and_structure_both_count"),
    "ZeroG": ("test_zerog.py", "test_text_and_structure_both_count"),
} | {name: ("test_predictors.py", "test_it_needs_text_and_structure") for name in PREDICTORS} | {
    name: ("test_zeroshot_lm.py", "test_shuffled_texts_cost_and_shuffled_edges_cost_those_who_read_them")
    for name in ASKED
}  # fmt: skip


def test_every_method_is_proven_somewhere():
    assert set(HERE).isdisjoint(ELSEWHERE)
    assert set(HERE) | set(ELSEWHERE) == set(methods()), "prove a new method on a planted graph"
    for name, (file, function) in ELSEWHERE.items():
        text = (Path(__file__).parent / file).read_text()
        assert re.search(rf"\b{name}\b", text.split("\ndef ", 1)[1] if name in ASKED else text), (name, file)
        assert f"def {function}(" in text, (name, function)
        assert text.count("texts_shuffled(") >= 1, file
        assert text.count("edges_shuffled(") >= 1, file


@pytest.mark.parametrize(
    ("method", "layer"),
    [(GAT, GATLayer), (GCN, GCNLayer), (GIN, GINLayer), (SAGE, SAGELayer), (MLP, None), (SGC, None)],
)
def test_a_network_is_what_its_name_says(method, layer):
    found = {type(module) for module in method(WordVectors()).make(24, 4).modules()} & set(LAYERS)
    assert found == ({layer} if layer else set())


def test_dropout_of_a_tuned_encoder_takes_effect():
    pytest.importorskip("transformers", reason="the extra llm is not installed")
    from graphfm.graphllm import tiny_bert
    from graphfm.graphllm.tuned import tuned_copy

    given = tiny_bert(["some words", "and others"], steps=0)
    copy = tuned_copy(given, dropout=0.5)
    rates = {module.p for module in copy.model.modules() if isinstance(module, nn.Dropout)}
    assert rates == {0.5}
    assert {module.p for module in given.model.modules() if isinstance(module, nn.Dropout)} == {0.0}
    copy.model.train()
    assert not torch.equal(copy.embed(["some words"]), copy.embed(["some words"]))
    copy.model.eval()
    assert torch.equal(copy.embed(["some words"]), copy.embed(["some words"]))
