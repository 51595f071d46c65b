"""Bring a graph of your own, here from networkx, and predict with two labels a class.

python examples/04_your_own_graph.py

The karate club has no features at all: graphfm describes each node by the degrees around it.
"""

import networkx as nx
import torch

import graphfm
from graphfm.baselines import LabelPropagation
from graphfm.data import from_networkx


def main() -> None:
    """Pretrain on embedded graphs, adapt to the club, predict for a member who joined later."""
    club = nx.karate_club_graph()
    data = from_networkx(club, label="club", weight="weight")
    data.name = "karate"
    print(f"{data.num_nodes} members, {data.num_edges} edge columns, factions {data.label_text}")

    model = graphfm.pretrain(
        [graphfm.load(name) for name in ("wine", "breast_cancer")],
        backbone=graphfm.backbones.GCN(64, 64),
        objective=graphfm.objectives.SimGRACE(),
        coordinators=graphfm.Coordinators(1),
        epochs=3,
        seed=0,
    )
    split = graphfm.few_shot(data.y, shots=2, seed=0)
    fitted = graphfm.adapt(model, data, split, method="probe", seed=0)
    spread = LabelPropagation().fit(data, split)
    for name, scores in (("pretrained + probe", fitted.predict(data)), ("label propagation", spread.predict())):
        right = (scores[split.test].argmax(1) == data.y[split.test]).float().mean()
        print(f"{name:<20} {100 * right:.0f} % of {split.test.numel()} members right")

    # A new member who knows members 0 and 1: same features, one more node, no new training.
    grown = data.clone()
    grown.edge_index = torch.cat([data.edge_index, torch.tensor([[34, 34, 0, 1], [0, 1, 34, 34]])], dim=1)
    grown.edge_weight = torch.cat([data.edge_weight, torch.full((4,), 3.0)])
    grown.y = None
    grown.num_nodes = 35
    chances = fitted.predict(grown)[34].tolist()
    print("new member:", {who: round(p, 2) for who, p in zip(data.label_text, chances, strict=True)})


if __name__ == "__main__":
    main()
