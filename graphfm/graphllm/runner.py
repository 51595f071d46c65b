"""Every method on every graph under one protocol: cell by cell, resumable, failures written down and passed over."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch_geometric.data import Data

from graphfm.device import as_device
from graphfm.graphllm.backends.base import Counts
from graphfm.graphllm.backends.ledger import Ledger
from graphfm.graphllm.cells import Cell, make_target
from graphfm.graphllm.cost import measured
from graphfm.graphllm.fits import Fits
from graphfm.graphllm.method import Method, Supervised, ZeroShot
from graphfm.graphllm.protocol import answer_scores
from graphfm.graphllm.setup import Setup
from graphfm.graphllm.stock import Remembered, Stock
from graphfm.progress import progress_bar
from graphfm.results import Result, append, cell_key, environment, read

__all__ = ["FAILURES", "RESULTS", "failures", "run"]

RESULTS, FAILURES = "results.jsonl", "failures.jsonl"

_log = logging.getLogger(__name__)


def run(
    datasets: Sequence[Data],
    methods: Sequence[type[Method]],
    *,
    stock: Stock,
    out: str | os.PathLike[str],
    setup: Setup | None = None,
    sources: Sequence[Data] = (),
    leave_out_overlapping: bool = False,
    seeds: Iterable[int] = range(5),
    progress: bool = False,
) -> list[Result]:
    """Measure every method on every dataset for every seed; the seeds are the outer loop.

    Methods never see a label that they may not: the runner hands supervised methods a graph whose ``y`` is -1 outside
    training and validation, and zero-shot methods one without ``y``. Zero-shot methods are scored on the same test
    nodes as supervised ones, less those whose text a source holds nearly word for word.

    The seconds of a cell are those of all settings tried and of the prediction; what encoding the texts took when that
    was first done (little, from a warm cache) is in ``encode_seconds`` beside it. Supervised cells tell
    ``val_accuracy`` too, on validation nodes, so that who picks one method of several need not do so by test nodes.

    Args:
        datasets: graphs with text.
        methods: those of another setting than asked for are left out, with a warning.
        stock: the language models.
        out: folder; cells go to ``results.jsonl`` as they come, and those that it holds are not run again. What fails
            goes to ``failures.jsonl`` and is tried again by the next run.
        setup: the setting.
        sources: graphs that zero-shot methods learn from.
        leave_out_overlapping: leave sources that overlap with a target out for that target instead of refusing.
        seeds: of splits and methods.
        progress: show a progress bar.

    Returns:
        The cells asked for that are measured, those read from ``out`` included.

    Raises:
        ValueError: bad data, sources that overlap with a target, or methods that need a model that is not there.
    """
    setup = setup or Setup()
    chosen = _of_setting(methods, setup)
    for method in chosen:
        stock.of(method)
    targets = [make_target(data, setup, sources, leave_out_overlapping) for data in datasets]
    folder = Path(out)
    finished = {cell_key(one): one for one in read(folder / RESULTS)} if (folder / RESULTS).exists() else {}
    stock = stock if stock.encoder is None else dataclasses.replace(stock, encoder=Remembered(stock.encoder))
    cells = [(seed, target, method) for seed in seeds for target in targets for method in chosen]
    found, fits, counted = [], Fits(), dict[tuple[str, str], Counts]()
    with progress_bar(len(cells), setup.setting, enabled=progress) as advance:
        for seed, target, method in cells:
            cell = Cell(target, method, seed, setup, stock)
            result = finished.get(cell_key(cell.empty()))
            if result is None:
                result = _measure(cell, fits, counted, folder)
            if result is not None:
                found.append(result)
            advance(1, f"{target.data.name}, {method.__name__}, seed {seed}")
    return found


def failures(out: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What failed in a folder and was not measured since; the last error of each cell.

    Each has ``dataset``, ``method``, ``seed``, ``setting``, ``error`` and ``where``.
    """
    path = Path(out) / FAILURES
    if not path.exists():
        return []
    last = {line["key"]: line for line in _lines(path)}
    measured_since = {cell_key(one) for one in read(Path(out) / RESULTS)} if (Path(out) / RESULTS).exists() else set()
    return [line for key, line in last.items() if key not in measured_since]


def _measure(cell: Cell, fits: Fits, counted: dict[tuple[str, str], Counts], folder: Path) -> Result | None:
    """Run a cell and write it down; None where it fails."""
    empty = cell.empty()
    encoder = cell.stock.encoder
    ledger: Ledger | None = getattr(cell.stock.lm, "ledger", None) if "lm" in cell.method.needs else None
    if isinstance(encoder, Remembered):
        encoder.new_cell()
    if ledger is not None:
        ledger.clear()
    try:
        split = cell.split()
        with measured(as_device(cell.setup.device)) as cost:
            answer = cell.answer(split, fits)
        scores, y = answer.scores.float(), cell.target.data.y
        metrics = answer_scores(scores[split.test], y[split.test])
        if cell.setup.setting == "supervised" and split.val.numel():  # to choose among methods by
            metrics["val_accuracy"] = answer_scores(scores[split.val], y[split.val])["accuracy"]
    except Exception as error:  # one method's failure must not end the grid
        _fail(empty, error, folder)
        return None
    metrics |= _texts(cell, answer.method, counted)
    metrics |= _spent(answer.method) | {"left_out": float(cell.target.left_out.sum())}
    seconds, memory = cost.seconds, cost.memory
    if isinstance(encoder, Remembered) and {"encoder", "states"} & set(cell.method.needs):
        metrics["encode_seconds"] = encoder.seconds
        seconds -= encoder.paid
    if ledger is not None:
        metrics |= {"prompts": float(ledger.prompts), "prompts_cut": float(ledger.cut)}
        metrics["encode_seconds"] = metrics.get("encode_seconds", 0.0) + ledger.seconds
        seconds -= ledger.paid
    if answer.fit is not None and answer.fit.used:  # a shared fit costs each cell as much as if it had made it
        seconds, memory = seconds + answer.fit.seconds, max(memory, answer.fit.memory)
        if "encode_seconds" in metrics:
            metrics["encode_seconds"] += answer.fit.encode_seconds
    elif answer.fit is not None:
        answer.fit.memory = memory
    trained = sum(parameter.numel() for parameter in answer.method.trained.values())
    settings = {**empty.settings, "chosen": answer.chosen, "trained_parameters": trained}
    result = dataclasses.replace(
        empty,
        metrics=metrics,
        settings=settings,
        seconds=seconds,
        peak_memory=memory,
        versions=environment(),
    )
    append(folder / RESULTS, result)
    return result


def _texts(cell: Cell, method: Method, counted: dict[tuple[str, str], Counts]) -> dict[str, float]:
    """How many of the target's texts the encoder, else the language model, cuts, and how many hold no word.

    And how many the method cuts before anything reads them, after so many ``characters``.
    """
    told, texts = getattr(method, "characters", None), cell.target.data.text
    shortened = {} if told is None else {"texts_shortened": float(sum(len(text) > told for text in texts))}
    need = next((need for need in ("encoder", "states", "tunable", "lm") if need in cell.method.needs), "")
    count = getattr(getattr(cell.stock, need, None), "count", None)
    if count is None:
        return shortened
    key = need, str(cell.target.data.name)
    if key not in counted:
        counted[key] = count(texts)
    return {"texts_cut": float(counted[key].cut), "texts_empty": float(counted[key].empty)} | shortened


def _spent(method: Method) -> dict[str, float]:
    """Tokens and price that a method counted in ``usage``, if it talks to a model."""
    usage, counted = getattr(method, "usage", None), ("prompt_tokens", "completion_tokens", "price")
    return {} if usage is None else {name: float(getattr(usage, name)) for name in counted}


def _fail(empty: Result, error: Exception, folder: Path) -> None:
    _log.warning("%s on %s, seed %d: %s: %s", empty.method, empty.dataset, empty.seed, type(error).__name__, error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = {
        "key": cell_key(empty),
        "dataset": empty.dataset,
        "method": empty.method,
        "seed": empty.seed,
        "setting": empty.settings["protocol"],
        "error": f"{type(error).__name__}: {error}",
        "where": f"{Path(last.filename).name}:{last.lineno}",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FAILURES).open("a", encoding="utf-8") as file:
        file.write("\n" * _is_torn(folder / FAILURES) + json.dumps(line) + "\n")


def _is_torn(path: Path) -> bool:
    """Whether a file ends within a line."""
    content = path.read_bytes() if path.exists() else b""
    return bool(content) and not content.endswith(b"\n")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """What is written there, but for lines that a killed writer left torn: what failed is tried again anyway."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and "key" in found:
            yield found


def _of_setting(methods: Sequence[type[Method]], setup: Setup) -> list[type[Method]]:
    kind: type[Method] = ZeroShot if setup.setting == "zero-shot" else Supervised
    other = [method.__name__ for method in methods if not issubclass(method, kind)]
    if other:
        _log.warning("%s: not of the %s setting, left out", ", ".join(other), setup.setting)
    chosen = [method for method in methods if issubclass(method, kind)]
    if not chosen:
        raise ValueError(f"methods holds none of the {setup.setting} setting; it has {', '.join(other) or 'none'}.")
    return chosen
