"""sum_pool against a loop over graphs."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close
from torch_geometric.nn import global_add_pool

from graphfm.nn import sum_pool

SIZES = {"several": [3, 1, 4], "an empty graph": [2, 0, 3, 0], "one node": [1], "no nodes": [0, 0]}


def batch_of(sizes):
    size = torch.tensor(sizes)
    return torch.cat([size.new_zeros(1), size.cumsum(0)]), torch.arange(len(sizes)).repeat_interleave(size)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "some rows"])
def test_the_sum_of_each_graph(sizes, masked):
    ptr, batch = batch_of(sizes)
    h = torch.randn(sum(sizes), 2, dtype=torch.float64, requires_grad=True)
    keep = (torch.arange(sum(sizes)) % 2 == 0) if masked else None
    out = sum_pool(h, ptr, batch, keep)
    kept = h if keep is None else h * keep[:, None]
    assert_close(out, torch.stack([kept[a:b].sum(0) for a, b in itertools.pairwise(ptr)]))
    assert_close(out, global_add_pool(kept, batch, len(sizes)))
    assert gradcheck(lambda h: sum_pool(h, ptr, batch, keep), h)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_many_rows_in_half_precision(dtype):
    ptr, batch = batch_of([4096, 1])
    out = sum_pool(torch.ones(4097, 1, dtype=dtype), ptr, batch)
    assert out.dtype == dtype
    assert out.flatten().tolist() == [4096.0, 1.0]


def test_weights_of_rows_need_no_particular_type():
    ptr, batch = batch_of([2, 2])
    h = torch.ones(4, 1, requires_grad=True)
    out = sum_pool(h, ptr, batch, torch.tensor([0.5, 1.0, 0.0, 2.0], dtype=torch.float64))
    assert out.flatten().tolist() == [1.5, 2.0]
    (grad,) = torch.autograd.grad(out.sum(), h)
    assert grad.flatten().tolist() == [0.5, 1.0, 0.0, 2.0]
