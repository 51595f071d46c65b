"""GRePO's settings, chosen before any test origin is looked at; the rule was stated before the run.

RULE, stated on 2026-11-21. The learning rate (0.001 or 0.003) and whether the trunk has LayerNorms are chosen for each
log and unit, for each of three families: GRePO, GRePO(graph=False) and, of pairs, the latter with item embeddings. Each
of the four combinations is fitted for each of the two newest origins before the first test origin (learning from the
origins before it, save the last of those, by which it stops), with seeds 0 and 1; that of the highest mean normalised
Gini over origins, seeds and horizons is taken, of equal ones the first. All labels that are looked at end at the first
test origin or before. Variants of a family (another head, combiner or graph, fewer payers, one horizon at a time) take
its choice; trees keep their defaults, and stop by validation.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
from ltv_kept import HERE, SETUPS, KeptEncoder, load

from graphfm.data.purchases import DAY
from graphfm.ltv import GRePO, rolling_origins
from graphfm.ltv.maker import maker
from graphfm.ltv.scoring import chosen_by
from graphfm.results import environment

FAMILIES = {"graph": {}, "plain": {"graph": False}, "items": {"graph": False, "item_embedding": True}}
GRID = [{"lr": lr, "norm": norm} for lr, norm in itertools.product((3e-3, 1e-3), (True, False))]
ORIGINS, SEEDS = 2, (0, 1)


def choose(name: str, unit: str) -> dict[str, Any]:
    """Apply the rule to one log and unit, and write ``choice.json`` beside its cells."""
    log, setup = load(name), SETUPS[unit]
    origins = rolling_origins(log, setup.horizons)
    known = (*origins.train, *origins.val)
    if known[-1] + int(setup.horizons[-1] * DAY) > origins.test[0]:
        raise ValueError("labels of the newest origin reach into the first test origin.")
    tasks = [setup.task(log, cutoff) for cutoff in known]
    families = [one for one in FAMILIES if unit == "pair" or one != "items"]
    scores: dict[str, list[list[float]]] = {family: [[] for _ in GRID] for family in families}
    for family, place, seed in itertools.product(families, range(len(known) - ORIGINS, len(known)), SEEDS):
        options = {"graph": KeptEncoder(seed=seed), **FAMILIES[family]}
        prepared = GRePO(seed=seed, **options).prepare(tasks[: place - 1], tasks[place - 1 : place])
        for tried, settings in zip(scores[family], GRID, strict=True):
            model = GRePO(seed=seed, **settings, **options).fit_prepared(prepared)
            tried.append(chosen_by(model.predict(tasks[place]), tasks[place]))
    found = {
        "chosen": {family: GRID[int(np.argmax([np.mean(one) for one in tried]))] for family, tried in scores.items()},
        "scores": {family: [{**s, "gini": g} for s, g in zip(GRID, tried, strict=True)]
                   for family, tried in scores.items()},
        "origins": list(known[-ORIGINS:]),
        "first_test_origin": origins.test[0],
        "seeds": list(SEEDS),
        "setup": dataclasses.asdict(setup),
        "versions": environment(),
    }  # fmt: skip
    path = HERE / f"{name}-{unit}" / "choice.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def chosen(name: str, unit: str, method: str) -> dict[str, Any]:
    """The settings of a method's family.

    Raises:
        FileNotFoundError: nothing was chosen yet.
    """
    path = HERE / f"{name}-{unit}" / "choice.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; run `ltv_tables.py choose` first.")
    arguments = maker(method).arguments
    graph, items = arguments.get("graph", True), arguments.get("item_embedding", False)
    family = "items" if items else "graph" if graph else "plain"
    return json.loads(path.read_text())["chosen"][family]
