"""Losses with which pretraining cannot go on."""

import pytest
import torch
from small_runs import WIDTH, ring, train

from graphfm.data.features import Unifier
from graphfm.objectives import GraphCL
from graphfm.samplers import RandomWalks
from graphfm.training import PretrainingStopped


@pytest.fixture(scope="module")
def sources():
    return [ring(150, 20, 1, name="wide"), ring(90, 7, 2, name="narrow")]


class Spoiled(GraphCL):
    """GraphCL whose loss is replaced at one step."""

    def __init__(self, at, value):
        super().__init__()
        self.at, self.value, self.calls = at, value, 0

    def forward(self, backbone, batch):
        loss = super().forward(backbone, batch)
        self.calls += 1
        return loss * 0 + self.value if self.calls == self.at else loss


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e9, -1e9])
def test_a_loss_that_is_lost_names_epoch_and_batch(sources, value):
    with pytest.raises(PretrainingStopped, match=r"epoch 1, batch 3 of \d+ \(domains: wide, narrow\); no checkpoint"):
        train(sources, objective=Spoiled(3, value))


def test_a_large_loss_that_does_not_grow_is_no_explosion(sources):
    class Large(GraphCL):
        def forward(self, backbone, batch):
            return super().forward(backbone, batch) * 1e7

    train(sources, objective=Large())


class Poisoned(GraphCL):
    """What huge features of one domain do: NaN wherever a marked row takes part."""

    def forward(self, backbone, batch):
        loss = super().forward(backbone, batch)
        return loss * float("nan") if (batch.x[:, -1] > 0.5).any() else loss


def test_the_guilty_domain_is_named(sources):
    marked = [g.clone() for g in sources]
    for i, g in enumerate(marked):
        g.x = torch.cat([torch.rand(g.num_nodes, WIDTH - 1) * 0.1, torch.full((g.num_nodes, 1), float(i))], dim=1)
    unifier = Unifier(WIDTH, rescale=False)
    with pytest.raises(PretrainingStopped, match=r"the loss is nan in epoch 1, batch 1 of \d+ \(domain: narrow\)"):
        train(marked, objective=Poisoned(), unifier=unifier, coordinators=None)


def test_huge_features_end_in_a_clear_error_or_in_finite_weights(sources):
    huge = sources[1].clone()
    huge.x = huge.x * 1e30
    unscaled = Unifier(WIDTH, rescale=False)
    with pytest.raises(PretrainingStopped, match=r"the loss is .* in epoch 1, batch 1 .*narrow"):
        train([sources[0], huge], unifier=unscaled, coordinators=None)
    model = train([sources[0], huge])  # brought to scale, they are as good as any
    assert all(torch.isfinite(v).all() for v in model.backbone.state_dict().values())


class BadGradient(GraphCL):
    """A finite loss whose gradient is not: sqrt at 0."""

    def forward(self, backbone, batch):
        return super().forward(backbone, batch) + (next(backbone.parameters()) * 0).sum().clamp(min=0).sqrt()


def test_weights_that_go_bad_under_a_finite_loss_are_seen(sources):
    with pytest.raises(PretrainingStopped, match="epoch 1"):
        train(sources, objective=BadGradient(), sampler=RandomWalks(0.04, 12), epochs=1)
