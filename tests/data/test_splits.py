"""Few-shot splits: counts, disjointness, and what happens to small classes and unknown labels."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.data.splits import Split, few_shot, gcope_split

LABELS = torch.tensor([0] * 30 + [1] * 20 + [2] * 25)[torch.randperm(75, generator=torch.Generator().manual_seed(0))]


def counts(y, part):
    return torch.bincount(y[part], minlength=int(y.max()) + 1).tolist()


@pytest.mark.parametrize("shots", [1, 3, 5])
def test_so_many_shots_a_class_and_everything_else_is_tested(shots):
    split = few_shot(LABELS, shots, seed=0)
    assert counts(LABELS, split.train) == [shots] * 3
    assert split.val.numel() == 0
    assert torch.cat([split.train, split.test]).sort().values.tolist() == list(range(75))


def test_validation_is_drawn_beside_the_shots():
    split = few_shot(LABELS, 5, seed=0, val_shots=2)
    assert counts(LABELS, split.train) == [5] * 3
    assert counts(LABELS, split.val) == [2] * 3
    assert counts(LABELS, split.test) == [23, 13, 18]
    same = few_shot(LABELS, 5, seed=0)
    assert torch.equal(same.train, split.train)  # the shots do not depend on it


@st.composite
def labels(draw):
    sizes = draw(st.lists(st.integers(0, 12), min_size=2, max_size=5))
    if sum(s > 0 for s in sizes) < 2:
        sizes = [*sizes, 3, 4]
    y = [c for c, s in enumerate(sizes) for _ in range(s)] + [-1] * draw(st.integers(0, 5))
    return torch.tensor(draw(st.permutations(y)))


@given(labels(), st.integers(1, 6), st.data())
@settings(max_examples=80, deadline=None)
def test_any_labels(y, shots, data):
    val_shots = data.draw(st.integers(0, shots))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        split = few_shot(y, shots, 0, val_shots=val_shots)
    whole = torch.cat([split.train, split.val, split.test])
    assert whole.sort().values.tolist() == torch.nonzero(y >= 0).flatten().tolist()
    for c in y[y >= 0].unique().tolist():
        n = int((y == c).sum())
        train, val, test = (int((y[part] == c).sum()) for part in (split.train, split.val, split.test))
        assert train == min(shots, n - 1)
        assert val == max(0, min(val_shots, n - 1 - shots))
        assert test >= 1
    for part in (split.train, split.val, split.test):
        assert torch.equal(part, part.sort().values)


def test_a_class_of_one_node_is_tested_only_and_said():
    y = torch.tensor([0, 0, 0, 1, 2, 2])
    with pytest.warns(UserWarning, match=r"classes \[1\] have one node each: left out of training") as caught:
        split = few_shot(y, 1, seed=0)
    assert caught[0].filename == __file__  # points at the caller
    assert counts(y, split.train) == [1, 0, 1]
    assert 3 in split.test.tolist()


def test_no_warning_without_such_a_class():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few_shot(LABELS, 3, seed=0)


@pytest.mark.parametrize(
    "y",
    [
        torch.tensor([0, -1, 1, 0, 1, -5, 0, 1]),
        torch.tensor([0, float("nan"), 1, 0, 1, float("nan"), 0, 1]),
        torch.tensor([[0], [-1], [1], [0], [1], [-2], [0], [1]]),
    ],
    ids=["negative", "NaN", "one column"],
)
def test_unknown_labels_are_in_no_part(y):
    split = few_shot(y, 1, seed=0)
    whole = torch.cat([split.train, split.test]).sort().values
    assert whole.tolist() == [0, 2, 3, 4, 6, 7]


def test_class_numbers_may_have_gaps():
    y = torch.tensor([3, 3, 3, 9, 9, 9])
    assert sorted(y[few_shot(y, 1, seed=0).train].tolist()) == [3, 9]


def test_the_seed_alone_decides():
    first, again, other = few_shot(LABELS, 3, seed=0), few_shot(LABELS, 3, seed=0), few_shot(LABELS, 3, seed=1)
    assert torch.equal(first.train, again.train)
    assert not torch.equal(first.train, other.train)
    state = torch.get_rng_state()
    few_shot(LABELS, 3, seed=5)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_node_is_drawn_alike():
    y = torch.tensor([0] * 10 + [1] * 10)
    drawn = torch.cat([few_shot(y, 2, seed=s).train for s in range(1500)])
    times = torch.bincount(drawn, minlength=20)
    expected = 1500 * 2 / 10
    assert int(times.sum()) == 1500 * 4
    assert bool(((times - expected).abs() < 5 * expected**0.5).all())  # not the first by index


def test_the_labels_are_left_as_they_were():
    y = LABELS.clone()
    few_shot(y, 3, seed=0)
    assert torch.equal(y, LABELS)


def test_the_published_split_takes_the_first_nodes():
    split = gcope_split(LABELS, 3, seed=0)
    for c in range(3):
        assert LABELS[split.train].eq(c).sum() == 3
        assert split.train[LABELS[split.train] == c].tolist() == torch.nonzero(LABELS == c).flatten()[:3].tolist()
    assert (split.val.numel(), split.test.numel()) == (6, 60)
    assert torch.cat([split.train, split.val, split.test]).sort().values.tolist() == list(range(75))
    other = gcope_split(LABELS, 3, seed=1)
    assert torch.equal(other.train, split.train)
    assert not torch.equal(other.val, split.val)
    known = gcope_split(torch.tensor([0, 1, -1, 0, 1, 0, 1]), 1, seed=0)
    assert 2 not in torch.cat([known.train, known.val, known.test]).tolist()


def index(*values):
    return torch.tensor(values, dtype=torch.int64)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((index(0, 1), index(1), index(2)), "disjoint"),
        ((index(0, 0), index(), index(2)), "hold each node once"),
        ((index(0).float(), index(), index(2)), r"split\.train must be a vector of int64.*float32"),
        ((index(0), torch.zeros(3, dtype=torch.bool), index(2)), r"split\.val must be .*bool"),
        ((index(0), index(), index(2)[None]), r"split\.test must be .*\[1, 1\]"),
        (([0], index(), index(2)), r"split\.train must be .*got list; use torch\.tensor"),
    ],
    ids=["overlap", "twice", "floats", "mask", "matrix", "list"],
)
def test_bad_splits(parts, message):
    with pytest.raises(ValueError, match=message):
        Split(*parts)


def test_a_split_is_checked_against_its_graph():
    split = Split(index(0), index(), index(2))
    assert split.check(3) is split
    with pytest.raises(ValueError, match=r"indices 0\.\.2 for 2 nodes"):
        split.check(2)
    with pytest.raises(ValueError, match=r"indices -1\.\.0"):
        Split(index(-1, 0), index(), index()).check(3)
    with pytest.raises(ValueError, match=r"split\.train is empty"):
        Split(index(), index(), index(1)).check(3)
    with pytest.raises(AttributeError):
        split.train = index(1)


@pytest.mark.parametrize("part", ["train", "val"])
def test_labels_that_are_to_be_read_must_be_known(part):
    split = Split(index(0, 1), index(2, 3), index(4, 5))
    y = torch.tensor([0, 1, 0, 1, -1, -1])
    assert split.check(6, y) is split
    y[getattr(split, part)[1]] = -1
    with pytest.raises(ValueError, match=rf"split\.{part} holds 1 whose label is unknown .* the first is [13];"):
        split.check(6, y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"shots": 2, "val_shots": 3}, r"val_shots must lie in 0\.\.shots \(2\)"),
        ({"shots": 2, "val_shots": -1}, "val_shots must lie"),
    ],
    ids=["shots", "val_shots above", "val_shots below"],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        few_shot(LABELS, seed=0, **arguments)
