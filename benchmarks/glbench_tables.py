"""Methods on graphs with text under one protocol: supervised and zero-shot, five seeds, the seeds outermost.

python benchmarks/glbench_tables.py run [--encoder tfidf] [--seeds 5] [--minutes 30]   measure what is missing
python benchmarks/glbench_tables.py table                                              tables and the page

The packaged MiniLM embeds the texts (tfidf: TF-IDF and an SVD, without a model; zero-shot methods that learn from
sources then do not run). Graphs with text are read from GRAPHFM_DATA/tag. Cells go to
results/glbench/ENCODER/results.jsonl as they come; a run that was stopped goes on.
"""

import argparse
import json
import logging
import time
from pathlib import Path

DATASETS = (
    "tag/webkb_texas",
    "tag/webkb_cornell",
    "tag/webkb_wisconsin",
    "tag/citeseer_sub",
    "tag/cora",
    "tag/cora_ml",
    "debian",
)
SOURCES = ("tag/webkb_wisconsin", "tag/citeseer_sub", "debian")  # of zero-shot methods; a target's kin is left out
HERE = Path(__file__).parent / "results" / "glbench"


def run(encoder: str, seeds: int, minutes: float, datasets: list[str]) -> None:
    """Measure seed by seed, graph by graph, until the time is over."""
    import torch

    import graphfm
    from graphfm.graphllm.catalogue import methods
    from graphfm.graphllm.commands import make_stock
    from graphfm.graphllm.method import ZeroShot
    from graphfm.graphllm.runner import Setup
    from graphfm.graphllm.runner import run as measure

    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stock = make_stock(encoder)
    graphs = [graphfm.load(name) for name in datasets]
    teachers = [graphfm.load(name) for name in SOURCES]
    usable = [kind for kind in methods().values() if set(kind.needs) <= {"encoder"}]
    parts = {
        "supervised": [kind for kind in usable if not issubclass(kind, ZeroShot)],
        "zero-shot": [kind for kind in usable if issubclass(kind, ZeroShot)],
    }
    end = time.monotonic() + 60 * minutes
    for seed in range(seeds):
        for setting, kinds in parts.items():
            for graph in graphs:
                if time.monotonic() > end:
                    logging.info("time is over; the next run goes on from here")
                    return
                sources = [one for one in teachers if one.name != graph.name] if setting == "zero-shot" else []
                logging.info("%s, %s, seed %d", graph.name, setting, seed)
                measure(
                    [graph],
                    kinds,
                    stock=stock,
                    out=HERE / encoder,
                    setup=Setup(setting=setting),
                    sources=sources,
                    leave_out_overlapping=True,
                    seeds=[seed],
                )


def table(encoder: str) -> dict[str, object]:
    """Mean accuracy with half its 95 % interval by setting, method and dataset; ranks; and the page."""
    from graphfm.graphllm.page import write_glbench_report
    from graphfm.graphllm.runner import RESULTS
    from graphfm.graphllm.standings import standings
    from graphfm.results import read

    folder = HERE / encoder
    found: dict[str, object] = {}
    for one in standings(read(folder / RESULTS)):
        found[one.setting] = {
            "methods": {
                line.method: {name: [got.mean, got.half_width, got.n] for name, got in line.accuracy.items()}
                for line in one.lines
            },
            "ranks": None
            if one.ranking is None
            else dict(zip(one.ranking.methods, one.ranking.mean_ranks, strict=True)),
            "p_value": None if one.ranking is None else one.ranking.p_value,
            "critical_difference": None if one.ranking is None else one.ranking.difference,
            "seconds": {line.method: line.seconds for line in one.lines},
        }
    (folder / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    write_glbench_report(folder, title=f"Graphs with text, {encoder}")
    return found


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=360.0)
    parser.add_argument("--datasets", default=",".join(DATASETS))
    options = parser.parse_args()
    if options.what == "run":
        run(options.encoder, options.seeds, options.minutes, options.datasets.split(","))
    else:
        print(json.dumps(table(options.encoder), indent=1))


if __name__ == "__main__":
    main()
