"""Purchase logs and LTV models at scale: ``python benchmarks/ltv.py [--quick] [--big FOLDER]``.

- ``retail``: snapshot and graphs of online_retail (541,909 rows; GRAPHFM_DATA), CPU seconds; aim 5 s.
- ``log``, ``snapshot``: sorting a log of E events and making its snapshot, nanoseconds and private bytes an event, for
  10^5, 10^6 and 10^7 simulated events; aim: within 1.3 x of the smallest. There are 20 events a user and 25 an item,
  with skewed popularity, at every size, so that an event means about the same work: what is left is sorting and caches.
- ``steps``: forward, backward and AdamW of the LTV network at K = 4 horizons, beside the summed loss in the same
  rounds, facts not told (training tells them of one step in ten); aims 1.15 x for MGDA-UB and 2.4 x for MGDA.
- ``predict``: 10^6 pairs forecast by GRePO with its graph encoder, snapshot included, on all cores; aim 60 s.
- ``--big FOLDER``: 10^8 events, written to FOLDER as parquet with integer ids, read, and made a snapshot; aim 24 GB.
  Run it alone: it takes minutes and most of the machine.

Each figure comes from a process of its own; CPU seconds, best of several. Memory is private memory (``RssAnon``) at its
highest over what it was before. Linux only. Figures go to results/ltv/scale.json as they come; ``--only PART`` measures
one of scaling, steps, predict, retail. ``--quick`` is small and writes nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scale import Watch

from graphfm.data.purchase_snapshot import snapshot
from graphfm.data.purchases import DAY, Purchases
from graphfm.results import environment

SIZES, QUICK = (10**5, 10**6, 10**7), (10**4, 10**5)
HORIZONS = (3, 7, 14, 30)
AIMS = {"within": 1.3, "MGDAUB": 1.15, "MGDA": 2.4, "retail": 5.0, "predict": 60.0, "big": 24.0}
OUT = Path(__file__).parent / "results" / "ltv" / "scale.json"


def simulated(events: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """User, item, time and amount in no order; a user has 20 events and an item 25 on the average."""
    rng = np.random.default_rng(seed)
    user = (max(events // 20, 1) * rng.random(events) ** 1.5).astype(np.int64)
    item = (max(events // 25, 1) * rng.random(events) ** 2).astype(np.int64)
    return user, item, rng.integers(0, 365 * DAY, events), rng.lognormal(2, 1, events)


def sort_log(events: int) -> Callable[[], int]:
    """From arrays to a log."""
    arrays = simulated(events)
    return lambda: len(Purchases.from_arrays(*arrays))


def make_snapshot(events: int) -> Callable[[], int]:
    """Features and graphs of everything until the last day."""
    log = Purchases.from_arrays(*simulated(events))

    def work() -> int:
        snapshot(log, 364 * DAY)
        return len(log)

    return work


def retail(_: int) -> Callable[[], int]:
    """The last snapshot of online_retail; the unit is the whole log."""
    from graphfm.data import read_purchases

    log = read_purchases(Path(os.environ["GRAPHFM_DATA"]) / "ltv" / "online_retail" / "purchases.csv.gz")

    def work() -> int:
        snapshot(log, int(log.time[-1]) + 1)
        return 1

    return work


PARTS = {"log": sort_log, "snapshot": make_snapshot, "retail": retail}


def one(part: str, events: int, watch: bool) -> dict[str, float]:
    """One figure, in this process."""
    torch.set_num_threads(1)
    work = PARTS[part](events)
    if watch:
        with Watch() as seen:
            units = work()
        return {"bytes": seen.found["private_mb"] * 2**20 / units}
    best = float("inf")
    for _ in range(2 if events > 10**6 else 5):
        began = time.process_time()
        units = work()
        best = min(best, (time.process_time() - began) / units)
    return {"seconds": best}


def apart(part: str, events: int, *, watch: bool) -> dict[str, float]:
    """One figure, in a process of its own."""
    command = [sys.executable, __file__, "--part", part, "--events", str(events), *(["--watch"] if watch else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def scaling(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Time and memory an event."""
    return [
        {"part": part, "events": events, **apart(part, events, watch=False), **apart(part, events, watch=True)}
        for part in ("log", "snapshot")
        for events in sizes
    ]


def steps(rounds: int, batch: int) -> dict[str, float]:
    """Median over rounds of a step's CPU time beside the summed loss's."""
    from graphfm.ltv.head_gradients import HeadGradients
    from graphfm.ltv.heads import MonotoneHead
    from graphfm.ltv.supervised import Network
    from graphfm.ltv.trunk import Trunk
    from graphfm.pareto import EPO, MGDA, MGDAUB, LossRange, UPGrad, WeightedSum

    torch.manual_seed(0)
    torch.set_num_threads(1)
    width, horizons = 169, len(HORIZONS)  # what a pair has with embeddings of 64
    x = torch.randn(batch, width)
    value = torch.rand(batch, horizons).exp() * (torch.rand(batch, horizons) < 0.1)
    ranges = LossRange((-10.0,) * horizons, (10.0,) * horizons)
    combiners = {
        "sum": WeightedSum(),
        "MGDAUB": MGDAUB(),
        "MGDA": MGDA(),
        "UPGrad": UPGrad(),
        "EPO": EPO(losses=ranges),
    }
    taken: dict[str, list[float]] = {name: [] for name in combiners}
    made = {}
    for name, combiner in combiners.items():
        network = Network(Trunk(width, 64, 2, 0.1, 0), MonotoneHead(64, horizons), width)
        combiner.bind(horizons)
        made[name] = network, combiner, torch.optim.AdamW(network.parameters(), fused=True)
    for _ in range(rounds):
        for name, (network, combiner, optimizer) in made.items():
            began = time.process_time()
            for _ in range(5):
                z = network.trunk(x, None)
                optimizer.zero_grad(set_to_none=True)
                if name == "MGDAUB":  # as graphfm.ltv.supervised has it
                    known = HeadGradients(network.head, z, value)
                    combiner.backward(known.losses, features=z, measure=False, known=known)
                else:
                    losses = network.head(z).loss(value).mean(dim=0)
                    combiner.backward(losses, shared=[*network.parameters()], measure=False)
                optimizer.step()
            taken[name].append((time.process_time() - began) / 5)
    found = {
        name: statistics.median(a / b for a, b in zip(mine, taken["sum"], strict=True)) for name, mine in taken.items()
    }
    return {**found, "ms of the sum": 1e3 * min(taken["sum"])}


def predict(pairs: int) -> dict[str, float]:
    """Wall and CPU seconds to forecast so many pairs, the snapshot included."""
    from graphfm.ltv import GRePO, make_task

    log = Purchases.from_arrays(*simulated(int(1.1 * pairs)))
    fit = [make_task(log, day * DAY, HORIZONS, unit="pair", who="new", days=3) for day in (200, 260)]
    model = GRePO(epochs=1, seed=0).fit(fit[:1], fit[1:])
    task = make_task(log, 360 * DAY, HORIZONS, unit="pair", who="all", labelled=False)
    wall, cpu, members = time.perf_counter(), time.process_time(), 0
    for _, forecast in model.stream(task):
        members += len(forecast)
    found = {"pairs": members, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {**found, "cpu for 10^6": found["cpu"] / members * 1e6, "threads": torch.get_num_threads()}


def big(folder: Path, events: int = 10**8) -> dict[str, float]:
    """Write, read, snapshot; the peak is that of the process."""
    import pyarrow
    from pyarrow import parquet

    from graphfm.data import read_purchases
    from graphfm.results import peak_memory

    path = folder / f"events-{events}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        writer = None
        piece = 10**6
        rng = np.random.default_rng(0)
        for low in range(0, events, piece):  # in the order of time, as logs are
            when = np.sort(rng.integers(low, low + piece, piece)) * (365 * DAY // events)
            columns = {
                "user_id": (events // 20 * rng.random(piece) ** 1.5).astype(np.int64),
                "item_id": (events // 25 * rng.random(piece) ** 2).astype(np.int64),
                "timestamp": (np.datetime64("2024-01-01", "us") + when.astype("timedelta64[us]")),
                "amount": rng.lognormal(2, 1, piece),
            }
            table = pyarrow.table(columns)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    found: dict[str, float] = {"events": events}
    began = time.process_time()
    log = read_purchases(path)
    found |= {"read s": time.process_time() - began, "read peak GB": peak_memory() / 1e9}
    began = time.process_time()
    snapshot(log, int(log.time[-1]) + 1)
    return found | {"snapshot s": time.process_time() - began, "peak GB": peak_memory() / 1e9}


def _report(found: dict[str, Any]) -> None:
    console = Console()
    table = Table(title="an event of a simulated log, one thread")
    for name in ("part", "events", "ns", "x", "bytes", "x "):
        table.add_column(name, justify="right")
    for part, rows in itertools.groupby(found.get("scaling", []), key=lambda row: row["part"]):
        mine = list(rows)
        for row in mine:
            time_ratio, memory_ratio = (row[k] / mine[0][k] if mine[0][k] else 0.0 for k in ("seconds", "bytes"))
            cells = (f"{1e9 * row['seconds']:.0f}", f"{time_ratio:.2f}", f"{row['bytes']:.0f}", f"{memory_ratio:.2f}")
            table.add_row(part, f"{row['events']:,}", *cells)
    console.print(table)
    console.print({name: value for name, value in found.items() if name not in ("scaling", "versions")})


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("retail", "steps", "predict", "scaling"))
    parser.add_argument("--big", type=Path, metavar="FOLDER")
    parser.add_argument("--big-events", type=int, default=10**8)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--events", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--watch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(one(options.part, options.events, options.watch)))
        return
    quick = options.quick
    measures: dict[str, Callable[[], Any]] = {
        "retail": lambda: apart("retail", 0, watch=False) if os.environ.get("GRAPHFM_DATA") else None,
        "steps": lambda: {str(batch): steps(5 if quick else 30, batch) for batch in (1024, 16_384)},
        "predict": lambda: predict(10**4 if quick else 10**6),
        "scaling": lambda: scaling(QUICK if quick else SIZES),
    }
    if options.big:
        measures = {"big": lambda: big(options.big, options.big_events)}
    elif options.only:
        measures = {options.only: measures[options.only]}
    found = json.loads(OUT.read_text()) if OUT.exists() and not quick else {}
    for name, measure in measures.items():
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        found |= {name: measure(), "machine": platform.machine(), "versions": environment(), "aims": AIMS}
        found["load"] = {**found.get("load", {}), name: round(load, 1)}  # processes a core when it began
        if not quick:
            OUT.parent.mkdir(parents=True, exist_ok=True)
            OUT.write_text(json.dumps(found, indent=1) + "\n")
    _report(found)


if __name__ == "__main__":
    main()
