"""Which objective carries over, and what joins the domains best: coordinators, tokens or nothing.

python benchmarks/cross_domain.py run [--only DGI,BGRL] [--joined isolated,coordinators] [--norm none,BatchNorm]
python benchmarks/cross_domain.py table     table, summary.json, and the short table in README.md
python benchmarks/cross_domain.py collapse  what link prediction makes of the embedding, with and without normalisation

Sources citeseer, pubmed, computers, squirrel, texas, cs; targets cora, photo, wisconsin, chameleon, which are none of
them, at 1, 3 and 5 labels a class, ten splits. FAGCN-128, ten epochs of random walks in batches of 100, the same for
all; a linear probe on the embedding alone (``skip=False``). One JSON file a pretraining in results/cross_domain/; what
is there is not run again.

FAGCN as GCOPE has it has no normalisation. At the start its biases then outweigh what tells nodes apart 25 times, and
objectives that score nodes one by one fall into few directions; hence the rows with batch normalisation between layers.
"""

import argparse
import json
import os
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "results" / "cross_domain"
SOURCES = ("citeseer", "pubmed", "computers", "squirrel", "texas", "cs")
TARGETS = ("cora", "photo", "wisconsin", "chameleon")
SHOTS, SPLITS, SEED, EPOCHS = (1, 3, 5), range(10), 0, 10
OBJECTIVES = ("GraphCL", "SimGRACE", "DGI", "BGRL", "GraphMAE", "LinkPrediction", "MaskedGraph", "MultiTask")
JOINED = ("isolated", "coordinators", "domain tokens", "structure tokens")
NORMS = ("BatchNorm", "none")
UNTRAINED = "untrained"


def joins(name: str) -> object:
    """What is given as ``coordinators=``."""
    import graphfm

    made = {
        "isolated": lambda: None,
        "coordinators": lambda: graphfm.Coordinators(1),
        "domain tokens": graphfm.DomainTokens,
        "structure tokens": graphfm.StructureTokens,
    }
    return made[name]()


def run(objectives: list[str], joined: list[str], norm: str) -> None:
    """Measure every pair that has no file."""
    import torch

    import graphfm
    from graphfm.evaluate import untrained

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="classes .* have one node each")
    HERE.mkdir(parents=True, exist_ok=True)
    sources = [graphfm.load(name) for name in SOURCES]
    graphs = {name: graphfm.load(name) for name in TARGETS}
    for how in joined:
        for name in objectives:
            path = HERE / f"{name}-{how.replace(' ', '-')}-{norm}.json"
            if path.exists():
                continue
            before = time.process_time()
            model = graphfm.pretrain(
                sources,
                backbone=graphfm.backbones.FAGCN(100, 128, norm=None if norm == "none" else norm),
                objective=getattr(graphfm.objectives, name)(),
                coordinators=joins(how),
                sampler=graphfm.samplers.RandomWalks(batch_size=100),
                epochs=EPOCHS,
                seed=SEED,
            )
            seconds = time.process_time() - before
            cell = {"objective": name, "joined": how, "norm": norm, "seconds": seconds}
            keep(path, cell | {"accuracy": probe(model, graphs)})
            if not (HERE / f"{UNTRAINED}-{norm}.json").exists():
                cell = {"objective": UNTRAINED, "joined": "isolated", "norm": norm, "seconds": 0.0}
                keep(HERE / f"{UNTRAINED}-{norm}.json", cell | {"accuracy": probe(untrained(model, 0), graphs)})


def probe(model: Any, graphs: dict, shots: tuple[int, ...] = SHOTS) -> dict[str, list[float]]:
    """Accuracy in percent for each target and number of labels, one a split."""
    import graphfm

    found: dict[str, list[float]] = {}
    for target, data in graphs.items():
        # The way into the network needs no labels: once for all splits, as evaluate has it.
        data.name, unifier = target, model.unifier
        unifier.names, unifier.projections = [target], [unifier.projection(data)]
        for labels in shots:
            for seed in SPLITS:
                split = graphfm.few_shot(data.y, shots=labels, seed=seed)
                chosen = graphfm.adapt(model, data, split, method="probe", seed=0, skip=False).predict(data).argmax(1)
                right = (chosen[split.test] == data.y[split.test]).float().mean()
                found.setdefault(f"{target} {labels}", []).append(round(100 * float(right), 3))
    return found


def keep(path: Path, cell: dict) -> None:
    """Write a cell whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(cell) + "\n")
    os.replace(part, path)


def table() -> None:
    """Print and write means over the targets, and the paired difference to the untrained network."""
    from scipy.stats import ttest_1samp

    cells = [json.loads(path.read_text()) for path in sorted(HERE.glob("*-*.json")) if not path.match("walks-*")]
    controls = {cell["norm"]: cell["accuracy"] for cell in cells if cell["objective"] == UNTRAINED}
    report = []
    head = "| norm | objective | joined | 1 label a class | 3 | 5 | above / below untrained, of 12 | CPU-s |"
    print(head + "\n" + "|---" * 8 + "|")
    for cell in sorted(cells, key=lambda c: (c["norm"], c["joined"], c["objective"])):
        control = controls[cell["norm"]]
        means = [statistics.fmean(statistics.fmean(cell["accuracy"][f"{t} {k}"]) for t in TARGETS) for k in SHOTS]
        above = below = 0
        for place, values in cell["accuracy"].items():
            difference = [a - b for a, b in zip(values, control[place], strict=True)]
            if any(difference):
                interval = ttest_1samp(difference, 0.0).confidence_interval(0.95)
                above, below = above + bool(interval.low > 0), below + bool(interval.high < 0)
        row = {key: cell[key] for key in ("norm", "objective", "joined")} | {"means": [round(m, 2) for m in means]}
        report.append(row | {"above": above, "below": below, "seconds": round(cell["seconds"], 1)})
        shown = " | ".join(f"{m:.1f}" for m in means)
        named = " | ".join((row["norm"], row["objective"], row["joined"]))
        print(f"| {named} | {shown} | {above} / {below} | {cell['seconds']:.0f} |")
    keep(HERE / "summary.json", {"targets": TARGETS, "shots": SHOTS, "rows": report})
    write_short(report)


def write_short(report: list[dict[str, Any]]) -> None:
    """Put means and counts, one column for each way of joining, between the marks in README.md."""
    told = {
        (row["norm"], row["objective"], row["joined"]): " / ".join(f"{m:.1f}" for m in row["means"])
        + f" ({row['above']}, {row['below']})"
        for row in report
    }
    lines = ["| norm | objective | " + " | ".join(JOINED) + " |", "|---" * (2 + len(JOINED)) + "|"]
    for norm in NORMS:
        for objective in OBJECTIVES:
            row = [told.get((norm, objective, how), "") for how in JOINED]
            lines += ["| " + " | ".join((norm, objective, *row)) + " |"] if any(row) else []
    readme = Path(__file__).parent / "README.md"
    before, _, rest = readme.read_text().partition("<!-- cross:begin -->\n")
    _, end, after = rest.partition("<!-- cross:end -->")
    readme.write_text(f"{before}<!-- cross:begin -->\n" + "\n".join(lines) + f"\n{end}{after}")


def collapse() -> None:
    """Of embeddings of Cora: what varies as a share of the norm, and the effective rank (2007 Roy and Vetterli)."""
    import torch

    import graphfm
    from graphfm.evaluate import untrained

    torch.set_num_threads(1)
    sources, target, report = [graphfm.load(name) for name in SOURCES], graphfm.load("cora"), []
    for norm in NORMS:
        for epochs in (1, 3):
            model = graphfm.pretrain(
                sources,
                backbone=graphfm.backbones.FAGCN(100, 128, norm=None if norm == "none" else norm),
                objective=graphfm.objectives.LinkPrediction(),
                sampler=graphfm.samplers.RandomWalks(batch_size=100),
                epochs=epochs,
                seed=SEED,
            )
            for name, one in (("untrained", untrained(model, 0)), (f"{epochs} epochs", model)):
                with torch.no_grad():
                    h = one.backbone.eval()(model.unifier.transform(target), target.edge_index).double()
                centred = h - h.mean(0)
                share = torch.linalg.svdvals(centred)
                share = share / share.sum()
                row = {"norm": norm, "network": name, "varies": float(centred.norm() / h.norm())}
                row |= {"effective_rank": float(torch.exp(torch.special.entr(share).sum()))}
                if row not in report:
                    report.append(row)
                    print(f"{norm:10} {name:10} varies {row['varies']:.3f}, effective rank {row['effective_rank']:.1f}")
    keep(HERE / "collapse.json", {"rows": report})


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "collapse"))
    parser.add_argument("--only", default=",".join(OBJECTIVES))
    parser.add_argument("--joined", default=",".join(JOINED))
    parser.add_argument("--norm", default=",".join(NORMS))
    options = parser.parse_args()
    if options.what == "table":
        table()
    elif options.what == "collapse":
        collapse()
    else:
        for norm in options.norm.split(","):
            run(options.only.split(","), options.joined.split(","), norm)


if __name__ == "__main__":
    main()
