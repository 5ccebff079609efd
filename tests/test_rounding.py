"""`pytest --rounding`: what it moves, and what is exact on every processor and stays."""

import pytest
import torch

from tests.helpers.rounding import Rounding

X = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
ROUNDED = {
    "a product": lambda: X @ X,
    "a sum that cancels": lambda: (X - X.mean()).sum(),
    "a function": lambda: X.exp(),
    "a power": lambda: X.abs() ** (X + 3),
    "a factorisation": lambda: torch.linalg.eigvalsh(X @ X.T),
}
EXACT = {
    "a power of two": lambda: 4 * X,
    "a square": lambda: X**2,
    "exp(0)": lambda: torch.zeros(3).exp(),
    "a sum of whole numbers": lambda: torch.arange(9.0).sum(),
    "an index": lambda: X.argsort(),
    "a difference": lambda: X - 2 * X,
}


@pytest.mark.parametrize("what", ROUNDED)
def test_what_is_rounded_moves_by_a_last_bit(what):
    expected = ROUNDED[what]()
    with Rounding():
        got, again = ROUNDED[what](), ROUNDED[what]()
    assert not torch.equal(got, expected)
    assert torch.equal(got, again), "one processor gives one result"
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("what", EXACT)
def test_what_is_exact_stays(what):
    with Rounding():
        got = EXACT[what]()
    assert torch.equal(got, EXACT[what]())
