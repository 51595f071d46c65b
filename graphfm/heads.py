"""From node embeddings to class scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LinearHead", "PrototypeHead", "fit_logistic"]


class LinearHead(nn.Module):
    """One linear layer; classes that were never seen in training get no probability.

    Args:
        in_channels: width D of what it reads.
        num_classes: C.
    """

    seen: Tensor

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.in_channels, self.num_classes = in_channels, num_classes
        self.lin = nn.Linear(in_channels, num_classes)
        self.register_buffer("seen", torch.ones(num_classes, dtype=torch.bool))

    def forward(self, z: Tensor) -> Tensor:
        """Scores ``[N, C]`` for ``[N, D]``; minus infinity for classes never seen."""
        return self.lin(z).masked_fill(~self.seen, -torch.inf)


class PrototypeHead(nn.Module):
    """Cosine to the mean embedding of each class (prototypical networks, 1703.05175, with cosine).

    Args:
        in_channels: embedding width D.
        num_classes: C.
        temperature: divides the cosines before a softmax.
    """

    prototypes: Tensor
    seen: Tensor

    def __init__(self, in_channels: int, num_classes: int, temperature: float = 0.1) -> None:
        super().__init__()
        self.in_channels, self.num_classes, self.temperature = in_channels, num_classes, temperature
        self.register_buffer("prototypes", torch.zeros(num_classes, in_channels))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def fit(self, z: Tensor, y: Tensor) -> PrototypeHead:
        """Set the prototypes from the labelled rows ``[T, D]`` and their classes ``[T]``."""
        total = torch.zeros_like(self.prototypes).index_add_(0, y, F.normalize(z, dim=1))
        self.prototypes.copy_(F.normalize(total, dim=1))
        self.seen.copy_(torch.bincount(y, minlength=self.num_classes) > 0)
        return self

    def forward(self, z: Tensor) -> Tensor:
        """Scores ``[N, C]`` for ``[N, D]``; minus infinity for classes never seen."""
        cosine = F.normalize(z, dim=1) @ self.prototypes.t()
        return (cosine / self.temperature).masked_fill(~self.seen, -torch.inf)


def fit_logistic(head: LinearHead, z: Tensor, y: Tensor, strength: float = 10.0) -> LinearHead:
    """Fit a head by L2-regularised logistic regression (scikit-learn's LBFGS, to convergence).

    Args:
        head: to be set in place.
        z: ``[T, D]`` labelled rows.
        y: ``[T]`` their classes.
        strength: inverse regularisation, scikit-learn's ``C``.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    classes = torch.unique(y)
    head.seen.copy_(torch.bincount(y, minlength=head.num_classes) > 0)
    weight = np.zeros((head.num_classes, head.in_channels))
    bias = np.zeros(head.num_classes)
    if classes.numel() > 1:
        model = LogisticRegression(C=strength, max_iter=1000).fit(z.double().cpu().numpy(), y.cpu().numpy())
        coef, intercept = model.coef_, model.intercept_
        if len(classes) == 2:  # scikit-learn keeps one row for two classes; a softmax over +-1/2 of it is the same
            coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
        weight[classes.cpu().numpy()], bias[classes.cpu().numpy()] = coef, intercept
    with torch.no_grad():
        head.lin.weight.copy_(torch.from_numpy(weight))
        head.lin.bias.copy_(torch.from_numpy(bias))
    return head
