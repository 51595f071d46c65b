"""Evidence on lifetime value: what beats what on real logs, and three claims with rules stated before any run.

python benchmarks/ltv_tables.py choose          settings of the networks, on earlier origins: see ltv_choice.py
python benchmarks/ltv_tables.py run [--logs online_retail,complete_journey] [--units pair,user] [--seeds 5]
python benchmarks/ltv_tables.py sweeps [the same options]
python benchmarks/ltv_tables.py claims          the rules applied to what is there: results/ltv/claims.json
python benchmarks/ltv_tables.py rivals          what beats boosted trees, see ltv_rivals.py: results/ltv/rivals.json
python benchmarks/ltv_tables.py months          does the order hold from month to month, see ltv_months.py: months.json

Cells go to results/ltv/LOG-UNIT/ as they come (one JSON line each, predictions beside them, which stay out of the
repository); a run that was stopped goes on. Protocol: horizons of 3, 7, 14 and 30 days, three test origins 30 days
apart, the one before each for early stopping; pairs that came about in the 7 days before an origin, users who bought in
the 30 days before it. Learning rate and LayerNorm of the networks are what ``choose`` has found on origins before any
test origin (ltv_choice.py); all else is the default of each class.

RULES, stated on 2026-11-21 before the runs. "A above B": the 95 % interval of the paired bootstrap over users (1000
draws, origins, horizons and seeds averaged) of A's normalised Gini less B's lies above zero. A claim holds on a log and
unit or does not; all are reported.

1. "The graph helps" if GRePO is above each of: the boosted trees with neighbour means (both), the MLP with item
   embeddings (``GRePO(graph=False, item_embedding=True)``), and itself on rewired graphs; and if its lead over the MLP
   without graph (``GRePO(graph=False)``) grows as payers are left out: larger with 10 % of the payers than with all
   of them (means over cells). Any part that fails fails the claim.
2. "Pareto helps" if a sweep over preferences with MGDA (PE-LTR's bounds), EPO or UPGrad, beside one over as many
   weighted sums: (a) has a larger share of runs that are at no horizon worse on validation than the single-horizon
   model; and (b) covers a larger hypervolume, normalised by one range, in at least 60 % of the (origin, seed). Equal
   wall time: of each sweep only the first runs count that end within the total of the quickest sweep of that cell.
3. "Monotone heads violate nothing" if ``violations`` and ``violations_pay`` are exactly 0 in every cell of GRePO.

The sweeps of rule 2 are cells of their own (``sweeps``): losses and seconds of every run, no predictions. What no rule
reads (trees without neighbours, other heads and combiners, 30 % and 3 % of the payers, one horizon at a time) has two
seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ltv_choice import choose, chosen
from ltv_kept import HERE, SETUPS, KeptEncoder, load, sharing
from ltv_months import months
from ltv_rivals import rivals
from rich.console import Console

from graphfm.ltv import evaluate_ltv
from graphfm.ltv.bootstrap import Difference, Sample, paired_bootstrap
from graphfm.ltv.evaluate import TASK, predictions_of
from graphfm.results import Result, read

TREES = ("TwoStage(neighbours=True)", "Tweedie(neighbours=True)")
GRAPH, PLAIN, ITEMS = "GRePO", "GRePO(graph=False)", "GRePO(graph=False, item_embedding=True)"
REWIRED = "graphfm.ltv.controls:RewiredGRePO"
BASELINES = ("Mean", "HistoricMean", "BTYD", "TwoStage", "Tweedie", *TREES)
NETWORKS = (PLAIN, GRAPH, "GRePO(head='ZILNHead')", "SingleTask", REWIRED)
SHARES = (0.3, 0.1, 0.03)
COMBINERS = ("MGDA", "MGDA(lower=0.1)", "EPO", "UPGrad", "MGDAUB", "UncertaintyWeighting")
SWEEPS = ("WeightedSum", "MGDA", "EPO", "UPGrad")


def seeds_of(method: str, seeds: int) -> range:
    """All seeds for what a rule reads, two for the others."""
    read = (*TREES, GRAPH, PLAIN, ITEMS, REWIRED)
    return range(seeds if method in read or "share=0.1" in method else min(seeds, 2))


def methods(unit: str) -> list[str]:
    """Names of all methods of a unit; users have no item to embed."""
    fewer = [
        f"graphfm.ltv.controls:FewerPayers(share={share}{more})" for share in SHARES for more in ("", ", graph=False")
    ]
    combined = [f"GRePO(combine={name!r})" for name in COMBINERS]
    return [*BASELINES, *NETWORKS, *([ITEMS] if unit == "pair" else []), *fewer, *combined]


def run(name: str, unit: str, seeds: int, only: list[str] | None) -> None:
    """Every method of one log and unit, one at a time: a method that fails stops no other."""
    log, console = load(name), Console()
    for method in only or methods(unit):
        try:
            found = evaluate_ltv(
                log,
                {method: sharing(method, **chosen(name, unit, method))},
                SETUPS[unit],
                dataset=name,
                seeds=seeds_of(method, seeds),
                out=HERE / f"{name}-{unit}",
            )
        except (ValueError, FloatingPointError) as error:
            console.print(f"{name} {unit} {method}: {error}", style="red", markup=False)
            continue
        mine = [one.metrics["gini"] for one in found if one.method == method]
        console.print(f"{name} {unit} {method}: {np.mean(mine):.3f} ({len(mine)} cells)", markup=False)


def sweeps(name: str, unit: str, seeds: int) -> None:
    """The sweeps of rule 2, one JSON file for an origin and seed."""
    from graphfm.ltv import GRePO, preference_grid, rolling_origins
    from graphfm.ltv.front import common_scale
    from graphfm.ltv.sweep import measured_range, preferring, sweep

    log, setup = load(name), SETUPS[unit]
    origins = rolling_origins(log, setup.horizons)
    cutoffs = (*origins.train, *origins.val, *origins.test)
    tasks = [setup.task(log, cutoff) for cutoff in cutoffs]
    first = len(cutoffs) - setup.test
    for seed in range(seeds):
        for place in range(first, len(tasks)):
            path = HERE / f"{name}-{unit}" / "sweeps" / f"{place - first}-{seed}.json"
            if path.exists():
                continue
            model = GRePO(seed=seed, graph=KeptEncoder(seed=seed), **chosen(name, unit, GRAPH))
            prepared = model.prepare(tasks[: place - 1], tasks[place - 1 : place])
            grid = preference_grid(len(setup.horizons))
            measured = measured_range(model, prepared)
            fronts = {kind: sweep(model, prepared, grid, preferring(kind), measured) for kind in SWEEPS}
            scale = common_scale(list(fronts.values()))
            cell: dict[str, Any] = {
                kind: {
                    "losses": front.losses.tolist(),
                    "unharmed": front.unharmed.tolist(),
                    "seconds": [sum(point.model.history["seconds"]) for point in front.points],
                    "single": list(front.single),
                }
                for kind, front in fronts.items()
            }
            cell["scale"] = {"ideal": list(scale.ideal), "reference": list(scale.reference)}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(cell, indent=1) + "\n")


def above(folder: Path, cells: dict[str, list[Result]], one: str, other: str) -> Difference | None:
    """The paired bootstrap of two methods over the origins and seeds that both have; ``None`` without predictions."""
    theirs = {(cell.settings["origin"], cell.seed): cell for cell in cells.get(other, [])}
    unseeded = {origin: cell for (origin, seed), cell in theirs.items() if len({s for _, s in theirs}) == 1}
    samples = []
    for cell in cells.get(one, []):
        origin = cell.settings["origin"]
        match = theirs.get((origin, cell.seed)) or unseeded.get(origin)
        if match is None:
            continue
        try:
            mine, its = predictions_of(folder, cell), predictions_of(folder, match)
        except FileNotFoundError:
            return None
        for k in range(mine["value"].shape[1]):
            if (mine["value"][:, k] > 0).any():
                columns = (np.asarray(c[:, k], float) for c in (mine["value"], mine["mean"], its["mean"]))
                samples.append(Sample(mine["user"], *columns))
    return paired_bootstrap(samples) if samples else None


def claims() -> list[dict[str, Any]]:
    """The rules applied to every log and unit that has cells; rule 1 stays as it was where predictions are gone."""
    before = json.loads(path.read_text()) if (path := HERE / "claims.json").exists() else []
    known_before = {one["where"]: one for one in before}
    found = []
    for path in sorted(HERE.glob("*-*/results.jsonl")):
        cells: dict[str, list[Result]] = {}
        for one in read(path):
            if one.task == TASK:
                cells.setdefault(one.method, []).append(one)
        unit = path.parent.name.rsplit("-", 1)[1]
        rivals = [*TREES, REWIRED, *([ITEMS] if unit == "pair" else [])]
        parts = {name: above(path.parent, cells, GRAPH, name) for name in rivals}
        lead = {
            share: gini(cells, one) - gini(cells, other)
            for share, one, other in [
                (1.0, GRAPH, PLAIN),
                *(
                    (s, *(f"graphfm.ltv.controls:FewerPayers(share={s}{m})" for m in ("", ", graph=False")))
                    for s in SHARES
                ),
            ]
        }
        known = all(part is not None for part in parts.values()) and np.isfinite([lead[1.0], lead[0.1]]).all()
        helps = known and all(part.low > 0 for part in parts.values() if part) and lead[0.1] > lead[1.0]
        falls = [one.metrics[name] for one in cells.get(GRAPH, []) for name in ("violations", "violations_pay")]
        found.append({
            "where": path.parent.name,
            "graph helps": bool(helps) if known else "not decided",
            "GRePO less rival": {k: v and [v.mean, v.low, v.high] for k, v in parts.items()},
            "lead over the MLP by share of payers": lead,
            "pareto": pareto(path.parent / "sweeps"),
            "monotone heads violate nothing": not any(falls) if falls else "not decided",
            "mean normalised Gini": {name: gini(cells, name) for name in sorted(cells, key=lambda n: -gini(cells, n))},
        })  # fmt: skip
        if not known and path.parent.name in known_before:
            told = known_before[path.parent.name]
            found[-1] |= {name: told[name] for name in ("graph helps", "GRePO less rival")}
    return found


def all_rivals() -> dict[str, Any]:
    """What beats boosted trees on every log and unit whose predictions are there."""
    kept = json.loads(path.read_text()) if (path := HERE / "rivals.json").exists() else {}
    for path in sorted(HERE.glob("*-*/results.jsonl")):
        found = rivals(path.parent, [one for one in read(path) if one.task == TASK])
        kept |= {path.parent.name: found} if found else {}
    return kept


def all_months() -> dict[str, Any]:
    """The order of methods at every origin."""
    places = [path.parent.name for path in sorted(HERE.glob("*-*/choice.json"))]
    return {place: months(*place.rsplit("-", 1)) for place in places}


def pareto(folder: Path) -> dict[str, Any]:
    """Rule 2 on the sweeps that are there."""
    cells = [equal_time(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    if not cells:
        return {"holds": "not decided"}
    told: dict[str, Any] = {"cells": len(cells)}
    for name in SWEEPS:
        told[name] = {
            "hypervolume": float(np.mean([one[name]["volume"] for one in cells])),
            "larger": float(np.mean([one[name]["volume"] > one["WeightedSum"]["volume"] for one in cells])),
            "unharmed": float(np.mean([one[name]["unharmed"] for one in cells])),
            "runs": float(np.mean([one[name]["runs"] for one in cells])),
        }
    plain = told["WeightedSum"]["unharmed"]
    told["holds"] = any(told[n]["larger"] >= 0.6 and told[n]["unharmed"] > plain for n in SWEEPS if n != "WeightedSum")
    return told


def equal_time(cell: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Hypervolume and share of unharmed runs of each sweep, within the time of the quickest."""
    from graphfm.ltv import hypervolume

    ideal, reference = (np.array(cell["scale"][name]) for name in ("ideal", "reference"))
    budget = min(sum(cell[name]["seconds"]) for name in SWEEPS)
    found = {}
    for name in SWEEPS:
        runs = max(int((np.cumsum(cell[name]["seconds"]) <= budget * (1 + 1e-9)).sum()), 1)
        losses = (np.array(cell[name]["losses"][:runs]) - ideal) / (reference - ideal)
        volume = hypervolume(losses, np.ones(len(ideal)))
        found[name] = {"volume": volume, "unharmed": float(np.mean(cell[name]["unharmed"][:runs])), "runs": runs}
    return found


def gini(cells: dict[str, list[Result]], name: str) -> float:
    """Mean normalised Gini of a method over its cells."""
    return float(np.mean([one.metrics["gini"] for one in cells[name]])) if cells.get(name) else float("nan")


def main() -> None:
    """Run, or apply the rules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("choose", "run", "sweeps", "claims", "rivals", "months"))
    parser.add_argument("--logs", default="online_retail,complete_journey")
    parser.add_argument("--units", default="pair,user")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--method", action="append", help="one or several; all if left out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what in ("claims", "rivals", "months"):
        told: Any = {"claims": claims, "rivals": all_rivals, "months": all_months}[options.what]()
        text = json.dumps(told, indent=1, default=float)
        (HERE / f"{options.what}.json").write_text(text + "\n")
        print(text)
        return
    for name in options.logs.split(","):
        for unit in options.units.split(","):
            if options.what == "choose":
                print(name, unit, json.dumps(choose(name, unit)["chosen"]))
            elif options.what == "sweeps":
                sweeps(name, unit, options.seeds)
            else:
                run(name, unit, options.seeds, options.method)


if __name__ == "__main__":
    main()
