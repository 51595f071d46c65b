"""Scores of class probabilities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["classification_scores"]


def classification_scores(probabilities: Tensor, y: Tensor) -> dict[str, float]:
    """Accuracy, macro-F1 and AUROC.

    - ``accuracy``: the prediction is the most probable class, the first of them on a tie.
    - ``macro_f1``: the unweighted mean of F1 over the classes that occur in ``y`` or in the predictions (what
      scikit-learn does unless told the labels). A class that nobody has and nobody predicts does not count; one that
      is predicted but does not occur counts as 0.
    - ``auroc``: two columns: the plain area for class 1. More: the unweighted mean of one-vs-rest areas over the
      classes that occur in ``y``. NaN if ``y`` holds one class only. Rows need not sum to one.

    Args:
        probabilities: ``[M, C]``, finite, C >= 2; any floating type, any device.
        y: ``[M]`` class numbers in 0 .. C - 1.

    Raises:
        ValueError: wrong shapes, no rows, NaN or infinite probabilities, labels out of range.
    """
    scores, labels = _checked(probabilities, y)
    from sklearn.metrics import f1_score

    predicted = scores.argmax(axis=1)
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "auroc": _auroc(scores, labels),
    }


def _auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    import numpy as np
    from sklearn.metrics import roc_auc_score

    classes = np.unique(labels)
    if classes.size < 2:
        return math.nan
    if scores.shape[1] == 2:
        return float(roc_auc_score(labels == 1, scores[:, 1]))
    return float(np.mean([roc_auc_score(labels == one, scores[:, one]) for one in classes]))


def _checked(probabilities: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both as NumPy arrays, after the checks that the docstring names."""
    import numpy as np

    if probabilities.dim() != 2 or probabilities.size(1) < 2:
        raise ValueError(f"probabilities must have shape [M, C] with C >= 2, got {list(probabilities.shape)}.")
    if y.dim() != 1 or y.size(0) != probabilities.size(0):
        raise ValueError(f"y must have shape [{probabilities.size(0)}] like probabilities, got {list(y.shape)}.")
    if y.numel() == 0:
        raise ValueError("probabilities and y are empty; there is nothing to score (is the test split empty?).")
    if y.is_floating_point():
        raise ValueError(f"y must hold class numbers, got {y.dtype}; use y.long().")
    scores = probabilities.detach().double().cpu().numpy()
    labels = y.detach().long().cpu().numpy()
    bad = int((~np.isfinite(scores)).any(axis=1).sum())
    if bad:
        raise ValueError(f"probabilities hold NaN or infinite values in {bad} of {len(scores)} rows; did it diverge?")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(
            f"y holds classes {labels.min()}..{labels.max()}, probabilities have columns 0..{scores.shape[1] - 1}; "
            "leave out nodes without a label (-1)."
        )
    return scores, labels
