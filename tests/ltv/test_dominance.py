"""Hypervolume against boxes counted one by one, random points, and inclusion and exclusion."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphfm.ltv.dominance import hypervolume, is_dominated


def by_cells(losses, reference):
    """Small whole numbers: count the unit cubes that some point dominates."""
    cubes = itertools.product(*(range(int(losses[:, k].min()), int(reference[k])) for k in range(len(reference))))
    return sum(any((point <= np.array(cube)).all() for point in losses) for cube in cubes)


def by_inclusion_and_exclusion(losses, reference):
    total = 0.0
    for size in range(1, len(losses) + 1):
        for chosen in itertools.combinations(losses, size):
            sides = np.maximum(reference - np.max(chosen, axis=0), 0)
            total -= (-1) ** size * sides.prod()
    return total


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_counted_cell_by_cell(k, seed):
    rng = np.random.default_rng(seed)
    losses = rng.integers(0, 6, (7, k))  # with ties, and points on the border
    assert hypervolume(losses, np.full(k, 5)) == by_cells(losses, np.full(k, 5))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_inclusion_and_exclusion(k):
    rng = np.random.default_rng(k)
    losses, reference = rng.normal(size=(8, k)), np.full(k, 0.7)
    assert hypervolume(losses, reference) == pytest.approx(by_inclusion_and_exclusion(losses, reference), rel=1e-12)


@pytest.mark.parametrize("k", [3, 4])
def test_random_points(k):
    rng = np.random.default_rng(k)
    front = rng.random((30, k))
    front /= np.linalg.norm(front, axis=1, keepdims=True)  # on a sphere: none dominates another
    assert not is_dominated(front).any()
    thrown = rng.random((200_000, k))
    inside = np.zeros(len(thrown), dtype=bool)
    for point in front:
        inside |= (thrown >= point).all(axis=1)
    assert hypervolume(front, np.ones(k)) == pytest.approx(inside.mean(), abs=4 * 0.5 / np.sqrt(len(thrown)))


def test_what_it_obeys():
    rng = np.random.default_rng(0)
    losses, reference = rng.random((12, 3)), np.ones(3)
    whole = hypervolume(losses, reference)
    assert hypervolume(losses[::-1], reference) == pytest.approx(whole)
    assert hypervolume(losses[~is_dominated(losses)], reference) == pytest.approx(whole)
    assert hypervolume(np.vstack([losses, losses]), reference) == pytest.approx(whole)
    assert hypervolume(np.vstack([losses, [[1.0, 0, 0]]]), reference) == pytest.approx(whole)
    assert hypervolume(np.vstack([losses, losses.min(axis=0)]), reference) > whole
    assert hypervolume(losses * [2, 3, 5], reference * [2, 3, 5]) == pytest.approx(30 * whole)
    assert hypervolume(np.zeros((0, 3)), reference) == 0
    assert hypervolume(losses + 1, reference) == 0


def test_dominated():
    assert is_dominated(np.array([[1, 2], [2, 1], [2, 2], [1, 2]])).tolist() == [False, False, True, False]


def test_what_is_refused():
    with pytest.raises(ValueError, match="must be"):
        hypervolume(np.ones((3, 2)), np.ones(3))
    with pytest.raises(ValueError, match="must be"):
        hypervolume(np.ones(3), np.ones(()))
    with pytest.raises(ValueError, match="finite"):
        hypervolume(np.array([[np.nan, 0]]), np.ones(2))
