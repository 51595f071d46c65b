"""The whole model: it learns what is there, in every form, keeps its promises and looks at no future."""

from __future__ import annotations

import copy
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from planted_log import HORIZONS, planted_log, small_encoder, tasks

from graphfm.data.purchases import DAY, LeakError, Purchases
from graphfm.ltv import GRePO, Mean, SingleTask, ZILNHead, audit_leaks, ltv_scores, make_task, monotonicity_violations
from graphfm.ltv.supervised import losses_of
from graphfm.pareto import EPO, MGDA, MGDAUB, SmoothTchebycheff, UncertaintyWeighting, WeightedSum

NEEDS_TORCHJD = pytest.mark.skipif(find_spec("torchjd") is None, reason="needs the extra torchjd")
LOG = planted_log()
TRAIN, VAL, TEST = tasks(LOG, (50, 64)), tasks(LOG, (78,)), tasks(LOG, (92,))[0]
ENCODER = small_encoder().fit([task.snapshot for task in TRAIN])


def model(**options):
    quick = {"graph": ENCODER, "width": 16, "epochs": 3, "batch_size": 256, "lr": 1e-2}
    return GRePO(**{**quick, **options})


@pytest.fixture(scope="module")
def fitted():
    return model(epochs=15).fit(TRAIN, VAL)


def test_it_learns_what_is_there(fitted):
    forecast, value = fitted.predict(TEST), TEST.labels.value
    for k in range(len(HORIZONS)):
        scores = ltv_scores(forecast.mean[:, k], value[:, k], forecast.pay[:, k])
        assert scores["auc"] > 0.85  # those who buy again and those who do not are easily told apart
        assert scores["gini"] > 0.6
        assert 0.5 < scores["bias"] < 2
    error = np.abs(forecast.pay - (value > 0)).mean(axis=0)
    assert (error < np.abs(Mean().fit(TRAIN).predict(TEST).pay - (value > 0)).mean(axis=0)).all()


def test_more_days_are_never_worth_less(fitted):
    forecast = fitted.predict(TEST)
    assert forecast.levels == (0.1, 0.5, 0.9)
    for values in (forecast.pay, forecast.mean, *np.moveaxis(forecast.quantiles, -1, 0)):
        assert monotonicity_violations(values) == 0
    assert (np.diff(forecast.quantiles, axis=-1) >= 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {"graph": False},
        {"graph": False, "head": ZILNHead},
        {"graph": False, "norm": False},
        {"non_payers": 0.3},
        {"head": "ZILNHead", "layers": 1, "levels": ()},
        {"item_embedding": True, "graph": False},
        {"combine": WeightedSum([1, 2, 3])},
        {"combine": UncertaintyWeighting()},
        {"combine": MGDA()},
        {"combine": MGDA, "head": ZILNHead},
        {"combine": "MGDA(lower=0.2)"},
        {"combine": MGDAUB(), "item_embedding": True},
        pytest.param({"combine": "UPGrad"}, marks=NEEDS_TORCHJD),
        {"combine": EPO((2, 1, 1))},
        {"combine": SmoothTchebycheff()},
    ],
    ids=repr,
)
def test_every_form_of_it(options):
    kept = copy.deepcopy(options.get("combine"))
    one = model(epochs=2, **options).fit(TRAIN, VAL)
    forecast = one.predict(TEST)
    assert np.isfinite(forecast.mean).all()
    assert np.isfinite(forecast.pay).all()
    assert (forecast.quantiles is None) == (options.get("levels") == ())
    assert len(one.history["train"]) == len(one.history["val"]) == len(one.history["weights"]) == 2
    assert all(0 <= share <= 1 for share in one.history["conflict_share"])
    assert all(0 <= value <= 1 + 1e-9 for value in one.history["stationarity"])
    if isinstance(kept, UncertaintyWeighting | EPO | SmoothTchebycheff):
        assert options["combine"].losses is None  # the argument is not edited
    fair = Mean().fit(TRAIN).predict(TEST)
    assert (np.abs(np.log(forecast.mean.mean(axis=0) / fair.mean.mean(axis=0))) < 2).all()


@pytest.mark.parametrize(("combiner", "told"), [(MGDAUB, 2), (WeightedSum, 1)])
def test_facts_are_told_of_some_steps_alone(combiner, told):
    asked = []

    class Spy(combiner):
        def backward(self, losses, shared=None, features=None, *, measure=True, **known):
            asked.append(measure)
            return super().backward(losses, shared, features, measure=measure, **known)

    one = model(combine=Spy(), epochs=1, batch_size=-(-sum(len(task.population) for task in TRAIN) // 14)).fit(TRAIN)
    assert len(asked) == 14
    assert asked == [step % 10 == 0 if told == 2 else step == 0 for step in range(14)]
    assert np.isfinite(one.history["stationarity"][0])


def test_an_item_is_told_by_its_name_where_features_cannot():
    log, fresh = LOG, {"who": "new", "days": 14}  # few of the new have been bought again by now
    train, val, test = (
        tasks(log, (30, 44, 58), **fresh),
        tasks(log, (72,), **fresh),
        tasks(log, (86, 100), **fresh),
    )
    auc = {}
    for named in (False, True):
        one = model(graph=False, item_embedding=named, epochs=25, batch_size=64, lr=5e-3).fit(train, val)
        pay = np.concatenate([one.predict(task).pay for task in test])
        paid = np.concatenate([task.labels.value for task in test])
        auc[named] = ltv_scores(pay[:, 2], paid[:, 2])["auc"]
    assert auc[True] > auc[False]
    assert auc[True] > 0.8


def test_in_parts_it_says_the_same(fitted):
    whole = fitted.predict(TEST)
    parts = list(fitted.stream(TEST, rows=100))
    assert [len(part.population) for part, _ in parts] == [len(forecast) for _, forecast in parts]
    assert max(len(forecast) for _, forecast in parts) == 100
    np.testing.assert_allclose(np.concatenate([f.mean for _, f in parts]), whole.mean, rtol=1e-5)
    np.testing.assert_array_equal(np.concatenate([part.population.user for part, _ in parts]), TEST.population.user)
    np.testing.assert_allclose(fitted.predict(TEST.part(slice(7, 30))).mean, whole.mean[7:30], rtol=1e-5)


def test_it_can_be_repeated_and_depends_on_the_seed():
    one, other, third = (
        model(graph=small_encoder(seed=seed), epochs=1, seed=seed, item_embedding=True)
        .fit(TRAIN[:1], VAL)
        .predict(TEST)
        .mean
        for seed in (1, 1, 2)
    )
    assert (one == other).all()
    assert (one != third).any()


def test_the_callers_randomness_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    model(epochs=1).fit(TRAIN, VAL)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("graph", [True, False])
def test_no_future_enters(graph):
    def predict(log, cutoff):
        train = [task for day in (40, 54) for task in tasks(log.before(cutoff), (day,))]
        one = model(graph=small_encoder() if graph else False, epochs=2, item_embedding=True).fit(train[:1], train[1:])
        task = make_task(log, cutoff, HORIZONS, unit="pair", who="all", labelled=False)
        return {"people": task.population, "forecast": one.predict(task), "losses": one.history["val"]}

    audit_leaks(LOG, 80 * DAY, predict)


def test_an_encoder_from_the_future_is_refused():
    late = small_encoder().fit([TEST.snapshot])
    with pytest.raises(LeakError, match="has seen the log until"):
        model(graph=late).fit(TRAIN, VAL)


def test_training_ends_at_its_best_epoch():
    one = model(epochs=12, patience=2, lr=0.05, dropout=0.0)
    prepared = one.prepare(TRAIN, VAL)
    one.fit_prepared(prepared)
    scores, best = one.history["score"], one.history["best"][0]
    assert best == int(np.argmin(scores))
    assert len(scores) == min(best + 3, 12)
    np.testing.assert_allclose(losses_of(one.network, prepared.val), one.history["val"][best], rtol=1e-5)
    without = model(epochs=4).fit(TRAIN)
    assert without.history["best"] == [3]
    assert without.history["val"] == [None] * 4


def test_the_first_loss_is_that_of_the_start():
    one = model(epochs=1, dropout=0.0, batch_size=10**6)
    prepared = one.prepare(TRAIN)
    one.fit_prepared(prepared)
    torch.manual_seed(one.seed)
    network = one.build(prepared.data.inputs.width)
    network.head.start_at(prepared.data.value)
    x, _ = prepared.data.inputs.rows(slice(None), torch.device("cpu"))
    expected = network(x).loss(prepared.data.value).mean(dim=0)
    np.testing.assert_allclose(one.history["train"][0], expected.detach(), rtol=1e-5)


def test_it_goes_on_from_another_model(fitted):
    one = model(epochs=1, lr=1e-9, dropout=0.0)
    one.fit_prepared(one.prepare(TRAIN, VAL), start=fitted)
    np.testing.assert_allclose(one.predict(TEST).mean, fitted.predict(TEST).mean, rtol=1e-4)


@pytest.mark.parametrize("head", ["MonotoneHead", "ZILNHead"])
def test_heavy_tails_and_nobody_who_pays(head):
    log = planted_log(users=60, heavy=8.0)  # from 1e-10 to 1e10 and beyond
    days = (50, 64, 78)
    train, val, test = tasks(log, days, horizons=(1e-3, 7, 14))
    assert (train.labels.value[:, 0] > 0).sum() == 0
    assert train.labels.value.max() > 1e8
    for combine in (None, "MGDA", "EPO"):
        one = model(graph=False, head=head, combine=combine).fit([train], [val])
        forecast = one.predict(test)
        assert all(np.isfinite(part).all() for part in (forecast.pay, forecast.mean, forecast.quantiles))
        assert forecast.pay[:, 0].max() < 0.2


def test_users_and_a_log_without_items(fitted, caplog):
    train, val, test = (tasks(LOG, days, unit="user") for days in ((50, 64), (78,), (92,)))
    one = model(epochs=8).fit(train, val)
    forecast = one.predict(test[0])
    assert forecast.mean.shape == (len(test[0].population), 3)
    assert ltv_scores(forecast.mean[:, 2], test[0].labels.value[:, 2])["gini"] > 0.4
    bare = Purchases.from_arrays(LOG.user, None, LOG.time, LOG.amount)
    plain = [tasks(bare, days, unit="user") for days in ((50, 64), (78,), (92,))]
    assert np.isfinite(model(graph=False).fit(plain[0], plain[1]).predict(plain[2][0]).mean).all()
    with pytest.raises(ValueError, match="graph=False"):
        model(graph=small_encoder()).fit(plain[0], plain[1])
    with caplog.at_level("WARNING"):
        told = model(graph=True).fit(plain[0], plain[1])
    assert "goes without a graph" in caplog.text
    np.testing.assert_array_equal(
        told.predict(plain[2][0]).mean, model(graph=False).fit(plain[0], plain[1]).predict(plain[2][0]).mean
    )
    with pytest.raises(ValueError, match="item_embedding=True needs pairs"):
        model(item_embedding=True).fit(train)
    with pytest.raises(ValueError, match="unit: 'user' in the place of 'pair'"):
        fitted.predict(test[0])


def test_users_and_items_never_seen():
    one = model(item_embedding=True).fit(TRAIN, VAL)
    other = planted_log(users=40, items=30, seed=9)
    moved = Purchases.from_arrays(
        other.users[other.user] + 10**6, other.items[other.item] + 500, other.time, other.amount
    )
    task = make_task(moved, 80 * DAY, HORIZONS, unit="pair", who="all", labelled=False)
    table = one.predict(task).table(task)
    assert np.isfinite(table["mean"]).all()
    assert table["user"].min() >= 10**6
    text = Purchases.from_arrays(other.user, other.item.astype(str), other.time, other.amount)
    with pytest.raises(ValueError, match="items are text in this log and were whole numbers"):
        one.predict(make_task(text, 80 * DAY, HORIZONS, unit="pair", who="all", labelled=False))


def test_a_model_for_each_horizon(tmp_path):
    options = {"graph": small_encoder(), "width": 8, "epochs": 2, "batch_size": 256}
    single = SingleTask(**options).fit(TRAIN, VAL)
    forecast = single.predict(TEST)
    assert forecast.mean.shape == (len(TEST.population), 3)
    assert forecast.quantiles.shape == (len(TEST.population), 3, 3)
    assert len({id(one.encoder) for one in single.models}) == 1
    alone = [make_task(LOG, task.population.cutoff, (7,), unit="pair", who="all") for task in (*TRAIN, *VAL, TEST)]
    middle = GRePO(**options | {"graph": single.models[0].encoder}).fit(alone[:2], alone[2:3]).predict(alone[3])
    np.testing.assert_array_equal(forecast.mean[:, 1:2], middle.mean)
    single.save(tmp_path)
    loaded = SingleTask.load(tmp_path)
    np.testing.assert_array_equal(loaded.predict(TEST).quantiles, forecast.quantiles)
    assert len({id(one.encoder) for one in loaded.models}) == 1
    with pytest.raises(ValueError, match="the models are of 3 horizons"):
        single.predict(alone[3])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"dropout": 1.0}, "dropout must lie"),
        ({"lr": 0.0}, "lr be above 0"),
        ({"device": "nowhere"}, "device must be like"),
        ({"combine": "MDGA"}, "Did you mean MGDA"),
        ({"combine": "MGDA(0.1)"}, "by name"),
        ({"combine": "MGDA(lower=[0.9, 0.9])"}, "sum to at most 1"),
        ({"head": "Nothing"}, "ltv has no"),
    ],
)
def test_arguments_that_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        GRePO(**options)


def test_what_else_is_refused(fitted):
    with pytest.raises(ValueError, match="needs tasks"):
        model().fit([])
    with pytest.raises(ValueError, match="needs tasks with labels"):
        model().fit(tasks(LOG, (50,), labelled=False))
    with pytest.raises(ValueError, match="fitted on other columns: horizons"):
        model().fit(TRAIN, tasks(LOG, (78,), horizons=(3, 7)))
    with pytest.raises(RuntimeError, match="call fit first"):
        model().predict(TEST)
    other = copy.copy(fitted)
    other.encoder = None
    with pytest.raises(ValueError, match=r"a member has \d+ features"):
        other.predict(TEST)
    with pytest.raises(ValueError, match="lower has 2 values"):
        model(combine=MGDA([0.1, 0.2])).fit(TRAIN)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_as_on_the_cpu(tmp_path):
    there = model(graph=small_encoder(device="cuda"), device="cuda", epochs=5, item_embedding=True).fit(TRAIN, VAL)
    here = GRePO.load(there.save(tmp_path))
    np.testing.assert_allclose(here.predict(TEST).mean, there.predict(TEST).mean, rtol=1e-3)
