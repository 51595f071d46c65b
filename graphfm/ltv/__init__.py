"""Lifetime value over several horizons from a purchase log: origins, labels, leak audit, baselines, metrics.

Names are imported when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphfm.ltv.audit import audit_leaks
    from graphfm.ltv.bgnbd import BGNBD
    from graphfm.ltv.bootstrap import Difference, Sample, paired_bootstrap
    from graphfm.ltv.btyd import BTYD
    from graphfm.ltv.controls import FewerPayers, RewiredGRePO, rewired
    from graphfm.ltv.dominance import hypervolume
    from graphfm.ltv.ensemble import Ensemble
    from graphfm.ltv.evaluate import evaluate_ltv
    from graphfm.ltv.forecast import Forecast
    from graphfm.ltv.front import ParetoFront
    from graphfm.ltv.gammagamma import GammaGamma
    from graphfm.ltv.gini import normalised_gini
    from graphfm.ltv.grepo import GRePO
    from graphfm.ltv.heads import MonotoneHead, ZILNHead
    from graphfm.ltv.labels import Labels, future_value
    from graphfm.ltv.maker import Maker
    from graphfm.ltv.metrics import ltv_scores, monotonicity_violations
    from graphfm.ltv.origins import Origins, rolling_origins
    from graphfm.ltv.plain import HistoricMean, Mean, Zero
    from graphfm.ltv.population import Population, choose
    from graphfm.ltv.pretraining import PurchaseEncoder
    from graphfm.ltv.setup import Setup
    from graphfm.ltv.single_task import SingleTask
    from graphfm.ltv.sweep import ParetoSweep, preference_grid
    from graphfm.ltv.task import Task, make_task
    from graphfm.ltv.tweedie import Tweedie
    from graphfm.ltv.two_stage import TwoStage
    from graphfm.ltv.ziln import ZILN

_WHERE = {
    "BGNBD": "bgnbd",
    "BTYD": "btyd",
    "Difference": "bootstrap",
    "Ensemble": "ensemble",
    "FewerPayers": "controls",
    "Forecast": "forecast",
    "GRePO": "grepo",
    "GammaGamma": "gammagamma",
    "HistoricMean": "plain",
    "Labels": "labels",
    "Maker": "maker",
    "Mean": "plain",
    "MonotoneHead": "heads",
    "Origins": "origins",
    "ParetoFront": "front",
    "ParetoSweep": "sweep",
    "Population": "population",
    "PurchaseEncoder": "pretraining",
    "RewiredGRePO": "controls",
    "Sample": "bootstrap",
    "Setup": "setup",
    "SingleTask": "single_task",
    "Task": "task",
    "Tweedie": "tweedie",
    "TwoStage": "two_stage",
    "ZILN": "ziln",
    "ZILNHead": "heads",
    "Zero": "plain",
    "audit_leaks": "audit",
    "choose": "population",
    "evaluate_ltv": "evaluate",
    "future_value": "labels",
    "hypervolume": "dominance",
    "ltv_scores": "metrics",
    "make_task": "task",
    "monotonicity_violations": "metrics",
    "normalised_gini": "gini",
    "paired_bootstrap": "bootstrap",
    "preference_grid": "sweep",
    "rewired": "controls",
    "rolling_origins": "origins",
}

__all__ = [
    "BGNBD",
    "BTYD",
    "Difference",
    "Ensemble",
    "FewerPayers",
    "Forecast",
    "GRePO",
    "GammaGamma",
    "HistoricMean",
    "Labels",
    "Maker",
    "Mean",
    "MonotoneHead",
    "Origins",
    "ParetoFront",
    "ParetoSweep",
    "Population",
    "PurchaseEncoder",
    "RewiredGRePO",
    "Sample",
    "Setup",
    "SingleTask",
    "Task",
    "Tweedie",
    "TwoStage",
    "ZILN",
    "ZILNHead",
    "Zero",
    "audit_leaks",
    "choose",
    "evaluate_ltv",
    "future_value",
    "hypervolume",
    "ltv_scores",
    "make_task",
    "monotonicity_violations",
    "normalised_gini",
    "paired_bootstrap",
    "preference_grid",
    "rewired",
    "rolling_origins",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
