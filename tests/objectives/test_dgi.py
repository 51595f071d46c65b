"""DGI against its formula, node by node in float64."""

import copy
import math

import pytest
import torch
from test_augment import make_batch

from graphfm.backbones import FAGCN, GCN
from graphfm.objectives import DGI
from graphfm.objectives.fields import Kin


def slow_dgi(true, false, weight, batch, keep):
    def sigmoid(v):
        return 1 / (1 + math.exp(-v))

    terms = []
    for g in sorted(set(batch.tolist())):
        rows = [i for i in range(len(batch)) if batch[i] == g and keep[i]]
        width = true.size(1)
        s = [sigmoid(sum(float(true[i, j]) for i in rows) / len(rows)) for j in range(width)]
        wanted = [sum(float(weight[a, b]) * s[b] for b in range(width)) for a in range(width)]
        for i in rows:
            score = [sigmoid(sum(float(h[i, j]) * wanted[j] for j in range(width))) for h in (true, false)]
            terms += [-math.log(score[0]), -math.log(1 - score[1])]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("sizes", [(7,), (6, 9, 5)])
@pytest.mark.parametrize("hubs", [0, 2])
@pytest.mark.parametrize("one_domain", [False, True])
def test_dgi_is_its_formula(sizes, hubs, one_domain):
    batch = make_batch(sizes, hubs)
    if one_domain:  # features come from other graphs as well
        batch.domain = torch.zeros(batch.num_nodes, dtype=torch.long)
    torch.manual_seed(0)
    backbone, objective = FAGCN(4, 6, dropout=0.0), DGI().bind(4, 6)
    torch.manual_seed(1)
    found = objective(backbone, batch)
    torch.manual_seed(1)
    order = Kin(batch, far=True).shuffle()
    assert bool((batch.batch[order] == batch.batch).all()) == (not one_domain or len(sizes) == 1)
    slow = copy.deepcopy(backbone).double()
    with torch.no_grad():
        true, false = (slow(x.double(), batch.edge_index, batch.edge_weight) for x in (batch.x, batch.x[order]))
    weight = objective.discriminator.weight.detach().double()
    expected = slow_dgi(true, false, weight, batch.batch, ~batch.is_coordinator)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)
    if hubs:
        assert torch.equal(order[batch.is_coordinator].sort().values, torch.nonzero(batch.is_coordinator).flatten())


def test_one_node_is_its_own_corruption_and_costs_log_two_at_zero():
    batch = make_batch((1,), hubs=0)
    objective = DGI().bind(4, 6)
    torch.nn.init.zeros_(objective.discriminator.weight)
    assert float(objective(GCN(4, 6), batch).detach()) == pytest.approx(math.log(2))
