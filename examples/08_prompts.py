"""One frozen network, a little input learned for each graph: ten prompts compared, combined, saved and loaded.

python examples/08_prompts.py [--shots 3] [--seeds 3]

A prompt leaves the network as it is and learns something beside its input: a vector added to all features, tokens
joined to the graph, vectors on messages, weights on what comes out. GPPT builds on link prediction, so that is what the
network is pretrained by. Probe and fine-tuning stand in the table for comparison; with few labels a prompt need not
beat them. All of it works without a network connection.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

import graphfm
from graphfm import prompts
from graphfm.fitted import Fitted

METHODS = (  # each with a learning rate
    ("finetune", 1e-3),
    ("probe", 1e-3),
    *((f"prompt:{name}", 1e-2) for name in prompts.__all__),
    ("prompt:GPF+adapter:LoRA(rank=4)", 1e-2),
)


class Scale(prompts.Prompt):
    """A method of one's own is a class: here a factor for each feature, 1 at first."""

    def make(self, in_channels: int, out_channels: int, *, layers: list[int], messages: list[int]) -> None:
        """The factors ``[F]``."""
        self.factor = torch.nn.Parameter(torch.ones(in_channels))

    def graph(self, data: object) -> object:
        """The graph as the network shall see it."""
        changed = data.clone()
        changed.x = data.x * self.factor
        return changed


def accuracy(found: torch.Tensor, data: object, split: graphfm.Split) -> float:
    """Share of the test nodes that are right, in percent."""
    return 100 * float((found.argmax(1) == data.y)[split.test].float().mean())


def compare(model: graphfm.Pretrained, data: object, shots: int, seeds: int) -> None:
    """Every method on the same splits."""
    print(f"\n{data.name}, {shots} labels a class\n{'method':<34}{'accuracy':>9}{'trained numbers':>17}")
    for method, lr in METHODS:
        scores = []
        for seed in range(seeds):
            split = graphfm.few_shot(data.y, shots, seed)
            fitted = graphfm.adapt(model, data, split, method=method, seed=seed, lr=lr)
            scores.append(accuracy(fitted.predict(data), data, split))
        print(f"{method:<34}{sum(scores) / seeds:>8.1f}%{fitted.card['trained_parameters']:>17,}")


def main() -> None:
    """Pretrain, compare, write a prompt of one's own, save and load it, and use a classifier for other classes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    started = time.perf_counter()
    model = graphfm.pretrain(
        [graphfm.load("debian"), graphfm.load("digits")],
        backbone=graphfm.backbones.GCN(100, 64),
        objective=graphfm.objectives.LinkPrediction(),
        epochs=2,
        seed=0,
    )
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    data = graphfm.load("wine")
    compare(model, data, options.shots, options.seeds)

    split = graphfm.few_shot(data.y, options.shots, 0)
    fitted = graphfm.adapt(model, data, split, prompt=Scale(), seed=0, lr=1e-2)
    print(f"\na prompt of one's own: {accuracy(fitted.predict(data), data, split):.1f} % right on one split")
    with tempfile.TemporaryDirectory() as folder:
        again = Fitted.load(fitted.save(Path(folder)), prompts=[Scale])
        print(f"saved, loaded, and the same to the bit: {torch.equal(again.predict(data), fitted.predict(data))}")
    digits = graphfm.load("digits")
    ten = graphfm.adapt(model, digits, graphfm.few_shot(digits.y, 20, 0), method="probe", seed=0)
    mapped = graphfm.reprogram(ten, data, split, prompt=prompts.GPFPlus(), seed=0)
    print(
        f"a classifier of ten digits, read as one of three wines (classes {mapped.card['mapping']}), only a prompt "
        f"trained: {accuracy(mapped.predict(data), data, split):.1f} %"
    )
    around = graphfm.adapt(model, data, split, prompt=prompts.AllInOne(), ego=graphfm.Egos(hops=1), seed=0, lr=1e-2)
    print(f"every node read from its ego graph: {accuracy(around.predict(data), data, split):.1f} %")
    same = all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    print(f"The base is bit by bit what it was: {same}. Done in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
