"""Whether sources and target of a zero-shot claim are different: by name, near-duplicate text, and classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.graphllm.texts import node_texts

__all__ = ["check_disjoint", "near_duplicates"]

_HASHES, _BAND = 64, 4  # sixteen bands of four: a pair of Jaccard .8 is met with a chance of 1 - (1 - .8^4)^16 > .999


def near_duplicates(texts: Sequence[str], others: Sequence[str], *, at_least: float = 0.7, words: int = 3) -> Tensor:
    """Which of ``texts`` stand, nearly word for word, among ``others``.

    Texts are sets of runs of ``words`` words (a shorter text is one run), compared by MinHash (Broder, 1997): 64
    hashes in bands of 4 find the candidates, the share of equal hashes is taken for their Jaccard similarity. Case and
    punctuation do not count; texts without a word are like none.

    Args:
        texts: N texts.
        others: M texts.
        at_least: similarity from which two are nearly the same.
        words: length of a run.

    Returns:
        Boolean ``[N]``.
    """
    ours, theirs = _signatures(texts, words), _signatures(others, words)
    found = np.zeros(len(texts), dtype=bool)
    for first in range(0, _HASHES, _BAND):
        band = slice(first, first + _BAND)
        mine, other = _key(ours[:, band]), _key(theirs[:, band])
        order = np.argsort(other, kind="stable")
        low = np.searchsorted(other[order], mine)
        count = np.searchsorted(other[order], mine, side="right") - low
        count[ours[:, 0] == 0] = 0
        count = np.minimum(count, 64)  # texts that thousands share: some of them decide
        who = np.repeat(np.arange(len(texts)), count)
        nth = np.arange(who.size) - np.repeat(np.cumsum(count) - count, count)
        whom = order[low[who] + nth]
        for part in np.array_split(np.arange(who.size), who.size // 100_000 + 1):
            alike = (ours[who[part]] == theirs[whom[part]]).mean(axis=1)
            found[who[part][alike >= at_least]] = True
    return torch.from_numpy(found)


def check_disjoint(
    sources: Sequence[Data],
    target: Data,
    *,
    before: Sequence[Data] = (),
    most: float = 0.01,
    most_classes: float = 0.5,
) -> Tensor:
    """Refuse a target that a source has seen; name the nodes whose text a source holds.

    Args:
        sources: graphs that are learned from.
        target: the graph to be answered on.
        before: sources whose texts were compared already; their classes count beside those of ``sources``.
        most: share of the target's texts that may be near-duplicates of a source's.
        most_classes: share of the target's classes that the sources together may have under the same names: who has
            seen labelled nodes of a class answers for it from experience, on whatever graph it was. Graphs whose
            classes have no names are not compared.

    Returns:
        Boolean ``[N]``: nodes to be left out of the score.

    Raises:
        ValueError: a source has the target's name, shares more than ``most`` of its texts, or has, with those before
            it, more than ``most_classes`` of its classes.
    """
    seen = torch.zeros(int(target.num_nodes or 0), dtype=torch.bool)
    name, classes = str(target.get("name", "target")), _class_names(target)
    known: set[str] = set().union(*(_class_names(source) for source in before))
    for source in sources:
        other = str(source.get("name", "source"))
        if other == name:
            raise ValueError(f"target {name!r} is among its own sources; leave it out of them.")
        same = near_duplicates(node_texts(target), node_texts(source))
        share = float(same.double().mean())
        if share > most:
            first = int(torch.nonzero(same)[0])
            raise ValueError(
                f"source {other!r} holds {share:.1%} of the texts of target {name!r} (first: node {first}, "
                f"{target.text[first][:60]!r}); zero-shot needs sources that have not seen the target: leave it out."
            )
        known |= _class_names(source)
        shared = sorted(classes & known)
        if len(shared) > most_classes * len(classes):
            before = " with the sources before it" if len(classes & _class_names(source)) < len(shared) else ""
            raise ValueError(
                f"source {other!r}{before} has {len(shared)} of the {len(classes)} classes of target {name!r} "
                f"({', '.join(shared[:3])}); zero-shot is about classes that were not learned: leave it out."
            )
        seen |= same
    return seen


def _class_names(data: Data) -> set[str]:
    """What a graph's classes are called, in one spelling; nothing where names only number them."""
    names = [str(name).replace("_", " ").strip().casefold() for name in data.get("label_text") or []]
    return set() if names == [f"class {number}" for number in range(len(names))] else set(names)


def _signatures(texts: Sequence[str], words: int) -> np.ndarray:
    """``[N, 64]`` smallest hashes of each text's runs; zeros where there is no word."""
    found = np.zeros((len(texts), _HASHES), dtype=np.uint64)
    if not texts:
        return found
    from sklearn.feature_extraction.text import HashingVectorizer

    options = {"norm": None, "alternate_sign": False, "binary": True, "n_features": 1 << 30, "dtype": np.float32}
    runs = HashingVectorizer(ngram_range=(words, words), **options).transform(_padded(texts, words))
    salts = np.random.default_rng(0).integers(1, 1 << 63, _HASHES, dtype=np.uint64)
    filled = np.flatnonzero(np.diff(runs.indptr))
    if not filled.size:
        return found
    values = runs.indices.astype(np.uint64)
    for place, salt in enumerate(salts):
        found[filled, place] = np.minimum.reduceat(_mixed(values + salt), runs.indptr[filled]) | np.uint64(1)
    return found


def _mixed(values: np.ndarray) -> np.ndarray:
    """Numbers in an order that has nothing to do with theirs (splitmix64, Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _padded(texts: Sequence[str], words: int) -> list[str]:
    """A text shorter than a run is made one by a word that no text has."""
    return [text + " zzpad" * (words - 1) if text.count(" ") < words and text.strip() else text for text in texts]


def _key(band: np.ndarray) -> np.ndarray:
    """One number for each row of four."""
    mixed = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + column
    return mixed
