"""Iterative label mapping: a source classifier put to use for a target with other classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphfm.heads import LinearHead, PrototypeHead

__all__ = ["LabelMapping", "Reprogrammed", "matched"]


class LabelMapping(nn.Module):
    """The scores of a frozen source classifier, read at one source class for each target class (2211.11635).

    :meth:`fit` maps by how often labelled target rows fall into each source class; called again as a prompt is trained
    (here at every :meth:`loss`) the map follows it. There is no new head: nothing of this is trained.

    Args:
        source: scores ``[N, S]`` from ``[N, D]``; frozen in place.
        num_classes: C target classes, at most S.

    Raises:
        ValueError: more target classes than source classes.
    """

    mapping: Tensor
    seen: Tensor

    def __init__(self, source: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.source, self.num_classes = source.requires_grad_(False), num_classes
        available = getattr(source, "num_classes", None) or getattr(source, "out_features", None)
        if available is not None and num_classes > available:
            raise ValueError(f"{num_classes} target classes cannot be mapped one to one to {available} source classes.")
        self.register_buffer("mapping", torch.arange(num_classes))
        self.register_buffer("seen", torch.ones(num_classes, dtype=torch.bool))

    def forward(self, z: Tensor) -> Tensor:
        """Scores ``[N, C]`` for ``[N, D]``; minus infinity for target classes that no row was labelled with."""
        return self.source(z).index_select(1, self.mapping).masked_fill(~self.seen, -torch.inf)

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of labelled rows ``[T, D]`` under the map that suits them now; a scalar."""
        scores = self.source(z)
        self.mapping.copy_(matched(scores, y, self.num_classes))
        shown = torch.bincount(y, minlength=self.num_classes) > 0
        return F.cross_entropy(scores.index_select(1, self.mapping).masked_fill(~shown, -torch.inf), y)

    def fit(self, z: Tensor, y: Tensor) -> LabelMapping:
        """Map the classes anew."""
        self.mapping.copy_(matched(self.source(z), y, self.num_classes))
        self.seen.copy_(torch.bincount(y, minlength=self.num_classes) > 0)
        return self


class Reprogrammed(LabelMapping):
    """The mapping over a head of ours, which a file can hold; made by :func:`graphfm.reprogram`.

    Args:
        in_channels: width D of what it reads.
        num_classes: C target classes.
        source_classes: S.
        kind: class of the source's head, ``"LinearHead"`` or ``"PrototypeHead"``.

    Raises:
        ValueError: another kind of head; more target classes than source classes.
    """

    def __init__(self, in_channels: int, num_classes: int, source_classes: int, kind: str = "LinearHead") -> None:
        kinds = {cls.__name__: cls for cls in (LinearHead, PrototypeHead)}
        if kind not in kinds:
            raise ValueError(f"kind must be one of {', '.join(kinds)}, got {kind!r}.")
        super().__init__(kinds[kind](in_channels, source_classes), num_classes)
        self.in_channels, self.source_classes, self.kind = in_channels, source_classes, kind


@torch.no_grad()
def matched(scores: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """A source class for each target class ``[C]``, no two the same: the most frequent pairs first.

    Args:
        scores: ``[T, S]`` of the source classes; the highest counts.
        y: ``[T]`` target classes.
        num_classes: C.

    Raises:
        ValueError: more target classes than source classes.
    """
    sources = scores.size(1)
    never = torch.isneginf(scores).all(0) & (scores.size(0) > 0)  # classes that the source was not shown
    if num_classes > sources - int(never.sum()):
        raise ValueError(
            f"{num_classes} target classes cannot be mapped one to one to {sources} source classes, of which the "
            f"source knows {sources - int(never.sum())}."
        )
    pairs = torch.bincount(y * sources + scores.argmax(1), minlength=num_classes * sources)
    count = pairs.view(num_classes, sources).double()
    # Among pairs that are equally frequent, the likelier one: few-shot counts are mostly 0 and 1.
    share = torch.softmax(scores.double(), dim=1)
    count += 0.5 * share.new_zeros(num_classes, sources).index_add(0, y, share) / max(len(y), 1)
    count.masked_fill_(never, -0.5)
    found = torch.empty(num_classes, dtype=torch.long, device=scores.device)
    for _ in range(num_classes):
        target, source = divmod(int(count.argmax()), sources)
        found[target] = source
        count[target], count[:, source] = -1, -1
    return found
