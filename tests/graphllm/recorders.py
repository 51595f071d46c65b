"""Methods that write down what they are shown, do not answer, or fail."""

import torch
from planted import WordVectors

from graphfm.graphllm import Stock, Supervised

STOCK = Stock(encoder=WordVectors())


class Recorder(Supervised):
    """Answers class 0 and writes down what it was shown."""

    family = "classical"
    grid = {"bias": (0.0, 1.0)}  # noqa: RUF012
    seen = []  # noqa: RUF012

    def __init__(self, *, bias=0.0, seed=0, device=None):
        super().__init__(seed=seed, device=device)
        self.bias = bias

    def fit(self, data, split):
        Recorder.seen.append((data, split))
        return self

    def predict(self, data):
        assert "y" not in data
        scores = torch.zeros(data.num_nodes, 4)
        scores[:, 0] = self.bias
        scores[:, 1] = 0.5
        return scores


class Shy(Recorder):
    """Does not answer for every other node."""

    def predict(self, data):
        scores = super().predict(data)
        scores[::2] = torch.nan
        return scores


class Broken(Recorder):
    """Fails on one seed."""

    def fit(self, data, split):
        if self.seed == 1:
            raise RuntimeError("out of luck")
        return self
