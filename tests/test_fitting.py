"""The training loop of adaptation: Adam by hand, penalties, a loop that a prompt brings, the step that is kept."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graphfm.fitting import Lesson, fit_head, numbers, train
from graphfm.heads import LinearHead, PrototypeHead
from graphfm.prompts.similarity import SimilarityHead


class Pulled(nn.Module):
    """One number, pulled towards 3 by the loss and towards 0 by a penalty."""

    def __init__(self, start=0.0, weight=0.0):
        super().__init__()
        self.p, self.weight = nn.Parameter(torch.tensor(start)), weight

    def loss(self):
        return (self.p - 3).square()

    def penalty(self):
        return self.weight * self.p.square()


def test_steps_are_adams():
    ours, theirs = Pulled(weight=0.5), Pulled(weight=0.5)
    train([ours], ours.loss, epochs=7, lr=0.1, weight_decay=0.01)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.1, weight_decay=0.01)
    for _ in range(7):
        optimizer.zero_grad()
        (theirs.loss() + 0.5 * theirs.p.square()).backward()
        optimizer.step()
    torch.testing.assert_close(ours.p, theirs.p)
    assert not ours.training


def test_the_best_step_is_kept_and_the_first_is_looked_at():
    passing = Pulled()
    seen = []

    def validate():
        assert not passing.training
        seen.append(float(passing.p.detach()))
        return abs(float(passing.p.detach()) - 0.35)

    def loss():
        assert passing.training
        return passing.loss()

    train([passing], loss, epochs=10, lr=0.1, weight_decay=0.0, validate=validate)
    assert len(seen) == 11
    assert float(passing.p.detach()) == pytest.approx(min(seen, key=lambda p: abs(p - 0.35)))
    leaving = Pulled(2.9)
    train(
        [leaving],
        leaving.loss,
        epochs=10,
        lr=0.5,
        weight_decay=0.0,
        validate=lambda: abs(float(leaving.p.detach()) - 2.9),
    )
    assert float(leaving.p.detach()) == pytest.approx(2.9)


class Turns(nn.Module):
    """A prompt with a loop of its own."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.zeros(()))
        self.told = None

    def fit(self, others, loss, *, epochs, lr, weight_decay, after):
        self.told = [len(list(others)), float(loss()), epochs, lr, weight_decay]
        with torch.no_grad():
            self.p.fill_(1.0)
        after()


def test_a_prompt_may_bring_its_loop():
    under, head = nn.Module(), Pulled()
    under.prompt = Turns()
    looks = []
    train([under, head], head.loss, epochs=4, lr=0.2, weight_decay=0.1, validate=lambda: looks.append(1) or -len(looks))
    assert under.prompt.told == [1, 9.0, 4, 0.2, 0.1]
    assert len(looks) == 2
    assert float(under.prompt.p) == 1.0  # the later look was the better
    assert float(head.p) == 0.0


def test_what_cannot_be_trained_is_refused():
    still = Pulled()
    still.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing of the network requires a gradient"):
        train([still], still.loss, epochs=1, lr=0.1, weight_decay=0.0)
    wild = Pulled()
    with pytest.raises(ValueError, match="the loss is nan at step 1 of 3; lower lr"):
        train([wild], lambda: wild.p * float("nan"), epochs=3, lr=0.1, weight_decay=0.0)


def rows(seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(12) % 3
    return torch.randn(12, 5, generator=generator) + 2 * F.one_hot(y, 5), y


@pytest.mark.parametrize("make", [LinearHead, PrototypeHead, SimilarityHead])
def test_a_lesson_scores_other_rows_and_leaves_the_head_as_it_was(make):
    (z, y), (other, known) = rows(0), rows(1)
    head = make(5, 4)
    fit_head(head, z, y)
    shifted = z + 0.5
    lesson = Lesson(head, lambda: shifted, y)
    before = {k: v.clone() for k, v in head.state_dict().items()}
    known = known.clone()
    known[0] = 3  # a class that was never seen is left out
    found = lesson.validation(lambda: other, known)()
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())
    if make is SimilarityHead:  # its own head is fitted to the rows as they are
        head.fit(shifted, y)
    assert found == pytest.approx(float(F.cross_entropy(head(other[1:]), known[1:])))
    assert lesson.validation(lambda: other, torch.full((12,), 3)) is None
    expected = head.loss(shifted, y) if make is SimilarityHead else F.cross_entropy(head(shifted), y)
    torch.testing.assert_close(lesson.loss(), expected)


def test_numbers_counts_what_is_trained():
    frozen = nn.Linear(3, 2)
    frozen.bias.requires_grad_(False)
    assert numbers([frozen, Pulled()]) == 6 + 1
