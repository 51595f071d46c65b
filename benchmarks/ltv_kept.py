"""The logs and questions of the LTV tables, and what their cells have in common: made once, the numbers the same.

A cell spends most of its time on its encoder, which knows neither labels nor heads: it is the same for each method, and
for pairs and users, of one log, origin and seed. It is kept in GRAPHFM_CACHE (else ~/.cache/graphfm), in
``ltv-encoders``, under a hash of the snapshots, of the seed, and of the code that pretrains; so ``fit_seconds`` of a
cell hold pretraining only where it came first.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphfm.bundle import CheckpointError, read_bundle, write_bundle
from graphfm.data.purchases import Purchases
from graphfm.ltv import PurchaseEncoder, Setup
from graphfm.ltv.maker import Maker, Method, maker
from graphfm.ltv.task import Task
from graphfm.results import environment

HERE = Path(__file__).parent / "results" / "ltv"
_CODE = ("graphfm.ltv.pretraining", "graphfm.pretrain", "graphfm.objectives.masked", "graphfm.objectives.links")


@dataclasses.dataclass(frozen=True)
class Kept(Setup):
    """A setup that makes the task (and so the snapshot) of a cutoff once."""

    def task(self, log: Purchases, cutoff: int, *, labelled: bool = True) -> Task:
        """The task at one cutoff."""
        return _task(self, log, cutoff, labelled)


@functools.cache
def _task(setup: Kept, log: Purchases, cutoff: int, labelled: bool) -> Task:
    return Setup.task(setup, log, cutoff, labelled=labelled)


SETUPS = {
    "pair": Kept((3, 7, 14, 30), unit="pair", who="new", days=7),
    "user": Kept((3, 7, 14, 30), unit="user", who="active", days=30),
}


@functools.cache
def load(name: str) -> Purchases:
    """A log of GRAPHFM_DATA; products alone, and by type where there are types."""
    from graphfm.data import read_purchases

    folder = Path(os.environ["GRAPHFM_DATA"]) / "ltv" / name
    if name == "complete_journey":
        import pandas

        events = pandas.read_csv(folder / "purchases.csv.gz")
        kinds = pandas.read_csv(folder / "items.csv.gz", usecols=["item", "product_type"])
        events = events.merge(kinds, on="item", how="left")
        columns = {"user": "user", "item": "product_type", "time": "timestamp", "amount": "amount"}
        return read_purchases(events, **columns)
    return read_purchases(folder / "purchases.csv.gz", item_pattern=r"\d{5}[A-Za-z]*")


class KeptEncoder(PurchaseEncoder):
    """A :class:`PurchaseEncoder` that is read where the same one was fitted before, and embeds a snapshot once."""

    _fitted: ClassVar[dict[str, KeptEncoder]] = {}

    def __init__(self, *, seed: int) -> None:
        super().__init__(seed=seed)
        self._embedded: dict[int, tuple[weakref.ref[HeteroData], dict[str, Tensor]]] = {}

    def fit(self, snapshots: Sequence[HeteroData]) -> KeptEncoder:
        """Fit, or read."""
        name = _fingerprint(snapshots, self.seed)
        folder = Path(os.environ.get("GRAPHFM_CACHE") or "~/.cache/graphfm").expanduser() / "ltv-encoders" / name
        if name in self._fitted:
            return self._fitted[name]
        try:
            known = PurchaseEncoder.from_state(*read_bundle(folder, "encoder"))
            self.networks, self.cards, self.until = known.networks, known.cards, known.until
        except (CheckpointError, OSError):
            super().fit(snapshots)
            write_bundle(folder, "encoder", *self.state())
        self._fitted[name] = self
        return self

    def embed(self, snapshot: HeteroData) -> dict[str, Tensor]:
        """As :meth:`PurchaseEncoder.embed`, kept for as long as the snapshot lives."""
        place = id(snapshot)
        if place not in self._embedded:
            alive = weakref.ref(snapshot, lambda _: self._embedded.pop(place, None))
            self._embedded[place] = alive, super().embed(snapshot)
        return self._embedded[place][1]


class Sharing(Maker):
    """A maker whose methods have a :class:`KeptEncoder`, unless they go without a graph."""

    def __call__(self, seed: int, **more: Any) -> Method:
        """A fresh method."""
        return super().__call__(seed, **{"graph": KeptEncoder(seed=seed), **more})


def sharing(text: str, **chosen: Any) -> Sharing:
    """The method of a name; of the arguments ``chosen`` those that it takes and does not name itself."""
    made = maker(text)
    fitting = {name: value for name, value in chosen.items() if name in made.takes}
    return Sharing(made.method, {**fitting, **made.arguments})


def _fingerprint(snapshots: Sequence[HeteroData], seed: int) -> str:
    found = hashlib.sha256(f"{seed} {environment()}".encode())
    for module in _CODE:
        found.update(Path(importlib.import_module(module).__file__ or "").read_bytes())
    for one in snapshots:
        parts: list[Tensor] = [torch.tensor(one.cutoff)]
        for kind, path in (("user", ("user", "like", "user")), ("item", ("item", "with", "item"))):
            parts += [one[kind].x, one[path].edge_index, one[path].edge_weight]
        for part in parts:
            found.update(part.contiguous().numpy().tobytes())
    return found.hexdigest()[:24]
