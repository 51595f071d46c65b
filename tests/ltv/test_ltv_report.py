"""The page: what it says follows from the cells; curves and deciles against slow ways."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ltv_logs import random_log

from graphfm.ltv import HistoricMean, Maker, Mean, normalised_gini
from graphfm.ltv.evaluate import evaluate_ltv
from graphfm.ltv.gini import gini
from graphfm.ltv.leaderboard import leaderboards
from graphfm.ltv.maker import maker
from graphfm.ltv.metrics import decile_mape
from graphfm.ltv.report import write_ltv_report
from graphfm.ltv.report_front import Front, read_front, write_front
from graphfm.ltv.report_plots import decile_sums, gini_curve
from graphfm.ltv.setup import Setup
from graphfm.results import Result, append

pytest.importorskip("matplotlib")

SETUP = Setup((3, 14), who="all", test=2, drift=2)
VALUES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 1.0, 7.5])), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells")
    methods = {"Mean": Maker(Mean), "<past>": Maker(HistoricMean)}
    evaluate_ltv(random_log(3000, days=200), methods, SETUP, dataset="shop", out=path)
    return path


def test_the_board_is_the_mean_of_its_cells(folder):
    (board,) = leaderboards(folder, draws=50)
    assert board.rows[0].method == "<past>"
    assert board.title == "shop, all pairs"
    leader = board.rows[0]
    assert leader.behind is None
    assert leader.metrics["gini@3"] == pytest.approx(np.mean([one.metrics["gini@3"] for one in leader.cells]))
    zero = next(row for row in board.rows if row.method == "Zero")
    # Zero has no order at all: it lies behind by all that the leader has.
    assert zero.behind.mean == pytest.approx(leader.metrics["gini"], abs=1e-6)
    assert zero.behind.low <= zero.behind.mean <= zero.behind.high


def test_the_page(folder, tmp_path):
    losses, on_front = np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]]), np.array([True, True, False])
    write_front(folder, Front(losses, on_front, (3, 14), np.ones(2), np.ones(2), 0))
    page = write_ltv_report(folder, tmp_path / "deep" / "report.html", title="A & B").read_text()
    assert "A &amp; B" in page
    assert "&lt;past&gt;" in page
    assert "<past>" not in page
    assert page.count("<svg") == 2 + 2 + 2 + 1  # curves, deciles, drift, front
    assert "2 of 3 runs are on the front" in page
    assert not re.search(r'(src|href)="https?:', page)
    assert "#0102" not in page  # every stand-in has become a variable of the page
    for variable in set(re.findall(r"var\(--([a-z0-9-]+)\)", page)):
        assert f"--{variable}:" in page, variable


def test_the_front_of_a_sweep_reaches_the_page(tmp_path):
    makers = {"sweep": maker("ParetoSweep(epochs=1, width=8, graph=False)")}
    evaluate_ltv(random_log(1500, days=200), makers, Setup((3, 14), who="all", test=1), out=tmp_path)
    page = write_ltv_report(tmp_path, tmp_path / "report.html").read_text()
    assert "Validation losses of a sweep" in page
    assert f"of {len(read_front(tmp_path).losses)} runs are on the front" in page
    assert "Runs of a preference sweep" in page


def test_a_page_without_predictions(tmp_path):
    evaluate_ltv(random_log(3000, days=200), {"Mean": Maker(Mean)}, Setup((3, 14), who="all"), out=tmp_path)
    for path in (tmp_path / "predictions").iterdir():
        path.unlink()
    page = write_ltv_report(tmp_path, tmp_path / "report.html").read_text()
    assert "Mean" in page
    assert "How it was measured" in page


def test_results_of_something_else(tmp_path):
    append(tmp_path / "results.jsonl", Result("node-classification", "wine", "probe", 0, {}, {}, 0.0, 0, {}))
    with pytest.raises(ValueError, match="no results about lifetime value"):
        write_ltv_report(tmp_path, tmp_path / "report.html")


@given(VALUES)
def test_the_area_under_a_curve_is_the_gini(rows):
    mean, value = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    many = np.tile(mean, 100), np.tile(value, 100)  # the grid of 1 % then meets every member
    curve = gini_curve(*many)
    if not value.sum() > 0:
        assert np.isnan(curve).all()
        return
    assert (curve[0], curve[-1]) == (0, pytest.approx(1))
    if len(rows) in (1, 2, 4, 5, 10, 20, 25):
        area = np.trapezoid(curve, np.linspace(0, 1, 101))
        assert 2 * area - 1 == pytest.approx(gini(*many), abs=1e-9)
    assert np.isfinite(normalised_gini(mean, value)) or np.ptp(value) == 0


@given(VALUES)
def test_deciles_are_those_of_the_metric(rows):
    mean, value = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    predicted, true = decile_sums(mean, value)
    assert predicted.sum() == pytest.approx(mean.sum())
    assert true.sum() == pytest.approx(value.sum())
    paid = true > 1e-12
    if paid.any():
        expected = (np.abs(predicted - true)[paid] / true[paid]).mean()
        assert decile_mape(mean, value) == pytest.approx(expected)


def front(losses, on_front=(True, False), single=(1.0, 1.0), chosen=0):
    return Front(losses, on_front, (3, 7), single, (1.0, 2.0), chosen)


def test_fronts_that_do_not_fit(tmp_path):
    assert read_front(tmp_path) is None
    one = front(np.array([[1.0, 2.0], [3.0, 4.0]]), chosen=1)
    again = read_front(write_front(tmp_path, one).parent)
    assert again.horizons == (3, 7)
    assert again.chosen == 1
    for name in ("losses", "on_front", "single", "unit"):
        np.testing.assert_array_equal(getattr(again, name), getattr(one, name))
    with pytest.raises(ValueError, match="losses must be"):
        front(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="finite"):
        front(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="single and unit must be"):
        front(np.zeros((2, 2)), single=(1.0,))
    with pytest.raises(ValueError, match="single and unit must be"):
        front(np.zeros((2, 2)), chosen=2)
    for text in ("[1]", '{"losses": [[1, 2]], "on_front": [true], "horizons": [3, 7]}'):
        (tmp_path / "front.json").write_text(text)
        with pytest.raises(ValueError, match="no front that this graphfm wrote"):
            read_front(tmp_path)
