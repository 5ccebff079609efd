"""The shared refusals: what passes, what does not, and that every message is one line that names the argument."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.func import grad, jacrev, vmap

from coursework import _arguments as arguments
from coursework._arguments import holds, remember, remembered, settled, unwatched


def test_expand_lines_values_up_with_the_batch_and_never_with_the_last_dimension():
    x = torch.zeros(3, 3, 3)
    value = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    expanded = arguments.expand(value, x, "t")
    assert expanded.dtype == x.dtype
    assert torch.equal((x + expanded)[:, 0, 2], value.float())
    assert torch.equal((x + expanded)[1], torch.full((3, 3), 2.0))
    assert arguments.expand(2, x, "t") == 2
    assert arguments.expand(torch.tensor(2), x, "t").shape == ()


@pytest.mark.parametrize("shape", [(2,), (3, 1), (1,), (3, 3, 3)])
def test_expand_refuses_every_other_shape(shape):
    with pytest.raises(ValueError, match=r"^sigma: expected a number or shape \(3,\) like the batch, got \("):
        arguments.expand(torch.ones(shape), torch.zeros(3, 3, 3), "sigma")


def test_expand_refuses_another_device():
    with pytest.raises(ValueError, match=r"^t: expected device cpu like the batch, got meta$"):
        arguments.expand(torch.ones(3, device="meta"), torch.zeros(3, 2), "t")


def test_flat_sum_keeps_the_batch():
    x = torch.arange(24.0).reshape(2, 3, 4)
    assert arguments.flat_sum(x).tolist() == [sum(range(12)), sum(range(12, 24))]


@pytest.mark.parametrize("value", [0.0, -1.0, torch.tensor([1.0, 0.0]), torch.tensor([3, -2])])
def test_positive_refuses_and_shows_the_least_value(value):
    least = torch.as_tensor(value).min().item()
    with pytest.raises(ValueError, match=rf"^sigma: expected values > 0, got {least:g}$"):
        arguments.positive(value, "sigma")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, torch.tensor([1.0, math.nan])])
def test_values_that_are_not_finite_are_refused(value):
    for refuse in (arguments.positive, lambda value, name: arguments.finite(torch.as_tensor(value), name)):
        with pytest.raises(ValueError, match=r"^sigma: has NaN or infinite values$"):
            refuse(value, "sigma")


def test_good_values_pass():
    arguments.positive(1e-30, "sigma")
    arguments.positive(torch.tensor([1, 2]), "sigma")
    arguments.batch(torch.zeros(0, 3), "x")
    arguments.batch(torch.zeros(2, 3, 4).half(), "x")
    arguments.at_least(0, 0, "n")
    arguments.one_of("b", ("a", "b"), "option")
    arguments.like(torch.ones(2, 3), torch.zeros(2, 3), "y", "x")


def test_values_are_looked_at_outside_vmap_only():
    assert holds(torch.tensor([True, True]))
    assert not holds(torch.tensor([True, False]))

    def double(x):
        arguments.batch(x[None], "x")
        arguments.positive(x.abs() + 1, "x")
        return 2 * x

    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert torch.equal(vmap(double)(x), 2 * x)
    with pytest.raises(ValueError, match=r"^x: expected a batch of shape \(B, ...\), got \(2,\)"):
        vmap(lambda x: arguments.batch(x, "x"))(x)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (True, TypeError, "n: expected an integer, got bool"),
        (1.0, TypeError, "n: expected an integer, got float"),
        ("1", TypeError, "n: expected an integer, got str"),
        (1, ValueError, "n: expected at least 2, got 1"),
    ],
)
def test_at_least_refuses(value, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        arguments.at_least(value, 2, "n")


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (torch.zeros(2, 4), ValueError, r"y: expected shape \(2, 3\) like x, got \(2, 4\)"),
        (torch.zeros(2, 3).double(), ValueError, "y: expected dtype torch.float32 like x, got torch.float64"),
        (torch.zeros(2, 3, device="meta"), ValueError, "y: expected device cpu like x, got meta"),
        (torch.zeros(2, 3).long(), TypeError, "y: expected a floating-point tensor, got torch.int64"),
        (None, TypeError, "y: expected a torch.Tensor, got NoneType"),
    ],
)
def test_like_refuses(value, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        arguments.like(value, torch.zeros(2, 3), "y", "x")


def test_one_of_lists_the_options():
    with pytest.raises(ValueError, match=r"^option: expected one of 'a', 'b', got 'c'$"):
        arguments.one_of("c", ("a", "b"), "option")


def test_a_failure_of_the_device_is_not_taken_for_vmap():
    class Broken(torch.Tensor):
        def all(self):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        holds(torch.ones(2).as_subclass(Broken))


def test_values_are_looked_at_under_grad_and_not_under_vmap_at_any_depth():
    seen = []

    def looks(x):
        seen.append((holds(x < 0), settled(x < 0)))
        return (x**2).sum()

    x = torch.ones(3, 2)
    for call in (
        lambda: grad(looks)(x[0]),
        lambda: vmap(looks)(x),
        lambda: vmap(grad(looks))(x),
        lambda: jacrev(looks)(x),
    ):
        call()
    assert seen == [(False, False), (True, True), (True, True), (False, False)]


def test_what_does_not_change_in_a_loop_is_looked_at_inside_it():
    wrong = torch.tensor(False)
    with unwatched():
        assert holds(wrong)
        assert not settled(wrong)
    with unwatched(waiting=False):
        assert not settled(wrong)  # on the CPU nothing has to be waited for
    assert not holds(wrong)


def test_a_check_is_remembered_for_the_same_unchanged_tensor_only():
    a, b, owner, other = torch.ones(2), torch.ones(2), Tables(torch.ones(3)), Tables(torch.ones(3))
    remember(a, owner)
    assert remembered(a, owner)
    assert not remembered(b, owner)
    assert not remembered(a, other)  # which owners are the same is no matter of their values
    assert not remembered(a, owner, noisy=True)
    remember(a, owner, noisy=True)
    assert remembered(a, owner, noisy=True)
    a.mul_(-1)
    assert not remembered(a, owner)


@dataclass
class Tables:
    """An owner that is compared by its values: two of them, tensors, have no truth value."""

    values: torch.Tensor


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3), torch.tensor(3, dtype=torch.int8)])
def test_integers_of_any_kind(value):
    got = arguments.at_least(value, 2, "n")
    assert (got, type(got)) == (3, int)


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.float16(2), np.int16(2), torch.tensor(2.0), torch.tensor(2)]
)
def test_numbers_of_any_kind(value):
    got = arguments.number(value, "scale")
    assert (got, type(got)) == (2.0, float)


def test_numbers_keep_the_digits_that_they_were_given_with():
    for given in ([0.1, 1 / 3], (0.1, 1 / 3), np.array([0.1, 1 / 3])):
        got = arguments.reals(given, "sigma")
        assert (got.dtype, got.tolist()) == (torch.float64, [0.1, 1 / 3])
    assert arguments.reals(0.1, "sigma").item() == 0.1
    assert arguments.reals(np.float32(0.1), "sigma").item() == float(np.float32(0.1))
    assert arguments.reals([1, 2], "sigma").dtype == arguments.reals(3, "sigma").dtype == torch.float64
    assert arguments.reals(torch.tensor([0.1]), "sigma").dtype == torch.float32


@pytest.mark.parametrize("value", [True, np.bool_(True), "2", None, [2.0], torch.ones(1), torch.tensor(True), 2j])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match=r"^scale: expected a number, got"):
        arguments.number(value, "scale")
