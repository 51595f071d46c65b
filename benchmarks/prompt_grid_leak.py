"""What padding ego graphs by true label is worth: the published protocol beside an honest one and a blind control.

Every node is a graph, in the form of ProG (2406.05346): what leads to it within two steps along the edges as they are
given, grown up to five where that holds fewer than 100 nodes, at most 300. Where it is still too small the published
protocol fills it up with nodes of the same TRUE label, for test nodes too. `none` leaves it small, `blind` fills it up
with as many nodes drawn without a look at labels. All else is equal: splits, networks, steps, learning rates, pooling.
THE COLUMN `label` READS THE LABELS IT IS SCORED ON. The overlap of the published training and test sets is left out.
"""

import logging
import time
from pathlib import Path
from typing import Any

import prompt_grid as grid
import torch

PADDINGS = ("none", "blind", "label")
LEAKED = {"wisconsin": 10, "cora": 5}  # and how many seeds: Cora's 2,708 graphs have 400,000 rows
AT_LEAST, AT_MOST = 100, 300
RULE = "centroid of feature means"
METHODS = (RULE, "probe", "prompt:GPF()", "prompt:GraphPrompt()")
BASE, LR = "graphcl", 1e-2  # one network and one rate: paddings are compared, not methods


def ego_graphs(data: Any, x: torch.Tensor, padding: str) -> Any:
    """The ego graphs of all nodes as a collection with features ``x`` and the labels of their centres."""
    from graphfm.data.subgraphs import ego_nets, induced_subgraphs
    from graphfm.nn import Adjacency
    from graphfm.paper import fill_by_label

    adj, every = Adjacency.from_edges(data.edge_index, x.size(0)), torch.arange(x.size(0))
    random = torch.Generator().manual_seed(0)
    members = ego_nets(adj, every, at_least=AT_LEAST, at_most=AT_MOST, generator=random)
    if padding != "none":
        labels = data.y if padding == "label" else torch.zeros_like(data.y)  # of one class all nodes are candidates
        members = fill_by_label(members, labels, every, AT_LEAST, random)
    graphs = induced_subgraphs(adj, members).take(every)
    graphs.x, graphs.y, graphs.name = x[graphs.node], data.y, f"{data.name} egos"
    return graphs


def nearest_centroid(graphs: Any, split: Any) -> torch.Tensor:
    """Nothing is trained: each graph goes to the class whose labelled graphs have the nearest mean, by cosine."""
    from graphfm.heads import PrototypeHead
    from graphfm.nn import mean_pool

    rows = mean_pool(graphs.x, graphs.ptr, graphs.batch)
    head = PrototypeHead(rows.size(1), int(graphs.y.max()) + 1).fit(rows[split.train], graphs.y[split.train])
    return torch.softmax(head(rows), dim=1)


def predicted(model: Any, graphs: Any, split: Any, method: str, seed: int) -> torch.Tensor:
    """Probabilities of a rule or a method."""
    from graphfm.tasks import adapt_graphs

    if method == RULE:
        return nearest_centroid(graphs, split)
    options = {} if method == "probe" else {"lr": LR, "epochs": grid.STEPS}
    fitted = adapt_graphs(model, graphs, split, method=method, seed=seed, pool="mean", transductive=True, **options)
    return fitted.predict(graphs)


def leak(folder: Path, targets: list[str], seeds: int) -> None:
    """Measure what is not measured yet, into leak.jsonl."""
    import graphfm
    from graphfm.data.features import Projection
    from graphfm.metrics import classification_scores
    from graphfm.results import Result, append, cell_key, done, environment, peak_memory

    known_targets, path = grid.Targets(), folder / "leak.jsonl"
    for target in (t for t in LEAKED if t in targets):
        data, model = known_targets.graph(target), known_targets.model(target, BASE, 0)
        x = model.unifier.transform(data)
        # What enters the network is unified already, alike for all paddings.
        model.unifier.names, model.unifier.projections = (
            [f"{target} egos"],
            [Projection(None, 1.0, x.size(1), x.size(1))],
        )
        collections = {padding: ego_graphs(data, x, padding) for padding in PADDINGS}
        known = done(path)
        for seed in range(min(seeds, LEAKED[target])):
            for shots in grid.SHOTS:
                split = graphfm.few_shot(data.y, shots, seed)
                for padding, graphs in collections.items():
                    for method in METHODS:
                        settings = {"shots": shots, "group": "leak", "padding": padding, "base": BASE}
                        settings |= {"lr": LR, "steps": grid.STEPS} if ":" in method else {}
                        key = Result("ego-graphs", target, method, seed, {}, settings, 0.0, 0, {})
                        if cell_key(key) in known:
                            continue
                        started = time.perf_counter()
                        found = predicted(model, graphs, split, method, seed)
                        seconds = time.perf_counter() - started
                        scores = classification_scores(found[split.test], data.y[split.test])
                        facts = (settings, seconds, peak_memory(), environment())
                        append(path, Result("ego-graphs", target, method, seed, scores, *facts))
            logging.info("leak, seed %d, %s: done", seed, target)
