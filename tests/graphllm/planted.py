"""A graph that only text and structure together solve, and an encoder that needs no model."""

import hashlib

import numpy as np
import torch
from torch_geometric.data import Data

from graphfm.graphllm.backends.base import Counts


class WordVectors:
    """Mean of fixed random vectors, one a word: the same word has the same vector everywhere."""

    name, dim = "word-vectors", 24

    def encode(self, texts):
        rows = [self._mean(text.lower().split()) for text in texts]
        return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, self.dim)

    def count(self, texts):
        return Counts(len(texts), empty=sum(not text.split() for text in texts))

    def _mean(self, words):
        vectors = [self._word(word.strip(".,")) for word in words]
        return np.mean(vectors, axis=0).astype(np.float32) if vectors else np.zeros(self.dim, np.float32)

    def _word(self, word):
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little")
        return np.random.default_rng(seed).normal(size=self.dim) / self.dim**0.5


class TwoLayers:
    """A language model of two layers as far as states go: word vectors, and the same mixed by a fixed matrix."""

    name, dim, num_layers = "two-layers", WordVectors.dim, 2

    def hidden(self, texts, layers=(-1,), pool="mean"):
        x = WordVectors().encode(texts)
        mix = torch.from_numpy(np.random.default_rng(0).normal(size=(self.dim, self.dim)) / self.dim**0.5).float()
        states = [x, x, torch.tanh(3 * x @ mix)]
        return torch.stack([states[layer] for layer in layers], dim=1)


def planted(
    seed=0, *, nodes=900, classes=("apple", "brick", "cloud", "drum"), clear=0.5, degree=10, homophily=0.62, filler=""
):
    """Texts of which ``clear`` name the class (the others name another), edges of which ``homophily`` join one class.

    A text alone is right for ``clear`` of the nodes, an edge says little, and the texts around a node nearly decide.
    """
    rng = np.random.default_rng(seed)
    y = rng.permutation(nodes) % len(classes)
    said = np.where(rng.random(nodes) < clear, y, (y + rng.integers(1, len(classes), nodes)) % len(classes))
    noise = [f"{filler}{number}" for number in range(200)]
    texts = [f"{classes[c]} {' '.join(rng.choice(noise, 1))}" for c in said]
    source = np.repeat(np.arange(nodes), degree // 2)
    same = rng.random(source.size) < homophily
    target = np.empty_like(source)
    for c in range(len(classes)):
        inside, outside = np.flatnonzero(y == c), np.flatnonzero(y != c)
        mine = y[source] == c
        target[mine & same] = rng.choice(inside, (mine & same).sum())
        target[mine & ~same] = rng.choice(outside, (mine & ~same).sum())
    edges = np.unique(np.sort(np.stack([source, target])[:, source != target], axis=0), axis=1)
    data = Data(edge_index=torch.from_numpy(np.concatenate([edges, edges[::-1]], axis=1).copy()), num_nodes=nodes)
    data.text, data.y, data.name = texts, torch.from_numpy(y), f"planted-{seed}"
    data.label_text, data.label_description = list(classes), [""] * len(classes)
    return data


def texts_shuffled(data, seed=0):
    """The same graph, every text at some other node."""
    order = np.random.default_rng(seed).permutation(data.num_nodes)
    found = data.clone()
    found.text = [data.text[i] for i in order]
    return found


def edges_shuffled(data, seed=0):
    """The same texts, the edges between the same ends joined anew."""
    found = data.clone()
    half = data.edge_index[:, data.edge_index[0] < data.edge_index[1]]
    order = torch.from_numpy(np.random.default_rng(seed).permutation(half.size(1)))
    mixed = torch.stack([half[0], half[1][order]])
    mixed = mixed[:, mixed[0] != mixed[1]]
    found.edge_index = torch.cat([mixed, mixed.flip(0)], dim=1)
    return found
