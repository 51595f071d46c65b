"""Tables and heat maps from the cells of prompt_grid.py."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot_table import STRONGEST
from prompt_grid import BASES, GRAPH_TARGETS, METHODS, PROMPTS, SHOTS
from prompt_grid_leak import LEAKED, PADDINGS
from prompt_grid_leak import METHODS as LEAK_METHODS

from graphfm.results import Result, paired, read

RULE, GRAPH_RULE = "strongest rule", "features + degrees"  # rules named before anything was measured
AGAINST = ("probe", RULE, "finetune", "adapter:LoRA(rank=8)")


def write_tables(folder: Path, targets: Sequence[str]) -> str:
    """Write summary.md, summary.json and a heat map for each number of labels; returns the page."""
    cells = load(folder, targets)
    have = [t for t in targets if any(c.dataset == t and c.method != RULE for c in cells)]
    found = {against: differences(cells, have, against) for against in AGAINST}
    lines = [
        "# Prompts on pretrained networks", "", "`python benchmarks/prompt_grid.py tune`, `run`, `leak`, `table`.", "",
        *rates(json.loads((folder / "rates.json").read_text())), "", *coverage(cells, have), "",
        *verdicts(found), "",
    ]  # fmt: skip
    for shots in SHOTS:
        lines += [*accuracies(cells, have, shots), ""]
    lines += leak_table(folder / "leak.jsonl")
    (folder / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    text = "\n".join(lines) + "\n"
    (folder / "summary.md").write_text(text)
    for shots in SHOTS:
        plot(cells, found["probe"], have, shots, folder / f"heat-{shots}.png")
    return text


def load(folder: Path, targets: Sequence[str]) -> list[Result]:
    """All cells, methods named with their base, and the strongest rule of each number of labels."""
    cells: list[Result] = []
    for target in targets:
        own, rules = folder / f"{target}.jsonl", folder.parent / "fewshot" / f"{target}.jsonl"
        rules = own if target in GRAPH_TARGETS else rules
        for c in read(own) if own.exists() else []:
            if c.settings["group"] == "pretrained":
                cells.append(dataclasses.replace(c, method=f"{c.settings['base']} {c.method}"))
        for c in read(rules) if rules.exists() else []:
            shots = c.settings["shots"]
            rule = GRAPH_RULE if target in GRAPH_TARGETS else STRONGEST[shots]
            if shots in SHOTS and c.settings["group"] == "floor" and c.method == rule:
                cells.append(dataclasses.replace(c, method=RULE))
    return cells


def short(method: str) -> str:
    """A name for tables."""
    return method.removeprefix("prompt:").removeprefix("adapter:").removesuffix("()")


def differences(cells: Sequence[Result], targets: Sequence[str], against: str) -> list[dict[str, Any]]:
    """Of each prompt, base, target and number of labels the paired difference in points, with its interval."""
    entries = []
    for target in targets:
        for shots in SHOTS:
            here = [c for c in cells if c.dataset == target and c.settings["shots"] == shots]
            there = {c.method for c in here}
            for base in BASES:
                baseline = against if against == RULE else f"{base} {against}"
                for method in PROMPTS if against != "probe" else (*PROMPTS, *METHODS[len(PROMPTS) : -1]):
                    if {f"{base} {method}", baseline} <= there:
                        gap = paired(here, f"{base} {method}", baseline)
                        if gap.n < 2:  # no interval
                            continue
                        entries.append({
                            "target": target, "shots": shots, "base": base, "method": method, "splits": gap.n,
                            "mean": round(100 * gap.mean, 2), "half": round(100 * gap.half_width, 2), "p": gap.p_value,
                        })  # fmt: skip
    return entries


def survivors(entries: Sequence[dict[str, Any]]) -> set[int]:
    """Places of the entries that stay below 0.05 after Holm's correction for the number of entries."""
    kept: set[int] = set()
    order = sorted(range(len(entries)), key=lambda i: entries[i]["p"])
    for rank, place in enumerate(order):
        if not entries[place]["p"] <= 0.05 / (len(entries) - rank):
            break
        kept.add(place)
    return kept


def verdicts(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """How often each prompt is above and below, by its interval and after Holm's correction."""
    lines = [
        "Targets x networks x numbers of labels in which the 95 % interval of a paired difference lies above or below",
        "zero; in parentheses those left after Holm's correction for all of a column.", "",
        "| prompt | " + " | ".join(f"above {short(a)} | below" for a in found) + " | of |",
        "|---" * (2 * len(found) + 2) + "|",
    ]  # fmt: skip
    kept = {against: survivors(entries) for against, entries in found.items()}
    for method in PROMPTS:
        row, total = [], 0
        for against, entries in found.items():
            own = [(i, e) for i, e in enumerate(entries) if e["method"] == method]
            total = len(own)
            for sign in (1, -1):
                clear = [i for i, e in own if sign * e["mean"] - e["half"] > 0]
                row.append(f"{len(clear)} ({sum(i in kept[against] for i in clear)})")
        lines.append(f"| {short(method)} | " + " | ".join(row) + f" | {total} |")
    return [*lines, "", *places(found["probe"], "probe"), "", *places(found[RULE], RULE)]


def places(entries: Sequence[dict[str, Any]], against: str) -> list[str]:
    """Where a prompt is above something by its interval."""
    clear = [e for e in entries if e["method"] in PROMPTS and e["mean"] - e["half"] > 0]
    clear.sort(key=lambda e: -e["mean"])
    said = [
        f"{short(e['method'])} on {e['target']}, {e['base']}, {e['shots']} ({e['mean']:+.1f} ± {e['half']:.1f})"
        for e in clear
    ]
    return [f"Above the {against} (prompt, target, network, labels a class): {'; '.join(said) or 'nowhere'}."]


def rates(chosen: dict[str, Any]) -> list[str]:
    """Learning rates, and what they were chosen by."""
    lines = [
        "Learning rates, chosen on wine, breast_cancer and Actor (node) and MUTAG (graph); mean accuracy in %:",
        "",
    ]
    for kind, found in chosen.items():
        grid = list(next(iter(found["accuracy"].values())))
        lines += [f"| {kind} | " + " | ".join(grid) + " | chosen |", "|---" * (len(grid) + 2) + "|"]
        for method, row in found["accuracy"].items():
            shown = " | ".join(f"{row[lr]:.1f}" for lr in grid)
            lines.append(f"| {short(method)} | {shown} | {found['chosen'][method]:g} |")
        lines.append("")
    return lines[:-1]


def coverage(cells: Sequence[Result], targets: Sequence[str]) -> list[str]:
    """How many seeds are there."""
    said = []
    for target in targets:
        seeds = [
            {c.seed for c in cells if (c.dataset, c.method) == (target, f"{b} {m}")} for b in BASES for m in METHODS
        ]
        said.append(f"{target} {min(len(s) for s in seeds)}")
    return [f"Splits of which every method, network and number of labels is measured: {', '.join(said)}."]


def accuracies(cells: Sequence[Result], targets: Sequence[str], shots: int) -> list[str]:
    """Mean accuracy of every method and network on each target."""
    head = [f"## {shots} label{'s' * (shots > 1)} a class: accuracy in %", ""]
    head += ["| network | method | " + " | ".join(targets) + " |", "|---" * (len(targets) + 2) + "|"]
    rows = [f"| - | {RULE} | " + " | ".join(mean(cells, t, shots, RULE) for t in targets) + " |"]
    for base in BASES:
        for method in METHODS:
            shown = " | ".join(mean(cells, t, shots, f"{base} {method}") for t in targets)
            rows.append(f"| {base} | {short(method)} | {shown} |")
    return head + rows


def mean(cells: Sequence[Result], target: str, shots: int, method: str) -> str:
    """In percent; over the splits that are there."""
    own = [
        c.metrics["accuracy"] for c in cells if (c.dataset, c.settings["shots"], c.method) == (target, shots, method)
    ]
    return f"{100 * sum(own) / len(own):.1f}" if own else ""


def leak_table(path: Path) -> list[str]:
    """Padding by true label beside none and a blind one."""
    if not path.exists():
        return []
    cells = read(path)
    lines = [
        "## What padding ego graphs by true label is worth: accuracy in % (NOT HONEST in the column `label`)", "",
        "| target | labels | method | no padding | blind padding | padding by TRUE LABEL | label - blind |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for target in LEAKED:
        for shots in SHOTS:
            for method in LEAK_METHODS:
                own = [c for c in cells if (c.dataset, c.settings["shots"], c.method) == (target, shots, method)]
                if not own:
                    continue
                named = [dataclasses.replace(c, method=c.settings["padding"]) for c in own]
                shown = " | ".join(mean(named, target, shots, padding) for padding in PADDINGS)
                gap = paired(named, "label", "blind")
                worth = f"{100 * gap.mean:+.1f} ± {100 * gap.half_width:.1f}"
                lines.append(f"| {target} | {shots} | {short(method)} | {shown} | {worth} |")
    return lines


def plot(
    cells: Sequence[Result], entries: Sequence[dict[str, Any]], targets: Sequence[str], shots: int, path: Path
) -> None:
    """Points above the probe on the same network, a panel for each network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    methods = METHODS[:-1]
    figure, panels = plt.subplots(
        1, len(BASES), figsize=(3.3 * len(BASES) + 1.5, 4.2), layout="constrained", sharey=True
    )
    here = {(e["base"], e["method"], e["target"]): e for e in entries if e["shots"] == shots}
    limit = 15
    for axes, base in zip(panels, BASES, strict=True):
        values = np.full((len(methods), len(targets)), np.nan)
        for i, method in enumerate(methods):
            for j, target in enumerate(targets):
                entry = here.get((base, method, target))
                if entry is None:
                    continue
                values[i, j] = entry["mean"]
                clear = abs(entry["mean"]) > entry["half"]
                colour = "white" if abs(entry["mean"]) > 0.65 * limit else "black"
                weight = "bold" if clear else "normal"
                axes.text(
                    j, i, f"{entry['mean']:+.0f}", ha="center", va="center", color=colour, fontsize=8, weight=weight
                )
        image = axes.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
        axes.set_xticks(range(len(targets)), targets, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(methods)), [short(m) for m in methods], fontsize=9)
        axes.set_title({"none": "untrained"}.get(base, base), fontsize=10)
        axes.axhline(len(PROMPTS) - 0.5, color="black", lw=0.8)
    figure.colorbar(image, ax=panels, shrink=0.8, label="points above the linear probe")
    figure.suptitle(
        f"{shots} label{'s' * (shots > 1)} a class: accuracy above the linear probe on the same network "
        "(bold: 95 % interval excludes 0)", fontsize=10,
    )  # fmt: skip
    figure.savefig(path, dpi=130)
    plt.close(figure)
