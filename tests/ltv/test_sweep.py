"""A sweep over preferences: what is preferred gets lower, validation chooses, the front is what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from planted_log import planted_log, tasks

from graphfm.ltv import GRePO, ParetoSweep, preference_grid
from graphfm.ltv.dominance import hypervolume
from graphfm.ltv.front import ParetoFront, SweepPoint, common_scale
from graphfm.ltv.loss_range import constant_losses
from graphfm.ltv.supervised import losses_of
from graphfm.ltv.sweep import measured_range, preferring, sweep
from graphfm.pareto import EPO, MGDA, LossRange, SmoothTchebycheff, UncertaintyWeighting, WeightedSum

LOG = planted_log(users=90)
TRAIN, VAL, TEST = tasks(LOG, (50, 64)), tasks(LOG, (78,)), tasks(LOG, (92,))[0]
QUICK = {"graph": False, "width": 16, "epochs": 6, "batch_size": 128, "lr": 1e-2, "dropout": 0.0}
SCALE = LossRange((0, 0, 0), (1, 2, 4))


@pytest.fixture(scope="module")
def swept():
    return ParetoSweep(**QUICK).fit(TRAIN, VAL)


def test_a_grid_of_preferences():
    grid = preference_grid(3, ratio=3)
    assert len(grid) == 7
    np.testing.assert_allclose(np.sum(grid, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(grid[0], 1 / 3, atol=1e-5)
    np.testing.assert_allclose(grid[1], (0.6, 0.2, 0.2))
    np.testing.assert_allclose(grid[5], (3 / 7, 1 / 7, 3 / 7), atol=1e-5)
    assert len(preference_grid(2)) == 3
    assert preference_grid(1) == [(1.0,)]
    with pytest.raises(ValueError, match="ratio above 1"):
        preference_grid(3, ratio=1)


def test_upgrad_prefers():
    pytest.importorskip("torchjd", reason="needs the extra torchjd")
    assert preferring("UPGrad")((0.5, 0.25, 0.25), SCALE).preference == (0.5, 0.25, 0.25)


def test_combiners_that_prefer():
    preference = (0.5, 0.25, 0.25)
    assert preferring("EPO")(preference, SCALE).losses is SCALE
    assert preferring(EPO)(preference, SCALE).preference == preference
    assert preferring(SmoothTchebycheff)(preference, SCALE).losses is SCALE
    fixed = np.array(preferring("WeightedSum")(preference, SCALE).fixed)
    np.testing.assert_allclose(fixed / fixed[0], [1, 0.25, 0.125])
    assert preferring("MGDA")(preference, SCALE).lower == (0.25, 0.125, 0.125)
    own = lambda preference, scale: MGDA()  # noqa: E731
    assert preferring(own) is own
    with pytest.raises(ValueError, match="takes no preference"):
        preferring(UncertaintyWeighting)


def test_the_range_is_measured():
    model = GRePO(**QUICK)
    prepared = model.prepare(TRAIN, VAL)
    scale, single = measured_range(model, prepared)
    constant = constant_losses(model.head, prepared.data.value)
    np.testing.assert_allclose(scale.reference, constant, rtol=1e-6)
    assert (np.array(scale.ideal) < constant.numpy()).all()
    alone = GRePO(**QUICK, combine=WeightedSum([0, 0, 1])).fit_prepared(prepared)
    assert single[2] == pytest.approx(float(losses_of(alone.network, prepared.val)[2]))
    lowest = min(losses[2] for losses in alone.history["train"])
    assert scale.ideal[2] == pytest.approx(lowest - 0.1 * (scale.reference[2] - lowest))
    assert model.network is None


def test_what_is_preferred_gets_lower():
    model = GRePO(**QUICK)
    prepared = model.prepare(TRAIN, VAL)
    scale, single = measured_range(model, prepared)
    seen = []

    def make(preference, known):
        seen.append(known)
        return preferring(WeightedSum)(preference, known)

    front = sweep(model, prepared, [(1, 1, 1), (8, 1, 1), (1, 1, 8)], make, (scale, single))
    assert front.single == single
    assert all(known is scale for known in seen)
    assert [point.preference for point in front.points][1] == pytest.approx((0.8, 0.1, 0.1))
    assert front.losses.shape == (3, 3)
    for point in front.points:
        np.testing.assert_allclose(point.losses, losses_of(point.model.network, prepared.val))
    # In training, where there is no chance in it, the run that prefers a horizon reaches less there than the other.
    reached = {point.preference[0]: np.min(point.model.history["train"], axis=0) for point in front.points[1:]}
    assert reached[0.8][0] < reached[0.1][0]
    assert reached[0.1][2] < reached[0.8][2]
    assert front.points[1].model.settings.lr < front.points[0].model.settings.lr


def test_as_a_method(swept, tmp_path):
    front = swept.front
    assert len(front.points) == 7
    assert front.on_front.any()
    assert front.on_front[front.chosen]
    assert front.best is front.points[front.chosen].model
    forecast = swept.predict(TEST)
    np.testing.assert_array_equal(forecast.mean, front.best.predict(TEST).mean)
    assert 0 < front.hypervolume() <= 1
    assert json.loads(json.dumps(front.facts()))["chosen"] == front.chosen
    swept.save(tmp_path)
    np.testing.assert_array_equal(ParetoSweep.load(tmp_path).predict(TEST).mean, forecast.mean)
    assert json.loads((tmp_path / "front.json").read_text())["horizons"] == [3, 7, 14]


def test_it_can_be_repeated(swept):
    again = ParetoSweep(**QUICK).fit(TRAIN, VAL)
    np.testing.assert_array_equal(again.front.losses, swept.front.losses)


def points_of(losses):
    return tuple(SweepPoint((0.5, 0.5), tuple(row), GRePO(graph=False)) for row in losses)


def test_the_front_is_what_it_says():
    losses = [[1.0, 4.0], [2.0, 2.0], [3.0, 3.0], [4.0, 0.5]]
    front = ParetoFront(points_of(losses), (3.0, 7.0), single=(1.5, 2.5), constant=(5.0, 0.5))
    assert front.on_front.tolist() == [True, True, False, True]
    assert front.unharmed.tolist() == [False] * 4
    np.testing.assert_allclose(front.scale.reference, (5, 4))  # no run beats the constant at the second horizon
    np.testing.assert_allclose(front.scale.ideal, (1 - 0.4, 0.5 - 0.35))
    spans = np.array([4.4, 3.85])
    assert front.hypervolume() == pytest.approx(hypervolume(np.array(losses), np.array([5.0, 4.0])) / spans.prod())
    assert front.chosen == 1
    other = ParetoFront(points_of([[0.0, 6.0]]), (3.0, 7.0), single=(1.0, 1.0), constant=(5.0, 0.5))
    scale = common_scale([front, other])
    np.testing.assert_allclose(scale.reference, (5, 6))
    assert front.hypervolume(scale) > other.hypervolume(scale) == 0


def test_plots(swept, tmp_path):
    pytest.importorskip("matplotlib")
    from graphfm.ltv.front_plot import front_figure, front_svg

    front_figure(swept.front.drawn()).savefig(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 10_000
    svg = front_svg(swept.front.drawn())
    assert svg.startswith("<svg role=")
    assert "var(--pretrained)" in svg
    assert "var(--control)" in svg
    assert "#0102" not in svg
    assert "14 d" in svg


def test_what_is_refused(swept):
    with pytest.raises(ValueError, match="needs validation tasks"):
        ParetoSweep(**QUICK).fit(TRAIN)
    model = GRePO(**QUICK)
    with pytest.raises(ValueError, match="preferences is empty"):
        sweep(model, model.prepare(TRAIN, VAL), [], preferring("EPO"))
    with pytest.raises(RuntimeError, match="call fit first"):
        ParetoSweep(**QUICK).predict(TEST)
    with pytest.raises(ValueError, match="fronts is empty"):
        common_scale([])
    assert torch.tensor(swept.front.losses).isfinite().all()


def test_arguments_are_told_from_outside():
    import inspect

    takes = inspect.signature(ParetoSweep).parameters
    assert {"combine", "preferences", "seed", "device", "graph"} <= set(takes)
