"""``graphfm ltv`` from a file to a file, and what it says of bad input."""

from __future__ import annotations

import numpy as np
import pytest
from ltv_logs import random_log
from typer.testing import CliRunner

from graphfm.bundle import CheckpointError
from graphfm.cli import app
from graphfm.data.purchases import DAY
from graphfm.ltv import BTYD, Forecast, Maker, Mean, SingleTask, Tweedie, make_task
from graphfm.ltv.leaderboard import leaderboards
from graphfm.ltv.saved import Scorer, fit_scorer
from graphfm.ltv.setup import Setup
from graphfm.results import read

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

LOG = random_log(3000, days=200)
QUICK = "Tweedie(rounds=20,least=5)"


def frame(log=LOG):
    when = np.datetime64("2024-01-01", "us") + log.time.astype("timedelta64[us]")
    return pandas.DataFrame(
        {"who": log.users[log.user], "product": log.items[log.item], "when": when, "paid": log.amount}
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    path = tmp_path_factory.mktemp("shop") / "shop.csv"
    frame().to_csv(path, index=False)
    return path


COLUMNS = ("--user", "who", "--item", "product", "--time", "when", "--amount", "paid")


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(app, ["ltv", *map(str, arguments)], env={"COLUMNS": "200"})


def test_evaluate_writes_results_and_a_page(run, shop, tmp_path):
    pytest.importorskip("lightgbm")
    arguments = ("evaluate", "--log", shop, *COLUMNS, "--horizons", "3,14", "--out", tmp_path, "--who", "all")
    found = run(
        *arguments, "--method", f"Mean,HistoricMean,{QUICK}", "--test", 2, "--drift", 2, "--seeds", 2, "--audit"
    )
    assert found.exit_code == 0, found.output
    cells = read(tmp_path / "results.jsonl")
    assert {one.dataset for one in cells} == {"shop"}
    assert {one.method for one in cells} == {"Zero", "Mean", "HistoricMean", QUICK}
    assert sum(one.method == QUICK for one in cells) == 2 * 2 + 2  # origins x seeds, and the days
    page = (tmp_path / "report.html").read_text()
    for text in ("HistoricMean", "shop, all pairs", "warm users", "test origins"):
        assert text in page
    assert QUICK in found.output
    before = (tmp_path / "results.jsonl").read_bytes()
    assert run(*arguments, "--method", "Mean", "--test", 2, "--drift", 2, "--seeds", 2).exit_code == 0
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_the_default_method_from_file_to_file(run, shop, tmp_path):
    options = ("--log", shop, *COLUMNS)
    model = tmp_path / "model"
    method = "GRePO(epochs=1,width=8,graph=False)"
    found = run("fit", *options, "--horizons", "3,14", "--out", model, "--method", method, "--who", "all")
    assert found.exit_code == 0, found.output
    out = tmp_path / "predictions.parquet"
    found = run("predict", "--model", model, *options, "--out", out, "--members", 100)
    assert found.exit_code == 0, found.output
    table = pandas.read_parquet(out)
    assert list(table.columns) == ["user", "item", "horizon", "pay", "mean", "q10", "q50", "q90"]
    assert (table[["pay", "mean", "q50"]].to_numpy() >= 0).all()
    wide = table["mean"].to_numpy().reshape(-1, 2)
    assert (wide[:, 1] >= wide[:, 0]).all()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_fit_then_predict(run, shop, tmp_path, ending):
    pytest.importorskip("lightgbm")
    model = tmp_path / "model"
    options = ("--log", shop, *COLUMNS)
    found = run("fit", *options, "--horizons", "3,14", "--out", model, "--method", QUICK, "--days", 20)
    assert found.exit_code == 0, found.output
    out = tmp_path / f"predictions.{ending}"
    arguments = ("predict", "--model", model, *options, "--at", "2024-06-01", "--out", out)
    found = run(*arguments, "--members", 7)  # several pieces
    assert found.exit_code == 0, found.output
    table = pandas.read_csv(out) if ending == "csv" else pandas.read_parquet(out)
    assert list(table.columns) == ["user", "item", "horizon", "pay", "mean"]
    log, cutoff = LOG, (np.datetime64("2024-06-01") - np.datetime64("2024-01-01")).astype(int) * DAY
    task = make_task(log, int(cutoff), (3, 14), unit="pair", who="new", days=20, labelled=False)
    assert len(table) == 2 * len(task.population)
    # The same model, by hand, on the same events (times are moved, days are not).
    expected = Scorer.load(model).method.predict(task)
    np.testing.assert_allclose(table["mean"].to_numpy().reshape(-1, 2), expected.mean, rtol=1e-6)
    assert table["user"].astype(int).tolist() == np.repeat(log.users[task.population.user], 2).tolist()
    everybody = run(*arguments, "--who", "all")
    assert everybody.exit_code == 0
    assert int(everybody.output.split(" rows in")[0].split("\n")[-1]) > len(table)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("method", ["Zero", "Mean", "HistoricMean(count_first=True)", "BTYD", "SingleTask"])
def test_every_baseline_is_fitted_saved_and_used(run, shop, tmp_path, method):
    name = "SingleTask(epochs=1,width=4,graph=False)" if method == "SingleTask" else method
    asked = ("--unit", "user", "--who", "active", "--days", 30, "--since", "first", "--count-first")
    fit = ("fit", "--log", shop, *COLUMNS, "--horizons", "3,14", *asked, "--out", tmp_path / "model", "--method", name)
    found = run(*fit)
    assert found.exit_code == 0, found.output
    out = tmp_path / "p.parquet"
    found = run("predict", "--model", tmp_path / "model", "--log", shop, *COLUMNS, "--out", out, "--device", "cpu")
    assert found.exit_code == 0, found.output
    setup = Setup((3, 14), unit="user", who="active", days=30, since="first", count_first=True)
    assert Scorer.load(tmp_path / "model").setup == setup
    task = setup.task(LOG, int(LOG.time[-1]) + 1, labelled=False)
    expected = fit_scorer(LOG, name, setup).method.predict(task)
    table = pandas.read_parquet(out)
    np.testing.assert_allclose(table["mean"].to_numpy().reshape(-1, 2), expected.mean, rtol=1e-4)
    np.testing.assert_allclose(table["pay"].to_numpy().reshape(-1, 2), expected.pay, rtol=1e-4)


def test_a_baseline_in_the_folder_of_another(tmp_path):
    Mean().fit([make_task(LOG, 100 * DAY, (3, 7), unit="user", who="all")]).save(tmp_path)
    with pytest.raises(CheckpointError, match="holds a Mean, no BTYD"):
        BTYD.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"single-task\.json"):
        SingleTask.load(tmp_path)


def bad(rows):
    names = ("user", "item", "time", "amount")
    return pandas.DataFrame([dict(zip(names, row, strict=True)) for row in rows])


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([("a", "x", "2024-01-01", 1.0)], (), "do not fit into the log"),
        ([("a", "x", "2024-01-01", "ten")], (), "amount that is no number"),
        ([("a", "x", "2024-01-01", 1.0), ("a", "x", "2024-09-01", np.inf)], (), "amount that is infinite"),
        ([("a", "x", "soon", 1.0)], (), "time in column 'time' that cannot be read"),
        ([("a", "x", "2024-01-01", 1.0), ("a", "x", "2024-02-01", 2.0)], ("--horizons", "3,400"), "do not fit"),
        ([("a", "x", "2024-01-01", 1.0), ("a", "x", "2024-09-01", 2.0)], (), "no pair is new"),
        ([("a", "x", f"2024-{m:02}-01", 0.0) for m in range(1, 13)], ("--who", "all"), "pays within 3 days"),
        ([("a", "x", "2024-01-01", 1.0)], ("--horizons", "7,3"), "--horizons must be rising days"),
        ([("a", "x", "2024-01-01", 1.0)], ("--horizons", "week"), "--horizons must be rising days"),
        ([("a", "x", "2024-01-01", 1.0)], ("--amount", "price"), "is no column of the log"),
        ([("a", "x", "2024-01-01", 1.0)], ("--method", "Meen"), "Did you mean Mean"),
    ],
)
def test_bad_logs(run, tmp_path, rows, more, message):
    path = tmp_path / "bad.csv"
    bad(rows).to_csv(path, index=False)
    found = run("evaluate", "--log", path, "--out", tmp_path / "out", "--method", "Mean", *more)
    assert found.exit_code == 2
    assert message in found.output
    assert "Traceback" not in found.output


def test_a_model_for_another_log(run, shop, tmp_path):
    pytest.importorskip("lightgbm")
    model = tmp_path / "model"
    without = tmp_path / "noitems.csv"
    frame().drop(columns="product").to_csv(without, index=False)
    fit = ("fit", "--log", shop, *COLUMNS, "--out", model, "--method", QUICK)
    assert run(*fit, "--unit", "user", "--who", "all").exit_code == 0
    predict = ("predict", "--model", model, "--out", tmp_path / "p.csv")
    found = run(*predict, "--log", without, "--user", "who", "--time", "when", "--amount", "paid")
    assert found.exit_code == 2
    assert "fitted on a log that has items" in found.output
    found = run(*predict, "--log", shop, *COLUMNS, "--at", "2030-01-01")
    assert found.exit_code == 2
    assert "lies outside the log" in found.output
    found = run("predict", "--model", tmp_path, "--log", shop, *COLUMNS, "--out", tmp_path / "p.csv")
    assert found.exit_code == 2
    found = run(*predict[:3], "--log", shop, *COLUMNS, "--out", tmp_path / "p.xlsx")
    assert "must end in .parquet" in found.output
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("method", ["Mean", "GRePO(epochs=1,width=4,graph=False)"])
def test_nobody_to_learn_from_at_the_fit(run, tmp_path, method):
    path = tmp_path / "free.csv"
    bad([("a", "x", f"2024-{m:02}-{d:02}", 0.0) for m in range(1, 13) for d in (1, 15)]).to_csv(path, index=False)
    found = run("fit", "--log", path, "--out", tmp_path / "m", "--method", method, "--who", "all")
    assert found.exit_code == 2
    assert "pays within 3 days" in found.output


class Boundless(Mean):
    """Says that chances are not numbers."""

    def predict(self, task):
        found = super().predict(task)
        return Forecast(np.full_like(found.pay, np.nan), found.mean)


def test_no_forecast_that_is_not_finite_is_written():
    scorer = fit_scorer(LOG, "test_ltv_commands:Boundless", Setup((3, 14), unit="user", who="all"))
    with pytest.raises(ValueError, match="not finite"):
        next(scorer.table(LOG, 190 * DAY))


class Forgetful(Mean):
    """Cannot be saved."""

    save = None


def test_what_cannot_be_saved(run, shop, tmp_path):
    name = "test_ltv_commands:Forgetful"
    found = run("fit", "--log", shop, *COLUMNS, "--out", tmp_path / "m", "--method", name, "--horizons", "3")
    assert found.exit_code == 2
    assert f"{name} cannot be saved" in found.output


def test_users_never_seen_at_the_fit_are_scored():
    pytest.importorskip("lightgbm")
    early = LOG.before(120 * DAY)
    new = random_log(3000, seed=5, days=200)
    scorer = fit_scorer(early, QUICK, Setup((3, 14), unit="user", who="all"))
    pieces = list(scorer.table(new, 190 * DAY, members=11))
    assert sum(len(piece["user"]) for piece in pieces) == 2 * 40
    assert all(np.isfinite(piece["mean"]).all() for piece in pieces)
    assert scorer.card["events"] == len(early)


def test_a_module_is_imported_only_if_it_is_named(tmp_path):
    pytest.importorskip("lightgbm")
    name = "graphfm.ltv.tweedie:Tweedie(rounds=5)"
    fit_scorer(LOG, name, Setup((3, 14), who="all")).save(tmp_path)
    with pytest.raises(ValueError, match="name it yourself"):
        Scorer.load(tmp_path)
    assert Scorer.load(tmp_path, method=name).name == name


def test_parts_of_a_task():
    task = make_task(LOG, 100 * DAY, (3, 7), unit="pair", who="all")
    pieces = [task.part(slice(low, low + 50)) for low in range(0, len(task.population), 50)]
    assert np.concatenate([one.population.item for one in pieces]).tolist() == task.population.item.tolist()
    whole = Maker(Tweedie, {"rounds": 5})(0).fit([make_task(LOG, 60 * DAY, (3, 7), unit="pair", who="all")])
    found = np.concatenate([whole.predict(one).mean for one in pieces])
    assert np.array_equal(found, whole.predict(task).mean)


def test_the_board_needs_results(tmp_path):
    with pytest.raises(FileNotFoundError):
        leaderboards(tmp_path)
