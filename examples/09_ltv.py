"""What will a customer be worth? Methods side by side over rolling origins, a report, and scores of today.

python examples/09_ltv.py [--log FILE | --complete-journey] [--out FOLDER] [--horizons 3,7,14]

Without --log a small shop is simulated: customers come at rates of their own, like some kinds of items, buy some of
them again and again, and stop one day. Names of columns are recognised, or given to read_purchases.
"""

import argparse
import importlib.util
import tempfile
import time
from pathlib import Path

import numpy as np

from graphfm.data.purchases import DAY, Purchases
from graphfm.ltv import Setup, audit_leaks, evaluate_ltv
from graphfm.ltv.leaderboard import leaderboards
from graphfm.ltv.maker import maker
from graphfm.ltv.report import write_ltv_report
from graphfm.ltv.saved import Scorer, fit_scorer


def simulated_shop(users: int = 500, items: int = 120, kinds: int = 6, days: int = 300, seed: int = 0) -> Purchases:
    """Customers differ in rate, in what they pay and in the kind of items they like; many stop."""
    rng = np.random.default_rng(seed)
    start, stay = rng.integers(0, days, users), rng.exponential(120, users)
    until = np.minimum(start + stay, days)
    visits = rng.poisson(rng.gamma(0.8, 0.15, users) * (until - start)) + 1
    user = np.repeat(np.arange(users), visits)
    day = start[user] + rng.random(len(user)) * (until - start)[user]
    likes = rng.dirichlet(np.full(kinds, 0.3), users)
    kind = (rng.random((len(user), 1)) > likes[user].cumsum(axis=1)).sum(axis=1).clip(max=kinds - 1)
    price = rng.lognormal(2, 0.7, items)
    item = kind * (items // kinds) + (items // kinds * rng.random(len(user)) ** 3).astype(int)  # few are bought often
    amount = price[item] * rng.lognormal(0, 0.2, len(user)) * (1 + rng.poisson(0.3, len(user)))
    when = np.datetime64("2024-01-01", "us").astype(np.int64) + (day * DAY).astype(np.int64)
    return Purchases.from_arrays(user, item, when, amount)


def methods() -> list[str]:
    """From nothing to a graph; boosted trees where LightGBM is there."""
    names = ["Mean", "HistoricMean", "BTYD"]
    if importlib.util.find_spec("lightgbm") is not None:
        names += ["TwoStage(rounds=150)", "Tweedie(rounds=150, neighbours=True)"]
    return [*names, "GRePO(graph=False, epochs=8)", "GRePO(epochs=8)"]


def main() -> None:
    """Read or simulate, audit, compare, report, fit, score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log", type=Path, help="CSV or parquet; needs the extra ltv")
    parser.add_argument("--complete-journey", action="store_true", help="a year of 2,469 households (extra ltv)")
    parser.add_argument("--out", type=Path, help="a folder to keep; a temporary one if left out")
    parser.add_argument("--horizons", default="3,7,14")
    options = parser.parse_args()
    began = time.perf_counter()
    out = options.out or Path(tempfile.mkdtemp(prefix="graphfm-ltv-"))
    if options.complete_journey:
        from graphfm.data.purchase_journey import complete_journey

        log, name = complete_journey(), "Complete Journey"
    elif options.log is None:
        log, name = simulated_shop(), "a simulated shop"
    else:
        from graphfm.data import read_purchases

        log, name = read_purchases(options.log), options.log.stem.split(".")[0]
    print(f"{name}: {len(log)} purchases of {len(log.users)} users and {len(log.items)} items")

    large = len(log) > 100_000  # then fewer origins, and pairs of the last days, so that it takes minutes
    audit_leaks(log, log.time[len(log) // 5])
    print("shuffling the future changes no bit of the graph of the past")
    horizons = tuple(float(days) for days in options.horizons.split(","))
    days, test, history = (5, 1, 180.0) if large else (14, 2, None)
    spacing = max(horizons[-1], 21.0)
    setup = Setup(horizons, unit="pair", who="new", days=days, test=test, spacing=spacing, history=history)
    makers = {text: maker(text) for text in methods()}
    evaluate_ltv(log, makers, setup, dataset=name, out=out)
    (board,) = leaderboards(out)
    print(f"\n{board.title}; normalised Gini by horizon\n{'':<38}" + "".join(f"{f'{d:g} d':>8}" for d in horizons))
    for row in board.rows:
        print(f"{row.method:<38}" + "".join(f"{row.at('gini', days):>8.3f}" for days in horizons))
    print(f"report: {write_ltv_report(out, out / 'report.html', title=f'Lifetime value: {name}')}")

    # What is used tomorrow: fitted on all that is known, saved, loaded, and asked about customers of today.
    best = next(row.method for row in board.rows if row.method.startswith(("GRePO", "TwoStage", "Tweedie")))
    fit_scorer(log, best, setup).save(out / "model")
    scorer = Scorer.load(out / "model")
    table = next(scorer.table(log, int(log.time[-1]) + 1))
    last = table["horizon"] == horizons[-1]
    top = np.argsort(-table["mean"][last])[:3]
    print(f"\n{best}: the best of {last.sum()} new pairs over {horizons[-1]:g} days")
    for place in top:
        user, item = table["user"][last][place], table["item"][last][place]
        pay, mean = table["pay"][last][place], table["mean"][last][place]
        print(f"  user {user}, item {item}: P(pay) {pay:.2f}, expected {mean:.2f}")
    print(f"Done in {time.perf_counter() - began:.0f} s.")


if __name__ == "__main__":
    main()
