"""The rules of the comparison: who is trained on, who is tested, what is counted."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphfm.data.splits import Split, few_shot
from graphfm.metrics import classification_scores

__all__ = ["SETTINGS", "Rule", "answer_scores", "glbench_split", "rule_of"]

SETTINGS = ("supervised", "few-shot", "zero-shot")

# Words of a name: "tag/cora_ml" is kin to Cora, a folder "coral" is not.
_OFFICIAL = {"ogbn", "arxiv", "wikics"}  # their own split is the protocol's
_SHARES = {"reddit", "instagram"}
_CITATIONS = {"cora", "citeseer", "pubmed"}


@dataclasses.dataclass(frozen=True)
class Rule:
    """How nodes are parted.

    Attributes:
        name: in words, for tables.
        shots: training nodes a class, or 0.
        val: number of validation nodes.
        shares: of training and validation, where they are shares of the labelled nodes.
        official: the graph's own masks.
    """

    name: str
    shots: int = 0
    val: int = 0
    shares: tuple[float, float] | None = None
    official: bool = False


def rule_of(data: Data) -> Rule:
    """GLBench's rule for a graph (2407.07457, table 1), and ours for graphs that it does not have.

    Citation graphs: 20 nodes a class, 500 for validation, the rest tested. Reddit and Instagram: 10 / 10 / 80 %.
    Arxiv, WikiCS: their own masks. Any other graph follows the citation graphs' rule if at least 1,000 nodes remain to
    be tested, and 48 / 32 / 20 % (Pei et al., 2002.05287) if it is smaller.
    """
    words = set(re.split(r"[^a-z]+", str(data.get("name", "")).lower()))
    if words & _OFFICIAL and data.get("train_mask") is not None:
        return Rule("own masks", official=True)
    if words & _SHARES:
        return Rule("10 / 10 / 80 %", shares=(0.1, 0.1))
    labelled = int((data.y >= 0).sum())
    classes = int(data.y.max()) + 1
    if labelled - 20 * classes - 500 >= 1000 or words & _CITATIONS:
        val = min(500, (labelled - 20 * classes) // 2)
        return Rule(f"20 a class / {val} / rest", shots=20, val=val)
    return Rule("48 / 32 / 20 %", shares=(0.48, 0.32))


def glbench_split(data: Data, seed: int) -> Split:
    """The split of a seed under :func:`rule_of`. Random parts are drawn anew for each seed; own masks stay.

    Of masks with several columns (WikiCS) the seed takes its own, modulo their number.

    Raises:
        ValueError: too few labelled nodes.
    """
    rule = rule_of(data)
    if rule.official:
        return _own(data, seed)
    if rule.shares is not None:
        return _shares(data.y, rule.shares, seed)
    whole = few_shot(data.y, rule.shots, seed)
    if whole.test.numel() <= rule.val or not rule.val:
        raise ValueError(f"data has {whole.test.numel()} labelled nodes beyond training; the rule asks for more.")
    order = whole.test[torch.randperm(whole.test.numel(), generator=torch.Generator().manual_seed(seed))]
    return Split(whole.train, order[: rule.val].sort().values, order[rule.val :].sort().values)


def answer_scores(scores: Tensor, y: Tensor) -> dict[str, float]:
    """Accuracy and macro-F1 over all nodes, a node without an answer counting as wrong; ``unknown_rate``.

    Args:
        scores: ``[M, C]``; a row of NaN is no answer.
        y: ``[M]`` labels.

    Returns:
        ``accuracy``, ``macro_f1`` (over the classes that occur in ``y`` or in the answers, as
        :func:`graphfm.metrics.classification_scores`), ``unknown_rate``.

    Raises:
        ValueError: wrong shapes, infinite scores, or rows of which only a part is NaN.
    """
    unknown = scores.isnan().all(1)
    if not bool(unknown.any()):
        found = classification_scores(scores, y)
        return {"accuracy": found["accuracy"], "macro_f1": found["macro_f1"], "unknown_rate": 0.0}
    # No answer becomes a class of its own, which is never right and does not enter the mean of F1.
    answered = classification_scores(scores[~unknown], y[~unknown]) if not bool(unknown.all()) else {"accuracy": 0.0}
    share = float(unknown.double().mean())
    return {
        "accuracy": answered["accuracy"] * (1 - share),
        "macro_f1": _macro_f1(scores, y, unknown),
        "unknown_rate": share,
    }


def _macro_f1(scores: Tensor, y: Tensor, unknown: Tensor) -> float:
    from sklearn.metrics import f1_score

    predicted = scores.nan_to_num(0.0).argmax(1).masked_fill(unknown, -1)
    classes = torch.unique(torch.cat([y, predicted[~unknown]])).tolist()
    found = f1_score(y.numpy(), predicted.numpy(), labels=classes, average="macro", zero_division=0)
    return float(found)


def _own(data: Data, seed: int) -> Split:
    parts = []
    for key in ("train_mask", "val_mask", "test_mask"):
        mask = data.get(key)
        if mask is None:
            raise ValueError(f"data.{key} is missing; this graph's protocol is its own masks.")
        mask = mask if mask.dim() == 1 else mask[:, seed % mask.size(1)]
        parts.append(torch.nonzero(mask & (data.y >= 0)).flatten())
    return Split(*parts)


def _shares(y: Tensor, shares: Sequence[float], seed: int) -> Split:
    """Training and validation shares of each class, at least one training node of it; the rest is tested."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(y.numel(), generator=generator)
    order = order[y[order] >= 0]
    order = order[torch.argsort(y[order], stable=True)]
    count = torch.bincount(y[order])
    rank = torch.arange(order.numel()) - (torch.cumsum(count, 0) - count)[y[order]]
    size = count[y[order]].double()
    train = rank < (size * shares[0]).round().clamp(min=1)
    val = ~train & (rank < (size * (math.fsum(shares))).round())
    return Split(order[train].sort().values, order[val].sort().values, order[~train & ~val].sort().values)
