"""Scores against scikit-learn and against slow formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from graphfm.metrics import classification_scores


def slow_f1(predicted, y):
    scores = []
    for one in sorted({*predicted, *y}):
        hit = sum(p == one and t == one for p, t in zip(predicted, y, strict=True))
        scores.append(2 * hit / (sum(p == one for p in predicted) + sum(t == one for t in y)))
    return sum(scores) / len(scores)


def slow_auroc(score, positive):
    """The share of (positive, negative) pairs in the right order; ties count half."""
    pairs = [(a > b) + 0.5 * (a == b) for a, p in zip(score, positive, strict=True) if p
             for b, q in zip(score, positive, strict=True) if not q]  # fmt: skip
    return sum(pairs) / len(pairs)


@st.composite
def problems(draw):
    classes = draw(st.integers(2, 5))
    size = draw(st.integers(1, 14))
    y = draw(st.lists(st.integers(0, classes - 1), min_size=size, max_size=size))
    levels = draw(
        st.lists(st.integers(0, 4), min_size=size * classes, max_size=size * classes)
    )  # few levels: many ties
    return torch.tensor(levels, dtype=torch.float32).view(size, classes) / 4, torch.tensor(y)


@given(problems())
def test_against_the_formulas(problem):
    scores, y = problem
    found = classification_scores(scores, y)
    predicted = [row.index(max(row)) for row in scores.tolist()]
    assert found["accuracy"] == pytest.approx(np.mean([p == t for p, t in zip(predicted, y.tolist(), strict=True)]))
    assert found["macro_f1"] == pytest.approx(slow_f1(predicted, y.tolist()))
    classes = sorted(set(y.tolist()))
    if len(classes) < 2:
        assert math.isnan(found["auroc"])
    else:
        columns = [1] if scores.size(1) == 2 else classes
        slow = [slow_auroc(scores[:, one].tolist(), (y == one).tolist()) for one in columns]
        assert found["auroc"] == pytest.approx(sum(slow) / len(slow))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_against_scikit_learn(classes):
    generator = torch.Generator().manual_seed(classes)
    y = torch.randint(classes, (300,), generator=generator)
    p = (torch.randn(300, classes, generator=generator) + torch.nn.functional.one_hot(y, classes)).softmax(1)
    found = classification_scores(p, y)
    if classes == 2:
        reference = roc_auc_score(y.numpy(), p[:, 1].numpy())
    else:
        rows = p.double() / p.double().sum(1, keepdim=True)  # scikit-learn insists on sums of exactly one
        reference = roc_auc_score(y.numpy(), rows.numpy(), multi_class="ovr")
    assert found["auroc"] == pytest.approx(reference, abs=1e-9)
    assert found["macro_f1"] == pytest.approx(f1_score(y.numpy(), p.argmax(1).numpy(), average="macro"))
    assert found["accuracy"] == pytest.approx(float((p.argmax(1) == y).float().mean()))


def test_a_class_that_nobody_has_or_predicts_does_not_count():
    p = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    assert classification_scores(p, torch.tensor([0, 1])) == {"accuracy": 1.0, "macro_f1": 1.0, "auroc": 1.0}


def test_a_class_that_is_predicted_but_absent_counts_as_zero():
    p = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.1, 0.9]])
    found = classification_scores(p, torch.tensor([0, 0]))
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert math.isnan(found["auroc"])


def test_ties_take_the_first_class_and_half_the_area():
    found = classification_scores(torch.full((4, 2), 0.5), torch.tensor([0, 1, 0, 1]))
    assert (found["accuracy"], found["auroc"]) == (0.5, 0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_floating_type_and_a_gradient(dtype):
    p = torch.tensor([[0.75, 0.25], [0.25, 0.75]], dtype=dtype, requires_grad=True)
    assert classification_scores(p, torch.tensor([0, 1], dtype=torch.int32))["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        (torch.tensor([[math.nan, 1.0], [0.5, 0.5]]), torch.tensor([0, 1]), "NaN or infinite values in 1 of 2 rows"),
        (torch.tensor([[math.inf, 1.0], [0.5, 0.5]]), torch.tensor([0, 1]), "NaN or infinite"),
        (torch.rand(3), torch.tensor([0, 1, 0]), r"shape \[M, C\]"),
        (torch.rand(3, 1), torch.tensor([0, 0, 0]), "C >= 2"),
        (torch.rand(3, 2), torch.tensor([0, 1]), r"y must have shape \[3\]"),
        (torch.rand(3, 2), torch.tensor([0, 1, 2]), r"classes 0\.\.2.*columns 0\.\.1"),
        (torch.rand(3, 2), torch.tensor([0, -1, 1]), r"leave out nodes without a label"),
        (torch.rand(3, 2), torch.tensor([0.0, 1.0, 1.0]), "class numbers"),
        (torch.rand(0, 2), torch.zeros(0, dtype=torch.long), "empty"),
    ],
)
def test_bad_input_is_named(p, y, message):
    with pytest.raises(ValueError, match=message):
        classification_scores(p, y)
