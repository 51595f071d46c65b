"""The mean of several forecasts, in memory and in folders."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ltv_logs import random_log

from graphfm.bundle import CheckpointError, read_bundle, write_bundle
from graphfm.data.purchases import DAY
from graphfm.ltv import BTYD, Ensemble, Forecast, HistoricMean, Setup, make_task
from graphfm.ltv.saved import Scorer, fit_scorer

LOG = random_log(2000, days=200)
NAMES = ("BTYD", "HistoricMean")


def task(day, horizons=(3, 7, 14)):
    return make_task(LOG, day * DAY, horizons, unit="user", who="all")


class Told:
    """Says the same of everybody; ``shift`` more with every horizon."""

    def __init__(self, *, shift: float = 1.0, levels: tuple[float, ...] = (0.5, 0.9), horizons: int | None = None):
        self.shift, self.levels, self.horizons = shift, levels, horizons

    def fit(self, tasks, val=()):
        return self

    def predict(self, task):
        rising = self.shift * np.arange(1, (self.horizons or len(task.horizons)) + 1)
        mean = np.tile(rising, (len(task.population), 1))
        quantiles = mean[:, :, None] * np.array(self.levels) if self.levels else None
        return Forecast(np.full(mean.shape, self.shift / 10), mean, quantiles, self.levels)


def test_it_is_the_mean_of_methods_fitted_apart():
    train, test = [task(100), task(120)], task(150)
    found = Ensemble(methods=NAMES).fit(train).predict(test)
    alone = [method().fit(train).predict(test) for method in (BTYD, HistoricMean)]
    np.testing.assert_allclose(found.mean, (alone[0].mean + alone[1].mean) / 2, rtol=1e-12)
    np.testing.assert_allclose(found.pay, (alone[0].pay + alone[1].pay) / 2, rtol=1e-12)
    assert found.quantiles is None
    assert found.levels == ()


def test_pieces_are_the_whole():
    test = task(150)
    method = Ensemble(methods=(*NAMES, "Mean")).fit([task(100)])  # two that stream, one that does not
    pieces = list(method.stream(test, 9))
    np.testing.assert_allclose(np.concatenate([one.mean for _, one in pieces]), method.predict(test).mean, rtol=1e-12)
    assert np.concatenate([piece.population.user for piece, _ in pieces]).tolist() == test.population.user.tolist()


def test_quantiles_are_averaged_level_by_level():
    found = Ensemble(methods=("test_ensemble:Told", "test_ensemble:Told(shift=3.0)")).fit([]).predict(task(150))
    assert found.levels == (0.5, 0.9)
    np.testing.assert_allclose(found.mean[0], [2, 4, 6])
    np.testing.assert_allclose(found.quantiles[0], [[1, 1.8], [2, 3.6], [3, 5.4]])
    np.testing.assert_allclose(found.pay[0], 0.2)


@pytest.mark.parametrize("other", ["(levels=(0.5, 0.8))", "(levels=())"])
def test_no_quantiles_unless_all_have_the_same(other):
    found = Ensemble(methods=("test_ensemble:Told", f"test_ensemble:Told{other}")).fit([]).predict(task(150))
    assert found.quantiles is None


def test_what_is_refused():
    for methods in ("BTYD", ()):
        with pytest.raises(ValueError, match="at least one name"):
            Ensemble(methods=methods)
    with pytest.raises(ValueError, match="Nobody"):
        Ensemble(methods=("Nobody",))
    other = Ensemble(methods=("test_ensemble:Told", "test_ensemble:Told(horizons=2)")).fit([])
    with pytest.raises(ValueError, match="same members and horizons"):
        other.predict(task(150))
    with pytest.raises(ValueError, match="Told of the ensemble cannot be saved"):
        other.save("nowhere")


def test_a_folder_keeps_one_fit(tmp_path):
    test = task(150)
    for day in (100, 120):  # the second fit takes the place of the first
        method = Ensemble(methods=NAMES).fit([task(day)])
        assert method.save(tmp_path) == tmp_path
    assert len(list(tmp_path.glob("member-*"))) == 2
    loaded = Ensemble.load(tmp_path)
    assert loaded.names == NAMES
    assert np.array_equal(loaded.predict(test).mean, method.predict(test).mean)


def test_a_save_that_fails_leaves_the_old_fit(tmp_path, monkeypatch):
    old = Ensemble(methods=NAMES).fit([task(100)])
    old.save(tmp_path)

    def full(self, folder):
        raise OSError("no space left")

    monkeypatch.setattr(HistoricMean, "save", full)
    with pytest.raises(OSError, match="no space"):
        Ensemble(methods=NAMES).fit([task(120)]).save(tmp_path)
    test = task(150)
    assert np.array_equal(Ensemble.load(tmp_path).predict(test).mean, old.predict(test).mean)


@pytest.mark.parametrize(
    "change",
    [
        {"methods": ["os:system", "HistoricMean"]},
        {"folders": ["../somewhere", "member-0"]},
        {"methods": ["BTYD"]},
        {"methods": ["HistoricMean", "BTYD"]},
        {"methods": ["Nobody", "BTYD"]},
        {"methods": 3},
    ],
)
def test_a_folder_from_a_stranger(tmp_path, change):
    Ensemble(methods=NAMES).fit([task(100)]).save(tmp_path)
    settings, _ = read_bundle(tmp_path, "ensemble")
    write_bundle(tmp_path, "ensemble", {**settings, **change}, {})
    with pytest.raises(CheckpointError):
        Ensemble.load(tmp_path)


def test_a_member_that_is_gone(tmp_path):
    Ensemble(methods=NAMES).fit([task(100)]).save(tmp_path)
    next(tmp_path.glob("member-*-1/*.json")).unlink()
    with pytest.raises(CheckpointError):
        Ensemble.load(tmp_path)


def test_it_scores_from_a_folder_by_its_name(tmp_path):
    name = "Ensemble(methods=('BTYD', 'HistoricMean'))"
    scorer = fit_scorer(LOG, name, Setup((3, 14), unit="user", who="all"))
    scorer.save(tmp_path)
    read = Scorer.load(tmp_path)
    assert json.loads((tmp_path / "scorer.json").read_text())["settings"]["name"] == name
    one, other = (list(each.table(LOG, 190 * DAY, members=11)) for each in (scorer, read))
    assert [piece["mean"].tolist() for piece in one] == [piece["mean"].tolist() for piece in other]
    assert len(one) == 4
