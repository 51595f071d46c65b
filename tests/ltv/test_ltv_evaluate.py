"""The harness: who sees what, what is chosen by, what is kept, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ltv_logs import log_of, random_log

from graphfm.data.purchases import DAY, LeakError
from graphfm.ltv import HistoricMean, Mean, Zero, ltv_scores, make_task, rolling_origins
from graphfm.ltv.cohorts import cohorts
from graphfm.ltv.evaluate import DRIFT, TASK, evaluate_ltv, predictions_of
from graphfm.ltv.forecast import Forecast
from graphfm.ltv.maker import Maker, maker
from graphfm.ltv.scoring import score
from graphfm.ltv.setup import Setup
from graphfm.results import read

LOG = random_log(3000, days=200)
SETUP = Setup((3, 14), who="all")
METHODS = {"Mean": Maker(Mean), "past": Maker(HistoricMean)}


def test_methods_see_what_was_known_then():
    seen = []

    class Spy(Mean):
        def fit(self, tasks, val=()):
            seen.append((tasks, val))
            return super().fit(tasks, val)

        def predict(self, task):
            assert task.past.time.max() < task.population.cutoff
            return super().predict(task)

    evaluate_ltv(LOG, {"spy": Maker(Spy)}, dataclasses.replace(SETUP, val=2, spacing=20))
    origins = rolling_origins(LOG, (3, 14), val=2, spacing=20)
    assert len(seen) == 3
    for (tasks, val), origin in zip(seen, origins.test, strict=True):
        cutoffs = [task.population.cutoff for task in (*tasks, *val)]
        assert cutoffs == [c for c in (*origins.train, *origins.val, *origins.test) if c < origin]
        assert len(val) == 2
        assert max(cutoffs) + 14 * DAY <= origin


def test_cells_are_what_one_gets_by_hand():
    found = evaluate_ltv(LOG, METHODS, SETUP, dataset="shop")
    assert [one.method for one in found[:3]] == ["Zero", "Mean", "past"]
    assert len(found) == 9
    origins = rolling_origins(LOG, (3, 14))
    tasks = [make_task(LOG, c, (3, 14), unit="pair", who="all") for c in (*origins.train, *origins.val, *origins.test)]
    by_hand = HistoricMean().fit(tasks[:-2]).predict(tasks[-1])
    last = found[-1]
    assert (last.task, last.dataset, last.method) == (TASK, "shop", "past")
    expected = ltv_scores(by_hand.mean[:, 1], tasks[-1].labels.value[:, 1], by_hand.pay[:, 1])
    assert {name: last.metrics[f"{name}@14"] for name in expected} == pytest.approx(expected)
    assert found[0].metrics["nmae@3"] == 1.0
    assert found[0].metrics["bias@3"] == 0.0
    assert last.metrics["violations"] == 0.0
    assert last.seconds > 0
    assert last.peak_memory > 0


def test_parts_are_those_who_were_there():
    log = random_log(400, days=200)
    tasks = [make_task(log, day * DAY, (3,), unit="pair", who="all") for day in (20, 30, 150)]
    known, later = tasks[:2], tasks[2]
    parts = cohorts(later, known)
    users = {name for name, time in zip(log.users[log.user], log.time, strict=True) if time < 30 * DAY}
    items = {name for name, time in zip(log.items[log.item], log.time, strict=True) if time < 30 * DAY}
    people = later.population
    is_warm = np.array([log.users[user] in users for user in people.user])
    none = np.zeros(len(people), dtype=bool)
    assert np.array_equal(parts.get("warm users", none), is_warm)
    assert np.array_equal(parts.get("cold users", none), ~is_warm)
    assert np.array_equal(parts.get("warm items", none), np.array([log.items[item] in items for item in people.item]))
    ages = [150 - log.time[log.user == user].min() / DAY for user in people.user]
    old = parts["users of 90 days and more"]
    assert np.array_equal(old, np.array(ages) >= 90)
    by_age = sum(mask.astype(int) for name, mask in parts.items() if name.startswith("users of"))
    assert (by_age == 1).all()
    metrics = score(Mean().fit(known).predict(later), later, parts)
    assert metrics["members|users of 90 days and more"] == old.sum()
    assert metrics["payers@3|users of 90 days and more"] == (later.labels.value[old, 0] > 0).mean()


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    fits = []

    class Counted(Mean):
        def fit(self, tasks, val=()):
            fits.append(1)
            return super().fit(tasks, val)

    methods = {"counted": Maker(Counted)}
    setup = dataclasses.replace(SETUP, test=2, drift=2)
    first = evaluate_ltv(LOG, methods, setup, out=tmp_path)
    assert len(fits) == 2
    again = evaluate_ltv(LOG, {**methods, "Mean": Maker(Mean)}, setup, out=tmp_path)
    assert len(fits) == 2
    shown = [(one.task, one.method, one.settings["origin"], one.metrics["bias@3"]) for one in again]
    assert set(shown) >= {(one.task, one.method, one.settings["origin"], one.metrics["bias@3"]) for one in first}
    assert len(read(tmp_path / "results.jsonl")) == len(again)
    # Predictions that are gone are made anew, and the line stays one.
    next((tmp_path / "predictions").iterdir()).unlink()
    evaluate_ltv(LOG, {**methods, "Mean": Maker(Mean)}, setup, out=tmp_path)
    assert len(read(tmp_path / "results.jsonl")) == len(again)
    one = next(r for r in again if r.method == "Mean")
    kept = predictions_of(tmp_path, one)
    scores = ltv_scores(kept["mean"][:, 0], kept["value"][:, 0], kept["pay"][:, 0])
    assert scores["bias"] == pytest.approx(one.metrics["bias@3"], rel=1e-5)
    assert len(kept["user"]) == len(kept["item"]) == one.metrics["members"]
    with pytest.raises(FileNotFoundError, match="evaluate with out="):
        predictions_of(tmp_path / "elsewhere", one)


def test_days_of_drift_follow_the_first_origin(caplog):
    setup = dataclasses.replace(SETUP, test=2, drift=3)
    found = [one for one in evaluate_ltv(LOG, METHODS, setup) if one.task == DRIFT]
    assert [one.settings["day"] for one in found if one.method == "Mean"] == [1.0, 2.0, 3.0]
    assert len({one.settings["fitted_for"] for one in found}) == 1
    evaluate_ltv(LOG, METHODS, dataclasses.replace(SETUP, test=1, drift=3))
    assert "only 0 of 3 days" in caplog.text


class Guess:
    """Predicts noise, or the truth with some of it."""

    def __init__(self, *, noise=1.0, seed=0):
        self.noise, self.seed = noise, seed

    def fit(self, tasks, val=()):
        return self

    def predict(self, task):
        rng = np.random.default_rng(self.seed)
        mean = task.labels.value + self.noise * rng.lognormal(size=task.labels.value.shape)
        return Forecast(np.minimum(mean / mean.max(), 1), mean)


def test_settings_are_chosen_by_validation_and_seeds_are_passed_on():
    methods = {"guess": [Maker(Guess, {"noise": noise}) for noise in (100.0, 0.1, 30.0)], "Mean": Maker(Mean)}
    found = evaluate_ltv(LOG, methods, SETUP, seeds=(4, 5))
    guesses = [one for one in found if one.method == "guess"]
    assert len(guesses) == 6
    assert {one.metrics["chosen"] for one in guesses} == {1.0}
    assert len({one.metrics["gini@3"] for one in guesses}) == 6
    assert sum(one.method == "Mean" for one in found) == 3  # it has no seed
    assert "seed" not in Maker(Zero).takes


def test_a_method_that_looks_ahead_is_told():
    class Ahead(Mean):
        def predict(self, task):
            mean = super().predict(task).mean
            return Forecast(mean, mean * len(self.log))

    Ahead.log = LOG
    evaluate_ltv(LOG, {"honest": Maker(HistoricMean)}, SETUP, audit=True)

    class Watching(Setup):
        """A setup whose tasks reach the method with the log as it is."""

        def task(self, log, cutoff, *, labelled=True):
            Ahead.log = log
            return super().task(log, cutoff, labelled=labelled)

    with pytest.raises(LeakError, match="no future at all"):
        evaluate_ltv(LOG, {"ahead": Maker(Ahead)}, Watching((3, 14), who="all"), audit=True)


@pytest.mark.parametrize(
    ("log", "methods", "setup", "message"),
    [
        (log_of([(0, 0, 5, 1.0)]), METHODS, Setup((3, 7)), "do not fit into the log"),
        (LOG, METHODS, Setup((3, 90)), "do not fit into the log"),
        (LOG, METHODS, Setup((7, 3)), "each longer than the one before"),
        (LOG, METHODS, Setup((3, 14), unit="basket"), "unit must be"),
        (LOG, {"m": [Maker(Mean), Maker(Mean)]}, Setup((3, 14), val=0), "makers, and val=0"),
        (LOG, {"m": []}, SETUP, "has 0 makers"),
        (LOG, METHODS, Setup((3, 14), drift=-1), "drift must be"),
        (LOG, METHODS, Setup((1e-6, 14), who="all"), "nobody among .* pays within 1e-06 days"),
    ],
)
def test_what_is_refused(log, methods, setup, message):
    with pytest.raises(ValueError, match=message):
        evaluate_ltv(log, methods, setup)


def test_methods_by_name():
    made = maker("HistoricMean(prior_days=5.0, count_first=True)")
    assert made(0).prior_days == 5.0
    assert maker("zero")(3).fit([]).__class__ is Zero
    assert maker("test_ltv_evaluate:Guess(noise=2)").method.__name__ == "Guess"
    for text, message in (
        ("Meen", "Did you mean Mean"),
        ("Labels", "cannot be fitted"),
        ("Mean(3)", "given by name"),
        ("Mean(a=b)", "cannot be read"),
        ("Mean(a=1", "cannot be read"),
        ("Mean(**{})", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            maker(text)
    with pytest.raises(ValueError, match=r"HistoricMean: .*power"):
        maker("HistoricMean(power=2)")(0)
