"""Methods on graphs with text under one protocol: supervised and zero-shot, five seeds, the seeds outermost.

python benchmarks/glbench_tables.py run [--models tfidf] [--seeds 5] [--minutes 30]   measure what is missing
python benchmarks/glbench_tables.py table [--models tfidf]                            tables and the page

`table` answers two questions as well (glbench_answers.py): do enhancers beat classical GNNs on the same embeddings, and
does anything zero-shot beat propagation of text embeddings?

--models says which language models there are, and what is measured with them:

minilm  the packaged MiniLM embeds the texts; what reads frozen vectors first, then what tunes the encoder (slow: in
        bfloat16, and on the first 128 tokens of a text)
tfidf   TF-IDF and an SVD, without a model; zero-shot methods that learn from sources do not run
tiny    what needs a causal model, with a tiny Llama trained on the dataset's own texts (text vectors, where a method
        reads them as well, are MiniLM's); these figures say that methods run, nothing about language models, and
        stand in a table of their own
smollm2 the packaged SmolLM2-135M-Instruct is asked for classes, zero-shot and without training, in bfloat16, beside the
        rules on MiniLM's vectors that need no training either

Graphs with text are read from GRAPHFM_DATA/tag. Cells go to results/glbench/MODELS/results.jsonl as they come; a run
that was stopped goes on.
"""

import argparse
import dataclasses
import itertools
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

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
NAMES = {
    "minilm": "MiniLM",
    "tfidf": "TF-IDF",
    "tiny": "a tiny causal model trained on the spot, beside MiniLM",
    "smollm2": "SmolLM2-135M-Instruct, beside MiniLM",
}
TINY = (
    "The causal language model is a Llama of two layers, 64 wide, that was trained on the texts of each graph on the "
    "spot; methods that read text vectors as well have them from MiniLM. The rows show that and how the methods run "
    "and say nothing about what language models can do."
)
# An SVD's vectors of sources and target cannot be compared, and it has no layers.
NOT_WITH_TFIDF = ("OFAZeroShot", "FrozenZeroG", "EncoderENGINE")
HERE = Path(__file__).parent / "results" / "glbench"


def stock_for(models: str, graph: Any) -> Any:
    """The language models of a run; the tiny ones see the texts and class names of ``graph``, and no label."""
    from graphfm.graphllm.commands import make_stock

    if models == "tfidf":
        return make_stock(models)
    if models == "minilm":
        from graphfm.graphllm import SentenceEncoder

        return dataclasses.replace(make_stock(models), tunable=SentenceEncoder(max_tokens=128, precision="bfloat16"))
    if models == "smollm2":
        import torch

        from graphfm.graphllm import LocalLM

        return dataclasses.replace(make_stock("minilm"), tunable=None, lm=LocalLM.load(dtype=torch.bfloat16))
    from graphfm.graphllm.backends.tiny import tiny_llama

    return dataclasses.replace(make_stock("minilm"), tunable=None, lm=tiny_llama(graph.text, graph.label_text))


def rounds(models: str) -> list[list[type[Any]]]:
    """Methods that run on ``models``, the cheap ones in a round before the others.

    With the tiny models only those that need a causal one: an encoder can be had whole, and is measured so. With
    SmolLM2 what is zero-shot and trains nothing.
    """
    from graphfm.graphllm.catalogue import methods
    from graphfm.graphllm.method import ZeroShot

    needs = {kind: set(kind.needs) for kind in methods().values()}
    if models == "smollm2":
        asked = [kind for kind, need in needs.items() if need == {"lm"} and issubclass(kind, ZeroShot)]
        return [[kind for kind in needs if kind.__name__ in ("TextPropagation", "TextCosine")], asked]
    if models == "tiny":
        return [[kind for kind, need in needs.items() if "lm" in need and "chat" not in need]]
    frozen = [kind for kind, need in needs.items() if need <= {"encoder", "states"}]
    if models == "tfidf":
        return [[kind for kind in frozen if kind.__name__ not in NOT_WITH_TFIDF]]
    tuning = [kind for kind, need in needs.items() if "tunable" in need and need <= {"encoder", "tunable"}]
    return [frozen, tuning]


def run(models: str, seeds: int, minutes: float, datasets: list[str], only: list[str]) -> None:
    """Measure round by round, seed by seed, graph by graph, until the time is over."""
    import torch

    import graphfm
    from graphfm.graphllm.method import ZeroShot
    from graphfm.graphllm.runner import run as measure
    from graphfm.graphllm.setup import Setup

    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    graphs = [graphfm.load(name) for name in datasets]
    teachers = [graphfm.load(name) for name in SOURCES]
    stocks: dict[str, Any] = {}
    end = time.monotonic() + 60 * minutes
    for kinds, seed, setting in itertools.product(rounds(models), range(seeds), ("supervised", "zero-shot")):
        zero = setting == "zero-shot"
        wanted = [k for k in kinds if issubclass(k, ZeroShot) == zero and (not only or k.__name__ in only)]
        if not wanted:
            continue
        # Targets with the same sources share what was fitted on them, if they are asked together.
        for targets in [graphs] if zero and models not in ("tiny", "smollm2") else [[graph] for graph in graphs]:
            if time.monotonic() > end:
                logging.info("time is over; the next run goes on from here")
                return
            key = targets[0].name if models == "tiny" else ""
            if key not in stocks:
                stocks[key] = stock_for(models, targets[0])
            logging.info("%s, %s, seed %d", ", ".join(graph.name for graph in targets), setting, seed)
            measure(
                targets,
                wanted,
                stock=stocks[key],
                out=HERE / models,
                setup=Setup(setting=setting),
                sources=teachers if zero else [],
                leave_out_overlapping=True,
                seeds=[seed],
            )


def table(models: str) -> dict[str, object]:
    """Mean accuracy with half its 95 % interval by setting, method and dataset; ranks; differences; and the page."""
    from glbench_answers import KIN, answers

    from graphfm.graphllm.page import write_glbench_report
    from graphfm.graphllm.runner import RESULTS
    from graphfm.graphllm.standings import standings
    from graphfm.results import read

    folder = HERE / models
    found: dict[str, object] = {}
    cells = read(folder / RESULTS)
    for one in standings(cells, KIN):
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
    found["answers"] = answers(cells)
    (folder / "summary.json").write_text(json.dumps(defined(found), indent=1) + "\n")
    hours = math.fsum(one.seconds for one in cells) / 3600
    about = f"In all {hours:.1f} hours of one core; a fit that targets share is counted for each."
    about = f"{TINY}\n\n{about}" if models == "tiny" else about
    (folder / "summary.md").write_text(markdown(found, title=f"Graphs with text, {NAMES[models]}", about=about))
    write_glbench_report(folder, title=f"Graphs with text, {NAMES[models]}", kin=KIN)
    return found


def defined(value: Any) -> Any:
    """The same with null in place of NaN, which is no JSON."""
    if isinstance(value, dict):
        return {key: defined(one) for key, one in value.items()}
    if isinstance(value, list):
        return [defined(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def markdown(found: dict[str, Any], title: str, about: str = "") -> str:
    """The same as Markdown: accuracy by method and dataset, then the differences."""
    lines = [f"# {title}", "", "Accuracy in %, mean and half of the 95 % interval over seeds (how many, if not five):",
             "of the split and of what is trained; a training-free method has no spread but that of test nodes, which",
             "overlap from seed to seed. Over datasets, and in ranks, cora and cora_ml count as one: they share most",
             "of their texts. Intervals and counts are not corrected for the number of comparisons."]  # fmt: skip
    lines += ["", about] if about else []
    for setting in (name for name in found if name != "answers"):
        methods = found[setting]["methods"]
        datasets = [name for name in DATASETS if any(name in got for got in methods.values())]
        lines += ["", f"## {setting.capitalize()}", "", "| | " + " | ".join(datasets) + " | seconds |"]
        lines.append("|---|" + "---:|" * (len(datasets) + 1))
        for method, got in methods.items():
            spent = found[setting]["seconds"][method]
            cells = [score(*got[name]) if name in got else "" for name in datasets]
            lines.append(f"| {method} | " + " | ".join(cells) + f" | {'' if math.isnan(spent) else round(spent, 1)} |")
        if not math.isnan(found[setting]["p_value"] or math.nan):  # two methods or two datasets are too few
            lines += ["", f"Friedman: p = {found[setting]['p_value']:.2g}; ranks that differ by less than "
                      f"{found[setting]['critical_difference']:.2f} cannot be told apart."]  # fmt: skip
    for question, methods in found["answers"].items():
        lines += [
            "",
            f"## Difference, {question}",
            "",
            "| | over datasets | WebKB as one | graphs above | below | of |",
        ]
        lines.append("|---|---:|---:|---:|---:|---:|")
        for method, got in methods.items():
            if got is not None:
                told = " | ".join(
                    f"{mean:+.1f}" + ("" if half is None else f" ± {half:.1f}")
                    for mean, half, _ in (got["over datasets"], got["WebKB as one"])
                )
                lines.append(f"| {method} | {told} | {got['above']} | {got['below']} | {len(got['by dataset'])} |")
    return "\n".join(lines) + "\n"


def score(mean: float, half: float, count: int) -> str:
    """``82.1 ± 8.5``, with the number of seeds if it is not five."""
    interval = "" if math.isnan(half) else f" ± {100 * half:.1f}"
    return f"{100 * mean:.1f}{interval}" + ("" if count == 5 else f" ({count})")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--models", default="minilm", choices=tuple(NAMES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=360.0)
    parser.add_argument("--datasets", default=",".join(DATASETS))
    parser.add_argument("--only", default="", help="methods; all if left out")
    options = parser.parse_args()
    if options.what == "run":
        only = [name for name in options.only.split(",") if name]
        run(options.models, options.seeds, options.minutes, options.datasets.split(","), only)
    else:
        print(json.dumps(defined(table(options.models)), indent=1))


if __name__ == "__main__":
    main()
