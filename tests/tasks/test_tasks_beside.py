"""Links and graphs by prompts and adapters: what is trained, what stays, files, and nothing of held-out labels."""

import copy
import dataclasses
import logging

import pytest
import torch
from torch.nn import functional as F
from torch_geometric.data import Batch
from typer.testing import CliRunner

import graphfm
from graphfm import prompts
from graphfm.beside import base_of
from graphfm.checkpoint import CheckpointError
from graphfm.cli import app
from graphfm.data.links import link_split
from graphfm.results import cell_key, read
from graphfm.tasks import (
    FittedGraphs,
    FittedLinks,
    adapt_graphs,
    adapt_links,
    evaluate_clustering,
    evaluate_graphs,
    evaluate_links,
)

PROMPTS = [f"prompt:{name}" for name in prompts.__all__]
BOTH = ["adapter:LoRA(rank=2)", "prompt:EdgePrompt+adapter:LoRA(2)", "prompt:GraphPrompt+adapter:BiasOnly"]
OPTIONS = {"seed": 0, "epochs": 3, "lr": 0.05}


@pytest.mark.parametrize("val_shots", [0, 2], ids=["fixed steps", "with validation"])
@pytest.mark.parametrize("method", [*PROMPTS, *BOTH])
def test_graphs(model, shapes: Batch, method: str, val_shots: int, tmp_path) -> None:
    split = graphfm.few_shot(shapes.y, 2, seed=0, val_shots=val_shots)
    before = copy.deepcopy(model.backbone.state_dict())
    fitted = adapt_graphs(model, shapes, split, method=method, **OPTIONS)
    found = fitted.predict(shapes)
    torch.testing.assert_close(found.sum(1), torch.ones(24))
    again = FittedGraphs.load(fitted.save(tmp_path))
    assert torch.equal(again.predict(shapes), found)
    assert again.card == fitted.card
    assert type(again.head) is type(fitted.head)
    other = shapes.clone()
    other.y = shapes.y.clone()
    other.y[split.test] = 1 - shapes.y[split.test]
    assert torch.equal(adapt_graphs(model, other, split, method=method, **OPTIONS).predict(shapes), found)
    for network in (model.backbone, base_of(fitted.network)):
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("method", [*PROMPTS, *BOTH])
def test_links(model, communities, method: str, tmp_path) -> None:
    split = link_split(communities, 0, disjoint=0.2)
    fitted = adapt_links(model, split, method=method, **OPTIONS)
    found = fitted.score(split.graph, split.test)
    again = FittedLinks.load(fitted.save(tmp_path))
    assert torch.equal(again.score(split.graph, split.test), found)
    start = adapt_links(model, split, method=method, seed=0, epochs=0).score(split.graph, split.test)
    assert not torch.allclose(start, found, atol=1e-4)
    theirs = model.backbone.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in base_of(fitted.network).state_dict().items())


def test_links_from_few_edges(model, communities, tmp_path) -> None:
    """What is learned from ``shots`` edges is learned from a split that holds no others to learn from."""
    split = link_split(communities, 0, val=0.0, disjoint=0.2)
    options = {"method": "prompt:GPF", **OPTIONS}
    few = adapt_links(model, split, shots=5, **options)
    chosen = torch.randperm(split.train.size(1), generator=torch.Generator().manual_seed(0))[:5]
    alone = adapt_links(model, dataclasses.replace(split, train=split.train[:, chosen]), **options)
    found = few.score(split.graph, split.test)
    assert torch.equal(found, alone.score(split.graph, split.test))
    assert not torch.equal(found, adapt_links(model, split, **options).score(split.graph, split.test))
    assert few.card["train_edges"] == 5
    for shots in (0, split.train.size(1) + 1):
        with pytest.raises(ValueError, match="shots must lie in"):
            adapt_links(model, split, shots=shots, **options)
    settings = {"methods": ("prompt:GPF",), "seeds": (0,), "baselines": False, "val": 0.0}
    (cell,) = evaluate_links(model, communities, shots=5, **settings)
    assert cell.settings["train_edges"] == 5
    assert cell_key(cell) != cell_key(evaluate_links(model, communities, **settings)[0])


@pytest.mark.parametrize("method", ["prompt:GPF", "prompt:AllInOne(3)", "prompt:EdgePrompt", "adapter:LoRA(rank=2)"])
def test_what_stands_beside_learns(model, shapes: Batch, method: str) -> None:
    """The loss on the training graphs falls below the probe's that it started from."""
    split = graphfm.few_shot(shapes.y, 6, seed=0)
    start, end = (
        adapt_graphs(
            model, shapes, split, method=method, seed=0, epochs=k, lr=0.03, weight_decay=0.0, skip=False
        ).predict(shapes)
        for k in (0, 60)
    )
    before, after = (float(F.nll_loss(p[split.train].log(), shapes.y[split.train])) for p in (start, end))
    assert after < 0.97 * before


def test_graph_prompt_on_graphs_is_the_formula_of_its_paper(model, shapes: Batch) -> None:
    """A graph is ``sum_i p * h_i``, its class the nearest prototype by cosine; Adam on the similarity loss."""
    split = graphfm.few_shot(shapes.y, 3, seed=0)
    options = {"method": "prompt:GraphPrompt", "seed": 0, "weight_decay": 0.0, "lr": 0.1}
    fitted = adapt_graphs(model, shapes, split, epochs=6, **options)
    by_hand = adapt_graphs(model, shapes, split, epochs=0, **options)
    rows = []
    for graph in shapes.to_data_list():
        both = torch.cat([graph.edge_index, graph.edge_index.flip(0)], dim=1).unique(dim=1)
        x = by_hand.projection(graph.x)
        rows.append(by_hand.network.backbone(x, both).detach().sum(0))
    h, p = torch.stack(rows), torch.ones(16, requires_grad=True)
    optimizer = torch.optim.Adam([p], lr=0.1)

    def probabilities() -> torch.Tensor:
        z = p * h
        means = torch.stack([z[split.train][shapes.y[split.train] == c].mean(0) for c in range(2)])
        return torch.softmax(F.cosine_similarity(z.unsqueeze(1), means, dim=2) / 0.1, dim=1)

    for _ in range(6):
        optimizer.zero_grad()
        F.nll_loss(probabilities()[split.train].log(), shapes.y[split.train]).backward()
        optimizer.step()
    torch.testing.assert_close(fitted.predict(shapes), probabilities().detach(), rtol=1e-3, atol=1e-4)


class Shift(prompts.GPF):
    """A prompt of one's own."""


def test_a_class_of_ones_own(model, shapes: Batch, communities, tmp_path) -> None:
    graphs = adapt_graphs(model, shapes, graphfm.few_shot(shapes.y, 2, seed=0), prompt=Shift(), **OPTIONS)
    links = adapt_links(model, link_split(communities, 0), prompt=Shift(), **OPTIONS)
    for fitted, kind in ((graphs, FittedGraphs), (links, FittedLinks)):
        folder = fitted.save(tmp_path / kind.__name__)
        with pytest.raises(CheckpointError, match="Shift"):
            kind.load(folder)
        assert isinstance(kind.load(folder, prompts=[Shift]).network.prompt, Shift)
        assert fitted.card["method"] == "prompt:Shift(k=1)"


def test_adapter_and_prompt_as_objects(model, shapes: Batch) -> None:
    split = graphfm.few_shot(shapes.y, 2, seed=0)
    named = adapt_graphs(model, shapes, split, method="prompt:GPF+adapter:LoRA(2)", **OPTIONS)
    given = adapt_graphs(model, shapes, split, prompt=prompts.GPF(), adapter=graphfm.adapters.LoRA(2), **OPTIONS)
    assert torch.equal(named.predict(shapes), given.predict(shapes))
    assert named.card["trained_parameters"] == given.card["trained_parameters"]


def test_what_does_not_go_together_is_refused(model, shapes: Batch, communities, attach) -> None:
    split = graphfm.few_shot(shapes.y, 2, seed=0)
    with pytest.raises(ValueError, match="do not go together"):
        adapt_graphs(model, shapes, split, method="prompt:GPF", attach=attach, seed=0)
    with pytest.raises(ValueError, match="go with method='finetune'"):
        adapt_links(model, link_split(communities, 0), method="cosine", prompt=prompts.GPF(), seed=0)
    with pytest.raises(ValueError, match="got 'prototype'"):
        adapt_links(model, link_split(communities, 0), method="prototype", seed=0)
    with pytest.raises(ValueError, match=r"methods holds 'prompt:GPF'.*one of \('embedding', 'readout'\)"):
        evaluate_clustering(model, communities, methods=("prompt:GPF",), seeds=(0,))
    with pytest.raises(ValueError, match="GPG"):
        evaluate_graphs(model, shapes, methods=("prompt:GPG",), shots=(1,), seeds=(0,))


def test_a_prompt_meant_for_another_pretraining_is_warned_of(model, shapes: Batch, caplog) -> None:
    with caplog.at_level(logging.WARNING, logger="graphfm.beside"):
        adapt_graphs(model, shapes, graphfm.few_shot(shapes.y, 2, seed=0), method="prompt:GPPT", **OPTIONS)
    assert "GPPT is meant for a model pretrained by LinkPrediction" in caplog.text


def test_from_the_command_line(model, shapes: Batch, communities, tmp_path) -> None:
    model.save(tmp_path / "ckpt")
    graphfm.data.save_npz(communities, tmp_path / "graph.npz")
    out = tmp_path / "r.jsonl"
    methods = ["--method", "prompt:GPF,prompt:GPFPlus(k=2)+adapter:LoRA(rank=2,alpha=4)"]
    arguments = ["transfer", "--checkpoint", tmp_path / "ckpt", "--target", tmp_path / "graph.npz", "--seeds", 1]
    arguments += ["--out", out, "--task", "link", "--no-baselines", *methods]
    found = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    assert found.exit_code == 0, found.output
    cells = read(out)
    assert [c.settings.get("prompt") for c in cells] == ["GPF(k=1)", "GPFPlus(k=2)"]
    assert cells[1].settings["adapter"]["rank"] == 2
    results = evaluate_graphs(model, shapes, methods=("prompt:GPF",), shots=(1,), seeds=(0,), baselines=False)
    assert results[0].settings["prompt"] == "GPF(k=1)"
    assert results[0].settings["trained_parameters"] == 16 + 2 * (16 + 16 + 1)  # the prompt and a linear head
    assert cells[0].settings["trained_parameters"] > 0


@pytest.mark.cuda
@pytest.mark.parametrize("method", ["prompt:AllInOne", "prompt:GraphPrompt", "adapter:LoRA(rank=2)"])
def test_on_a_gpu(model, shapes: Batch, communities, method: str) -> None:
    split = graphfm.few_shot(shapes.y, 2, seed=0)
    assert adapt_graphs(model, shapes, split, method=method, device="cuda", **OPTIONS).predict(shapes).isfinite().all()
    split = link_split(communities, 0)
    fitted = adapt_links(model, split, method=method, device="cuda", **OPTIONS)
    assert fitted.score(split.graph, split.test).isfinite().all()
