"""Node tasks through ego graphs: against graphs cut out one by one, whatever the batch, and nothing of labels."""

from unittest import mock

import pytest
import torch
from test_adapt import scramble
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.utils import k_hop_subgraph, subgraph
from typer.testing import CliRunner

import graphfm
from graphfm import egos, prompts
from graphfm.cli import app
from graphfm.egos import EgoReadout, Egos
from graphfm.fitted import Fitted
from graphfm.inputs import Inputs
from graphfm.nn import Adjacency
from graphfm.results import cell_key, read
from graphfm.tasks.verbs import measure


@pytest.fixture(scope="module")
def data():
    return graphfm.load("wine")


@pytest.fixture(scope="module")
def model():
    return graphfm.pretrain(
        [graphfm.load("breast_cancer")],
        backbone=graphfm.backbones.GCN(16, 16),
        objective=graphfm.objectives.SimGRACE(),
        epochs=1,
        seed=0,
    )


@pytest.fixture(scope="module")
def split(data):
    return graphfm.few_shot(data.y, shots=2, seed=0)


def drawn(nodes=40, edges=60, seed=0, dtype=torch.float64):
    """A sparse weighted graph whose last two nodes are isolated."""
    random = torch.Generator().manual_seed(seed)
    half = torch.randint(nodes - 2, (2, edges), generator=random)
    half = half[:, half[0] != half[1]]
    weight = torch.rand(half.size(1), generator=random, dtype=dtype) + 0.5
    edge_index, weight = torch.cat([half, half.flip(0)], dim=1), weight.repeat(2)
    x = torch.randn(nodes, 6, generator=random, dtype=dtype)
    return x, edge_index, weight, Inputs(x, Adjacency.from_edges(edge_index, nodes, weight))


@pytest.mark.parametrize("pool", ["mean", "root"])
@pytest.mark.parametrize("hops", [0, 1, 2, 3])
def test_each_row_is_that_of_the_ego_graph_by_itself(pool, hops):
    x, edge_index, weight, inputs = drawn()
    network = graphfm.backbones.GCN(6, 5).double().eval()
    readout = EgoReadout(5, hops, 40, pool, 6).double()
    readout.begin(network, inputs, torch.arange(3))
    rows = []
    for node in range(40):
        nodes, _, place, _ = k_hop_subgraph(node, hops, edge_index, num_nodes=40)
        inside, kept = subgraph(nodes, edge_index, weight, relabel_nodes=True, num_nodes=40)
        h = network(x[nodes], inside, kept)
        parts = [v[place[0]] if pool == "root" else v.mean(0) for v in (h, x[nodes])]
        rows.append(torch.cat(parts))
    rows = torch.stack(rows)
    centred = rows - rows.mean(0)
    expected = torch.cat([F.normalize(centred[:, :5]), F.normalize(centred[:, 5:])], dim=1)
    torch.testing.assert_close(readout.everywhere(network, inputs), expected)
    chosen = torch.tensor([39, 4, 4, 17])
    part, read = readout.of(chosen, inputs, None)
    torch.testing.assert_close(read(part.embed(network)), expected[chosen])


def test_parts_of_any_size_give_the_same(monkeypatch):
    _, _, _, inputs = drawn(edges=300)
    network, readout = graphfm.backbones.GCN(6, 5).double().eval(), EgoReadout(5, 2, 7).double()
    whole = readout.everywhere(network, inputs)
    for pairs, rows in ((1, 10**9), (200, 10**9), (10**9, 21)):
        monkeypatch.setattr(egos, "_PAIRS", pairs)
        monkeypatch.setattr(egos, "_ROWS", rows)
        parts = egos.bounded(inputs.adj, torch.arange(40), 2, 7)
        assert torch.equal(torch.cat(parts), torch.arange(40))
        assert len(parts) > 5
        assert max(p.numel() for p in parts) <= rows // 7
        torch.testing.assert_close(readout.everywhere(network, inputs), whole)
        with mock.patch.object(egos, "ego_nets", wraps=egos.ego_nets) as find:
            part, read = readout.of(torch.arange(40), inputs, None)
        assert [call.args[1].numel() for call in find.call_args_list] == [p.numel() for p in parts]
        torch.testing.assert_close(read(part.embed(network)), whole)


def test_a_cut_ego_graph_holds_its_centre_and_a_fair_choice():
    """A hub of 200 leaves, of which 10 stay: which ones differs by centre and seed, never by what else is asked."""
    leaves = torch.arange(1, 201)
    edges = torch.stack([torch.zeros_like(leaves), leaves])
    inputs = Inputs(torch.randn(201, 2), Adjacency.from_edges(torch.cat([edges, edges.flip(0)], dim=1), 201))
    counts = torch.zeros(201)
    chosen = []
    for seed in range(60):
        readout = EgoReadout(2, 1, 11, seed=seed)
        _, alone = readout._cut(inputs, inputs.adj, [torch.tensor([0])])
        _, among = readout._cut(inputs, inputs.adj, [torch.tensor([5, 0, 9])])
        assert torch.equal(among.node[among.batch == 1], alone.node)
        assert alone.node.numel() == 11
        assert alone.node[alone.root].tolist() == [0]
        counts[alone.node] += 1
        chosen.append(tuple(alone.node.tolist()))
    assert len(set(chosen)) == 60
    # 60 draws of 10 in 200: 3 a leaf; a binomial beyond 13 has a chance of 1e-5.
    assert counts[0] == 60
    assert counts[1:].max() <= 13
    assert (counts[1:] > 0).sum() > 170


def test_weights_of_edges_go_where_the_features_are():
    """The device "meta" stands in for one beside the CPU."""
    _, _, _, inputs = drawn()
    elsewhere = Inputs(inputs.x.to("meta"), inputs.adj)
    part, _ = EgoReadout(5, 1)._cut(elsewhere, inputs.adj, [torch.tensor([0, 3])])
    assert part.adj.weight.numel() == part.adj.num_edges > 0
    assert {t.device.type for t in (part.x, part.adj.weight, part.adj.col, part.adj.rowptr)} == {"meta"}


def test_a_graph_without_edges():
    inputs = Inputs(torch.randn(4, 6), Adjacency.from_edges(torch.empty(2, 0, dtype=torch.long), 4))
    network, readout = graphfm.backbones.GCN(6, 5).eval(), EgoReadout(5, 2, plain=True)
    with torch.no_grad():
        torch.testing.assert_close(readout.everywhere(network, inputs), network(inputs.x, inputs.adj))


@pytest.mark.parametrize("method", ["probe", "finetune", "prototype", *(f"prompt:{name}" for name in prompts.__all__)])
def test_adapt_saves_loads_and_reads_no_test_label(model, data, split, method, tmp_path):
    options = {"method": method, "seed": 0, "epochs": 2, "lr": 0.05, "ego": Egos(1, 12)}
    fitted = graphfm.adapt(model, data, split, **options)
    found = fitted.predict(data)
    torch.testing.assert_close(found.sum(1), torch.ones(len(data.y)))
    again = Fitted.load(fitted.save(tmp_path))
    assert torch.equal(again.predict(data), found)
    assert again.card["ego"] == "Egos(hops=1, at_most=12, pool='mean')"
    other = scramble(data, split.test)
    assert torch.equal(found, graphfm.adapt(model, other, split, **options).predict(other))
    assert not torch.allclose(found, graphfm.adapt(model, data, split, **{**options, "ego": None}).predict(data))


@pytest.mark.parametrize(
    "method", ["finetune", "prompt:GPF+adapter:LoRA(2)", "prompt:GraphPrompt", "prompt:AllInOne(3)"]
)
def test_training_and_validation_move_the_prediction(model, data, method):
    split = graphfm.few_shot(data.y, shots=2, seed=0, val_shots=2)
    options = {"method": method, "seed": 0, "lr": 0.05, "ego": Egos(1, 12)}
    start, end = (graphfm.adapt(model, data, split, epochs=k, **options).predict(data) for k in (0, 10))
    assert not torch.allclose(start, end, atol=1e-4)


def test_graph_prompt_is_the_formula_of_its_paper(model, data, split):
    """``s_i = mean over the ego graph of p * h_j``: cosine to the class means, at temperature 0.1."""
    fitted = graphfm.adapt(
        model, data, split, method="prompt:GraphPrompt", seed=0, epochs=5, lr=0.1, ego=Egos(1, 10**6)
    )
    network, p = fitted.backbone.backbone, fitted.prompt.p.detach()
    inputs = fitted.inputs(data)
    rows = []
    for node in range(data.num_nodes):
        nodes, inside, _, _ = k_hop_subgraph(node, 1, inputs.adj.edge_index, relabel_nodes=True)
        rows.append((p * network(inputs.x[nodes], inside).detach()).mean(0))
    rows = torch.stack(rows)
    means = torch.stack([rows[split.train][data.y[split.train] == c].mean(0) for c in range(3)])
    cosine = F.cosine_similarity(rows.unsqueeze(1), means.unsqueeze(0), dim=2)
    torch.testing.assert_close(fitted.predict(data), torch.softmax(cosine / 0.1, dim=1), rtol=1e-3, atol=1e-4)


def test_new_nodes_leave_the_others_alone(model, data, split):
    fitted = graphfm.adapt(model, data, split, method="prompt:GPF", seed=0, epochs=2, ego=Egos(2, 8))
    edges = torch.tensor([[178, 179], [179, 178]])
    grown = Data(
        x=torch.cat([data.x, data.x[:3]]), edge_index=torch.cat([data.edge_index, edges], dim=1), name=data.name
    )
    found = fitted.predict(grown)
    assert found.shape == (len(data.y) + 3, 3)
    torch.testing.assert_close(found[:-3], fitted.predict(data))


@pytest.mark.parametrize(
    ("arguments", "said"), [((-1,), "hops"), ((1.5,), "hops"), ((1, 0), "at_most"), ((1, 5, "max"), "pool")]
)
def test_a_bad_ego_graph_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Egos(*arguments)


@pytest.mark.parametrize("options", [{"structure": 1.0}, {"protocol": "paper"}])
def test_what_ego_graphs_do_not_go_with(model, data, split, options):
    with pytest.raises(ValueError, match="ego graphs"):
        graphfm.adapt(model, data, split, seed=0, ego=Egos(), **options)


def test_coordinators_are_not_carried_to_ego_graphs(data, split):
    base = graphfm.pretrain(
        [graphfm.load("breast_cancer")],
        backbone=graphfm.backbones.GCN(16, 16),
        objective=graphfm.objectives.SimGRACE(),
        coordinators=graphfm.Coordinators(1),
        epochs=1,
        seed=0,
    )
    with pytest.raises(ValueError, match="not with ego graphs"):
        graphfm.adapt(base, data, split, seed=0, carry=True, ego=Egos())


def test_evaluate_and_the_command_line_take_ego_graphs(model, data, split, tmp_path):
    options = {"methods": ["probe"], "shots": (2,), "seeds": (0,), "baselines": False}
    (plain,) = graphfm.evaluate(model, data, **options)
    (cell,) = graphfm.evaluate(model, data, ego=Egos(1), **options)
    found = graphfm.adapt(model, data, split, method="probe", seed=0, ego=Egos(1)).predict(data)
    hits = (found.argmax(1) == data.y)[split.test]
    assert cell.metrics["accuracy"] == pytest.approx(float(hits.float().mean()))
    assert cell_key(cell) != cell_key(plain)
    model.save(tmp_path / "ckpt")
    arguments = ["transfer", "--checkpoint", tmp_path / "ckpt", "--target", "wine", "--shots", 2, "--seeds", 1]
    arguments += ["--method", "probe", "--no-baselines", "--ego-hops", 1, "--out", tmp_path / "r.jsonl"]
    ran = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    assert ran.exit_code == 0, ran.output
    assert read(tmp_path / "r.jsonl")[0].metrics == cell.metrics
    with pytest.raises(ValueError, match="ego graphs of its own"):
        graphfm.evaluate(model, data, ego=Egos(1), protocol="paper", **options)
    with pytest.raises(ValueError, match="task 'link' has none"):
        measure("link", model, data, methods=["probe"], shots=[1], seeds=[0], ego_hops=1)


def test_tokens_are_carried_to_ego_graphs(data, split):
    base = graphfm.pretrain(
        [graphfm.load("breast_cancer"), data],
        backbone=graphfm.backbones.GCN(16, 16),
        objective=graphfm.objectives.SimGRACE(),
        coordinators=graphfm.DomainTokens(),
        epochs=1,
        seed=0,
    )
    options = {"seed": 0, "epochs": 1, "ego": Egos(1)}
    carried, left = (graphfm.adapt(base, data, split, carry=carry, **options).predict(data) for carry in (True, False))
    assert not torch.allclose(carried, left)


@pytest.mark.cuda
@pytest.mark.parametrize("method", ["finetune", "prompt:AllInOne(3)", "prompt:GraphPrompt"])
def test_on_a_gpu(model, data, split, method):
    fitted = graphfm.adapt(model, data, split, method=method, seed=0, epochs=2, ego=Egos(1, 12), device="cuda")
    assert fitted.predict(data).isfinite().all()
