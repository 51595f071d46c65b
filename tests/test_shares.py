"""Which rank has which groups, and sums over ranks in the order of the groups."""

import pytest
import torch
from ranks import errors_of, needs_fork, together, train

from graphfm.distributed import ALONE, Ranks, find_ranks, rank_device
from graphfm.samplers import Neighbours, WholeGraph


@pytest.mark.parametrize(("count", "size"), [(1, 1), (4, 2), (5, 3), (7, 4), (8, 8)])
def test_shares_are_neighbours_and_hold_every_group_once(count, size):
    shares = [Ranks(rank, size).share(count) for rank in range(size)]
    assert [g for share in shares for g in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@needs_fork
def test_sums_over_ranks_are_in_the_order_of_the_groups(tmp_path):
    g = torch.Generator().manual_seed(0)
    rows = [torch.randn(37, generator=g) * 10.0 ** (i % 5) for i in range(7)]
    expected = rows[0].clone()
    for row in rows[1:]:
        expected += row

    def work(rank):
        ranks = find_ranks(torch.device("cpu"))
        found = ranks.ordered_sum([rows[i] for i in ranks.share(7)], 7)
        assert torch.equal(found, expected)
        assert ranks.any(rank == 2)
        assert not ranks.any(False)
        assert ranks.is_first == (rank == 0)

    together(3, work, tmp_path)
    assert torch.equal(ALONE.ordered_sum(rows, 7), expected)


def test_alone_there_is_nothing_to_ask(monkeypatch):
    assert find_ranks(torch.device("cpu")) is ALONE
    assert ALONE.any(True)
    assert not ALONE.any(False)
    ALONE.check_agree({"a": "b"}, "")
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert find_ranks(torch.device("cpu")) is ALONE
    assert rank_device(None) == torch.device("cpu")


@pytest.mark.parametrize("kind", [str, torch.device])
def test_each_rank_has_a_gpu_of_its_own_however_the_device_is_written(monkeypatch, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name, value in {
        "RANK": "2",
        "LOCAL_RANK": "2",
        "WORLD_SIZE": "4",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert rank_device(kind("cuda")) == torch.device("cuda:2")
    assert rank_device(kind("cuda:1")) == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"groups": 0}, "groups must be an integer, at least 1, got 0"),
        ({"groups": 7}, "batch_size is 12: 7 groups of at least 2 subgraphs .* need 14"),
        ({"groups": 2, "sampler": WholeGraph()}, "WholeGraph is one batch that cannot be shared by 2 groups"),
        ({"groups": 9, "sampler": Neighbours((2,), 8)}, "batch_size is 8: 9 groups need at least one seed each"),
    ],
)
def test_bad_groups_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        train(**options)


@needs_fork
def test_fewer_groups_than_ranks_is_refused(tmp_path):
    found = errors_of(2, lambda rank: train(groups=1), tmp_path)
    assert all("groups is 1, with 2 ranks to share them" in error for error in found)
