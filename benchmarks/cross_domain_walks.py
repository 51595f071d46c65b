"""Why BGRL loses where coordinators join the domains: ``python benchmarks/cross_domain_walks.py [--only MaskedGraph]``.

Coordinators do two things. They pass messages, and random walks go through them: one that starts at a node jumps to any
other node of its domain (or, by way of two coordinators, of another), so that the subgraph holds scattered nodes with
few neighbours. Here one is taken without the other: the settings of cross_domain.py with batch normalisation; mean
accuracy in % on its four targets at 5 labels a class. Writes results/cross_domain/walks-OBJECTIVE.json.
"""

import argparse
import time
import warnings
from typing import Any

import torch
from cross_domain import EPOCHS, HERE, SEED, SOURCES, TARGETS, joins, keep, probe
from torch import Tensor, nn
from torch_geometric.data import Data

FORMS: dict[str, dict[str, Any]] = {
    "isolated": {"joined": "isolated"},
    "isolated, walks of 4 steps": {"joined": "isolated", "walk_length": 4, "start_share": 0.4, "batch_size": 400},
    "coordinators": {"joined": "coordinators"},
    "coordinators, walks stay in their domain": {"joined": "coordinators", "hop": 0.0},
    "coordinators that pass no messages": {"joined": "coordinators", "cut": True},
    "coordinators that are not learned": {"joined": "coordinators", "frozen": True},
}


def changed(objective: type[nn.Module], *, cut: bool, frozen: bool) -> nn.Module:
    """The objective on batches whose coordinators have no edges, or no gradient."""

    class Changed(objective):  # type: ignore[misc, valid-type]
        def forward(self, backbone: nn.Module, batch: Data) -> Tensor:
            batch = batch.clone()
            if cut:
                kept = ~batch.is_coordinator[batch.edge_index].any(0)
                batch.edge_index = batch.edge_index[:, kept]
                if batch.get("edge_weight") is not None:
                    batch.edge_weight = batch.edge_weight[kept]
            if frozen:
                batch.x = batch.x.detach()
            return super().forward(backbone, batch)

    Changed.__name__ = objective.__name__
    return Changed()


def main() -> None:
    """Measure every form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="BGRL", help="an objective")
    only = parser.parse_args().only
    import graphfm

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="classes .* have one node each")
    sources = [graphfm.load(name) for name in SOURCES]
    graphs = {name: graphfm.load(name) for name in TARGETS}
    rows = []
    for name, form in FORMS.items():
        form, begun = dict(form), time.process_time()
        how, cut, frozen = form.pop("joined"), form.pop("cut", False), form.pop("frozen", False)
        model = graphfm.pretrain(
            sources,
            backbone=graphfm.backbones.FAGCN(100, 128, norm="BatchNorm"),
            objective=changed(getattr(graphfm.objectives, only), cut=cut, frozen=frozen),
            coordinators=joins(how),
            sampler=graphfm.samplers.RandomWalks(**({"batch_size": 100} | form)),
            epochs=EPOCHS,
            seed=SEED,
        )
        found = probe(model, graphs, (5,))
        means = {key: round(sum(values) / len(values), 2) for key, values in found.items()}
        mean = round(sum(means.values()) / len(means), 2)
        rows.append({"form": name, "mean": mean, "targets": means, "seconds": time.process_time() - begun})
        print(f"{name:42} {mean:.1f}  {means}", flush=True)
        keep(HERE / f"walks-{only}.json", {"objective": only, "rows": rows})


if __name__ == "__main__":
    main()
