"""Dropout: rates, scale, gradient, and nothing in evaluation."""

import pytest
import torch

from graphfm.nn import QuickDropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rate_and_scale(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 203, dtype=dtype)
    out = dropout(x, p, True).double()
    share = float((out == 0).double().mean())
    spread = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(share - p) < 5 * spread
    torch.testing.assert_close(
        out[out != 0].unique(), torch.tensor([1 / (1 - p)], dtype=torch.float64), rtol=1e-2, atol=0
    )
    if dtype == torch.float64:
        assert abs(float(out.mean()) - 1) < 5 * spread / (1 - p)


def test_elements_are_dropped_independently() -> None:
    """No pattern along rows, columns, or the four elements that share one 64-bit draw."""
    torch.manual_seed(1)
    kept = (dropout(torch.ones(400_000), 0.3, True) > 0).double() - 0.7
    for lag in (1, 2, 3, 4, 5, 64):
        assert abs(float((kept[lag:] * kept[:-lag]).mean()) / 0.21) < 0.01


def test_gradient_is_the_mask() -> None:
    x = torch.randn(50, 7, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(2)
    out = dropout(x, 0.4, True)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), out.detach())


def test_nothing_happens_without_training_or_rate() -> None:
    x = torch.randn(5, 3)
    assert torch.equal(dropout(x, 0.5, False), x)
    assert torch.equal(dropout(x, 0.0, True), x)
    assert dropout(torch.empty(0, 3), 0.5, True).shape == (0, 3)
    assert float(dropout(x, 1.0, True).abs().sum()) == 0


def test_a_seed_decides() -> None:
    x = torch.ones(100)
    torch.manual_seed(3)
    first = dropout(x, 0.5, True)
    second = dropout(x, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.5, True))
    assert not torch.equal(first, second)


def test_modules_of_others_draw_as_ours_within_the_context() -> None:
    """The same numbers as :func:`dropout`, in training alone; what is to change its input does; torch's own outside."""
    x, module = torch.randn(40, 9), torch.nn.Dropout(0.25)
    torch.manual_seed(3)
    wanted = dropout(x, 0.25, True)
    torch.manual_seed(3)
    with QuickDropout():
        found = module(x)
        changed = x.clone()
        assert torch.nn.functional.dropout(changed, p=0.5, inplace=True) is changed
        assert torch.equal(module.eval()(x), x)
    assert torch.equal(found, wanted)
    assert bool((changed == 0).any())
    torch.manual_seed(3)
    assert not torch.equal(module.train()(x), wanted)
