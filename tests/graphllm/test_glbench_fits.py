"""Zero-shot methods learn once from the same sources, and each target's cell tells the whole cost."""

import time

import torch
from planted import WordVectors, planted

from graphfm.graphllm import Setup, Stock, ZeroShot, run
from graphfm.graphllm.fingerprint import graph_fingerprint
from graphfm.graphllm.fits import Fits

STOCK = Stock(encoder=WordVectors())


class Learner(ZeroShot):
    """Counts how often it learns; has something trained, or nothing."""

    family, fitted, needs = "zero-shot", [], ("encoder",)

    def __init__(self, encoder, *, seed=0, device=None):
        super().__init__(seed=seed, device=device)
        self.encoder = encoder

    def fit(self, sources):
        type(self).fitted.append((self.seed, [source.name for source in sources]))
        for source in sources:
            self.encoder.encode(source.text)
        time.sleep(0.2)
        self.train_only({"map": torch.nn.Linear(1, 1)})
        return self

    def predict(self, data):
        return torch.ones(data.num_nodes, 4)


class Reader(Learner):
    fitted = []  # noqa: RUF012

    def train_only(self, modules):
        return []


def test_targets_share_what_was_fitted_on_the_same_sources(tmp_path):
    def named(name, **options):
        graph = planted(0, nodes=60, filler=name, **options)
        graph.name, graph.text = name, [f"{name}{i} {name}{i * 3} {name}{i * 5} {name}{i * 7}" for i in range(60)]
        return graph

    one, two, own = (named(name) for name in ("one", "two", "own"))
    source = named("source", classes=("fig", "gold", "hat", "ink"))
    own_source = named("other", classes=("jam", "kite", "lamp", "moon"))
    options = {"stock": STOCK, "setup": Setup(setting="zero-shot"), "leave_out_overlapping": True}
    found = run([one, two], [Learner, Reader], out=tmp_path, sources=[source], seeds=[0, 1], **options)
    assert Learner.fitted == [(0, ["source"]), (1, ["source"])], "once a seed"
    assert len(Reader.fitted) == 4, "what learns nothing is made for each"
    assert all(one.seconds >= 0.2 and one.metrics["encode_seconds"] > 0 for one in found), "each cell tells the cost"
    run([own], [Learner], out=tmp_path, sources=[source, own_source], seeds=[1], **options)
    assert Learner.fitted[2:] == [(1, ["source", "other"])]


def test_sources_of_one_name_are_told_apart_by_what_they_hold():
    fits, made = Fits(), []

    def make():
        made.append(Learner(WordVectors()).fit([]))
        return made[-1]

    one, two = planted(0, nodes=20), planted(1, nodes=20)
    one.name = two.name = "data"
    keys = [graph_fingerprint(one), graph_fingerprint(two), graph_fingerprint(one)]
    found = [fits.of(Learner, 0, key, make, STOCK).method for key in keys]
    assert found == [made[0], made[1], made[0]]
    assert fits.of(Learner, 1, keys[0], make, STOCK).method is made[2], "another seed"
