"""Prompts against probe, fine-tuning and LoRA, on networks pretrained in three ways and on one that was not.

python benchmarks/prompt_grid.py tune                                   learning rates, on graphs that are no targets
python benchmarks/prompt_grid.py run [--targets cora,proteins] [--seeds 10]   measure what is not measured yet
python benchmarks/prompt_grid.py leak                                   the published leaky protocol beside the honest
python benchmarks/prompt_grid.py table                                  tables, JSON and heat maps from what is there

Networks are pretrained leave-one-out (those of fewshot.py, and GraphMAE in the same way); splits and rules are those of
fewshot.py. Every family has the same steps and weight decay, and one learning rate for all targets and networks, chosen
by `tune` from the same six on a network of GCOPE. Seeds are the outer loop, so that what is there is balanced. Cells go
to results/prompt_grid/TARGET.jsonl as they come; a run that was stopped goes on.
"""

import argparse
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import fewshot

PROMPTS = tuple(f"prompt:{name}()" for name in "GPF GPFPlus AllInOne GraphPrompt EdgePrompt MultiGPrompt".split())
TRAINED = (*PROMPTS, "finetune", "adapter:LoRA(rank=8)")
METHODS = (*TRAINED, "probe")
BASES = ("none", "graphcl", "gcope", "graphmae")
NODE_TARGETS = ("wisconsin", "cora", "citeseer", "chameleon", "photo")
GRAPH_TARGETS = ("proteins",)
SHOTS, STEPS = (1, 5), 50
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
TUNED_ON = {"node": ("wine", "breast_cancer", "actor"), "graph": ("mutag",)}  # neither targets nor sources
TUNING_SEEDS, TUNING_BASES = (100, 101), ("gcope",)
HERE = Path(__file__).parent / "results" / "prompt_grid"


def graphmae(target: str) -> Any:
    """The network pretrained by GraphMAE on all sources but the target; kept, as fewshot.py's."""
    import graphfm

    folder = Path(tempfile.gettempdir()) / "graphfm-fewshot" / f"{target}-graphmae-0"
    if (folder / "model.json").exists():
        return graphfm.Pretrained.load(folder)
    model = graphfm.pretrain(
        [graphfm.load(name) for name in fewshot.NINE if name != target],
        backbone=graphfm.backbones.FAGCN(100, 128),
        objective=graphfm.objectives.GraphMAE(),
        sampler=graphfm.samplers.RandomWalks(batch_size=100),
        epochs=10,
        seed=0,
    )
    model.save(folder)
    return model


class Targets:
    """Data and networks, each loaded once."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.models: dict[tuple[str, str], Any] = {}

    def graph(self, target: str) -> Any:
        """A target's data."""
        import graphfm

        if target not in self.data:
            self.data[target] = graphfm.load(target)
            self.data[target].name = target
        return self.data[target]

    def model(self, target: str, base: str, seed: int) -> Any:
        """The network of one kind of pretraining that never saw the target; ``none`` is drawn anew for each seed."""
        from graphfm.evaluate import untrained

        data = None if is_batch(target) else self.graph(target)
        if base == "none":
            return untrained(self.model(target, "graphcl", seed), seed, data)
        if (target, base) not in self.models:
            left_out = target if target in fewshot.NINE else "actor"  # that of Actor was pretrained on all nine
            kind = {"graphcl": "isolated"}.get(base, base)
            model = graphmae(left_out) if base == "graphmae" else fewshot.pretrained(left_out, kind, 0)
            if data is not None:  # the way into the network needs no labels: once for all splits
                model.unifier.names, model.unifier.projections = [target], [model.unifier.projection(data)]
            self.models[target, base] = model
        return self.models[target, base]


def is_batch(target: str) -> bool:
    """Whether a target is a collection of graphs."""
    return target in GRAPH_TARGETS or target in TUNED_ON["graph"]


def fit(model: Any, data: Any, split: Any, method: str, seed: int, lr: float, target: str) -> Any:
    """A fitted model; a probe trains no network, so it has no learning rate and no steps."""
    import graphfm
    from graphfm.tasks import adapt_graphs

    options = {} if method == "probe" else {"lr": lr, "epochs": STEPS}
    adapt: Any = adapt_graphs if is_batch(target) else graphfm.adapt
    return adapt(model, data, split, method=method, seed=seed, **options)


def result(target: str, base: str, shots: int, seed: int, method: str, lr: float, metrics: Any, seconds: float) -> Any:
    """A cell, or with empty metrics the key of one."""
    from graphfm.results import Result, environment, peak_memory

    settings = {"shots": shots, "group": "pretrained", "base": base, "pretrain_seed": 0}
    settings |= {} if method == "probe" else {"lr": lr, "steps": STEPS}
    task = "graph" if is_batch(target) else "node-classification"
    return Result(task, target, method, seed, metrics, settings, seconds, peak_memory(), environment())


def measure(
    targets: Targets, target: str, base: str, shots: int, seed: int, rates: dict[str, tuple[float, ...]], path: Path
) -> None:
    """All methods of one split on one network that the file does not hold yet."""
    import graphfm
    from graphfm.metrics import classification_scores
    from graphfm.results import append, cell_key, done

    known = done(path)
    for method, tried in rates.items():
        for lr in tried:
            if cell_key(result(target, base, shots, seed, method, lr, {}, 0.0)) in known:
                continue
            data, model = targets.graph(target), targets.model(target, base, seed)
            split = graphfm.few_shot(data.y, shots, seed)
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                fitted = fit(model, data, split, method, seed, lr, target)
            except ValueError as error:
                if "the loss is" not in str(error):
                    raise
                append(path, result(target, base, shots, seed, method, lr, {"accuracy": 0.0}, 0.0))  # diverged
                continue
            found = fitted.predict(data)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            metrics = dict(classification_scores(found[split.test], data.y[split.test]))
            metrics |= {"cpu_seconds": cpu, "trained": fitted.card["trained_parameters"]}
            append(path, result(target, base, shots, seed, method, lr, metrics, wall))


def tune(kinds: list[str]) -> None:
    """All families at all rates on the tuning graphs; the best mean accuracy of each goes to rates.json."""
    from graphfm.results import read

    targets, path, written = Targets(), HERE / "tuning.jsonl", HERE / "rates.json"
    report = json.loads(written.read_text()) if written.exists() else {}
    for kind in kinds:
        for target in TUNED_ON[kind]:
            for base in TUNING_BASES:
                for shots in SHOTS:
                    for seed in TUNING_SEEDS:
                        measure(targets, target, base, shots, seed, dict.fromkeys(TRAINED, RATES), path)
        cells, accuracy = read(path), {}
        for method in TRAINED:
            means = {}
            for lr in RATES:
                own = [c for c in cells if c.method == method and c.settings["lr"] == lr]
                graphs = [[c.metrics["accuracy"] for c in own if c.dataset == t] for t in TUNED_ON[kind]]
                means[f"{lr:g}"] = round(100 * sum(sum(g) / len(g) for g in graphs) / len(graphs), 2)
            accuracy[method] = means
        chosen = {method: float(max(means, key=means.get)) for method, means in accuracy.items()}
        report[kind] = {"chosen": chosen, "accuracy": accuracy}
        written.write_text(json.dumps(report, indent=1) + "\n")


def run(names: list[str], seeds: int) -> None:
    """Measure the targets, seed by seed; of graph targets the rules too, which fewshot.py has for the others."""
    from graphfm.tasks import evaluate_graphs

    targets, report = Targets(), json.loads((HERE / "rates.json").read_text())
    for seed in range(seeds):
        for target in names:
            chosen = report["graph" if is_batch(target) else "node"]["chosen"]
            rates = {method: (chosen.get(method, 0.0),) for method in METHODS}
            path = HERE / f"{target}.jsonl"
            if is_batch(target):
                evaluate_graphs(None, targets.graph(target), methods=[], shots=SHOTS, seeds=[seed], out=path)
            for shots in SHOTS:
                for base in BASES:
                    measure(targets, target, base, shots, seed, rates, path)
            logging.info("seed %d, %s: done", seed, target)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tune", "run", "leak", "table"))
    parser.add_argument("--targets", default=",".join((*NODE_TARGETS, *GRAPH_TARGETS)))
    parser.add_argument("--kinds", default="node,graph", help="what to tune for")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("graphfm").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="classes .* have one node each")
    import torch

    torch.set_num_threads(1)
    if options.what == "tune":
        tune(options.kinds.split(","))
    elif options.what == "run":
        run(options.targets.split(","), options.seeds)
    elif options.what == "leak":
        from prompt_grid_leak import leak

        leak(HERE, options.targets.split(","), options.seeds)
    else:
        from prompt_grid_table import write_tables

        print(write_tables(HERE, options.targets.split(",")))


if __name__ == "__main__":
    main()
