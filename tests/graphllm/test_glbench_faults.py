"""Faults of published benchmarks that must not come back: a wrong network by name, settings without effect.

And a method that nothing proves.
"""

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
ELSEWHERE = {
    "ChatZeroShot": "test_zeroshot_lm.py",
    "GIANT": "test_giant.py",
    "GLEM": "test_glem.py",
    "GraphAdapter": "test_predictors.py",
    "GraphGPT": "test_predictors.py",
    "GraphText": "test_graphtext.py",
    "GraphTextTuned": "test_predictors.py",
    "InstructGLM": "test_predictors.py",
    "LLaGA": "test_predictors.py",
    "LLaGANeighbours": "test_predictors.py",
    "LMTuning": "test_lm_tuning.py",
    "LMZeroShot": "test_zeroshot_lm.py",
    "LocalTAPE": "test_tape.py",
    "NeighbourChatZeroShot": "test_zeroshot_lm.py",
    "NeighbourLMZeroShot": "test_zeroshot_lm.py",
    "PATTON": "test_patton.py",
    "TAPE": "test_tape.py",
    "ZeroG": "test_zerog.py",
}


def test_every_method_is_proven_somewhere():
    assert set(HERE).isdisjoint(ELSEWHERE)
    assert set(HERE) | set(ELSEWHERE) == set(methods()), "prove a new method on a planted graph"
    for name, file in ELSEWHERE.items():
        text = (Path(__file__).parent / file).read_text()
        assert name in text, file
        assert "texts_shuffled" in text, file


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
