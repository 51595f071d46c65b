"""A share of the non-payers: the probabilities of everybody come back, with less noise than from weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from planted_log import planted_log, tasks

from graphfm.ltv import GRePO
from graphfm.ltv.heads import MonotoneHead, ZILNHead
from graphfm.ltv.loss_range import constant_losses, unreachable_losses
from graphfm.ltv.subsample import draw
from graphfm.ltv.ziln import ZILN

SHARE = 0.1
TRUE = torch.tensor([[-4.0, -3.0], [1.0, 0.5]], dtype=torch.float64)  # intercepts and slopes of two horizons


def people(seed, members=6000):
    """Features with an intercept, and who pays within each of two horizons: whoever did within the first has paid."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(members, 1, generator=generator, dtype=torch.float64)
    x = torch.cat([torch.ones_like(x), x], dim=1)
    # One draw for both: who pays early has paid late as well wherever the later chance is the higher one.
    return x, (torch.rand(members, 1, generator=generator, dtype=torch.float64) < (x @ TRUE).sigmoid()).double()


def fit(x, paid, weight, shift):
    """The logits' coefficients ``[2, K]`` of least weighted ZILN loss; all amounts are 1, so they say nothing."""
    found = torch.tensor([[-3.0], [0.0]], dtype=torch.float64).repeat(1, paid.size(1)).requires_grad_()
    solver = torch.optim.LBFGS([found], max_iter=60, tolerance_grad=1e-9, line_search_fn="strong_wolfe")
    fixed = torch.zeros_like(paid), torch.ones_like(paid)

    def closure():
        solver.zero_grad()
        loss = (weight * ZILN(x @ found, *fixed).shifted(shift).loss(paid)).sum() / len(x)
        loss.backward()
        return loss

    solver.step(closure)
    return found.detach()


def test_simulated_people_against_the_truth_and_against_weights():
    estimates = {"all": [], "sample": [], "weights": []}
    for seed in range(60):
        x, paid = people(seed)
        torch.manual_seed(seed)
        sample = draw(paid, SHARE)
        inside = (sample.weight > 0).double()
        assert inside.sum() < 0.25 * inside.numel()
        some = (x[sample.members], paid[sample.members])
        estimates["all"].append(fit(x, paid, torch.ones_like(paid), 0.0))
        estimates["sample"].append(fit(*some, sample.weight[sample.members], sample.shift))
        inverse = torch.where(paid > 0, 1.0, inside / SHARE)[sample.members]
        estimates["weights"].append(fit(*some, inverse, 0.0))
    found = {name: torch.stack(values) for name, values in estimates.items()}
    for values in found.values():
        error = values.std(dim=0) / math.sqrt(len(values))
        assert ((values.mean(dim=0) - TRUE).abs() < 4 * error).all()
    # What the draw of the non-payers adds, as the people are the same.
    noise = {name: float(((found[name] - found["all"]) ** 2).mean()) for name in ("sample", "weights")}
    assert noise["sample"] < noise["weights"]
    without = torch.stack([fit(*_bare(seed)) for seed in range(3)]).mean(dim=0)
    assert ((without[0] - TRUE[0]) > 0.8 * -math.log(SHARE)).all()  # uncorrected: off by nearly log(1 / s)


def _bare(seed):
    x, paid = people(seed)
    torch.manual_seed(seed)
    sample = draw(paid, SHARE)
    return x[sample.members], paid[sample.members], sample.weight[sample.members], 0.0


def test_who_is_in():
    value = torch.tensor([[0.0, 0.0], [0.0, 2.0], [1.0, 2.0]]).repeat(4000, 1)
    torch.manual_seed(0)
    sample = draw(value, 0.2)
    inside = sample.weight > 0
    assert inside[value > 0].all()
    assert 0.18 < inside[value == 0].float().mean() < 0.22
    never = (value == 0).all(dim=1)
    assert (inside[never, 0] == inside[never, 1]).all()
    assert torch.equal(sample.members, inside.any(dim=1).nonzero().flatten())
    torch.testing.assert_close(sample.weight.sum(dim=0), torch.full((2,), float(len(sample.members))))
    assert sample.shift == -math.log(0.2)
    whole = draw(value, 1.0)
    assert len(whole.members) == len(value)
    assert whole.shift == 0
    assert (whole.weight == 1).all()
    assert len(draw(torch.zeros(5, 2), 1e-9).members) == 1  # somebody is in


@pytest.mark.parametrize("head", [MonotoneHead, ZILNHead])
def test_ranges_are_those_of_the_sample(head):
    torch.manual_seed(0)
    value = torch.randn(400, 2).exp().cumsum(1) * (torch.rand(400, 1) < 0.2)
    value[:100, 0] = 0
    low, high = unreachable_losses(value, non_payers=0.3), constant_losses(head, value, non_payers=0.3)
    drawn = []
    for _ in range(300):
        sample = draw(value, 0.3)
        same = head(1, 2)
        same.linear.weight.data.zero_()
        same.start_at(value)
        each = same(torch.zeros(len(value), 1)).shifted(sample.shift).loss(value)
        drawn.append((sample.weight * each).sum(dim=0) / len(sample.members))
    torch.testing.assert_close(torch.stack(drawn).mean(dim=0), high, rtol=0.02, atol=0.01)
    assert (low < high).all()


@pytest.mark.parametrize("options", [{"combine": "MGDAUB"}, {"head": "ZILNHead"}], ids=repr)
def test_a_model_tells_everybodys_probability(options):
    log = planted_log(users=400, items=20)
    train, val, test = (tasks(log, days) for days in ((50, 64), (78,), (92,)))
    shared = {"graph": False, "width": 16, "epochs": 8, "batch_size": 128, "lr": 1e-2, **options}
    some = GRePO(**shared, non_payers=0.2).fit(train, val).predict(test[0])
    every = GRePO(**shared).fit(train, val).predict(test[0])
    np.testing.assert_allclose(some.pay.mean(axis=0), every.pay.mean(axis=0), rtol=0.25)
    assert (np.corrcoef(some.pay[:, 2], every.pay[:, 2])[0, 1]) > 0.9


def test_shares_that_are_refused():
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="non_payers must lie"):
            GRePO(non_payers=share)
