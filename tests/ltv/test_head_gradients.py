"""Gradients known in closed form, against autograd loss by loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphfm.ltv.head_gradients import HeadGradients
from graphfm.ltv.heads import MonotoneHead, ZILNHead
from graphfm.pareto import MGDAUB

HEADS = [MonotoneHead, ZILNHead]


def case(head, dtype=torch.float64, members=37, horizons=4, seed=0):
    """A head, a representation that comes from a layer, labels of which many are 0, and weights."""
    torch.manual_seed(seed)
    made, layer = head(6, horizons).to(dtype), nn.Linear(3, 6).to(dtype)
    nn.init.normal_(made.linear.weight)
    value = (2 * torch.randn(members, horizons)).exp() * (torch.rand(members, horizons) < 0.4)
    return (
        made,
        layer,
        layer(torch.randn(members, 3).to(dtype)),
        value.to(dtype),
        torch.rand(members, horizons).to(dtype),
    )


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("weighed", [False, True])
def test_against_autograd(head, weighed):
    made, _, z, value, weight = case(head)
    shift = 1.3 if weighed else 0.0
    each = made(z).shifted(shift).loss(value)
    losses = (weight * each).sum(dim=0) if weighed else each.mean(dim=0)
    known = HeadGradients(made, z, value, weight if weighed else None, shift)
    torch.testing.assert_close(known.losses, losses.detach(), rtol=1e-12, atol=0)
    rows = torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses])
    torch.testing.assert_close(known.gramian(), rows @ rows.t(), rtol=1e-10, atol=1e-14)
    weights = torch.tensor([0.1, 0.5, 0.0, 0.7], dtype=torch.float64)
    torch.testing.assert_close(known.combined(weights), (weights @ rows).view_as(z), rtol=1e-10, atol=1e-14)
    own = torch.autograd.grad(losses.sum(), [made.linear.weight, made.linear.bias])
    for parameter, grad in zip((made.linear.weight, made.linear.bias), own, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("horizons", [1, 4])
def test_mgda_ub_takes_the_same_step(head, horizons):
    steps = []
    for closed in (False, True):
        made, layer, z, value, _ = case(head, horizons=horizons)
        if closed:
            known = HeadGradients(made, z, value)
            facts = MGDAUB().backward(known.losses, features=z, known=known)
        else:
            facts = MGDAUB().backward(made(z).loss(value).mean(dim=0), features=z)
        steps.append((facts, [p.grad for p in (*made.parameters(), *layer.parameters())]))
    torch.testing.assert_close(steps[0][0].weights, steps[1][0].weights, rtol=1e-7, atol=1e-9)
    assert steps[0][0].stationarity == pytest.approx(steps[1][0].stationarity, rel=1e-7)
    for one, other in zip(steps[0][1], steps[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("members", [1, 1024, 5000])
def test_products_keep_their_digits_in_float32(members):
    made, _, z, value, _ = case(MonotoneHead, torch.float32, members)
    known = HeadGradients(made, z, value)
    exact = HeadGradients(made.double(), z.double(), value.double()).gramian()
    scale = exact.diagonal().sqrt()
    assert ((known.gramian() - exact).abs() <= 2e-6 * scale * scale[:, None]).all()


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_lengths_whose_squares_float32_cannot_hold(size):
    made, _, z, value, _ = case(MonotoneHead, torch.float32)
    plain = HeadGradients(made, z, value)
    other = HeadGradients(made, z, value, torch.full_like(value, size / len(value)))
    torch.testing.assert_close(other.gramian() / size**2, plain.gramian(), rtol=1e-4, atol=0)


def test_a_gradient_that_is_not_finite_is_told():
    made, _, z, value, weight = case(ZILNHead)
    weight[0, 2] = torch.inf
    with pytest.raises(FloatingPointError, match="of loss 2"):
        HeadGradients(made, z, value, weight).gramian()
