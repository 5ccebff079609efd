"""Evidence shows both numbers, and stops a lesson exactly where they are too far apart or too close."""

import math

import pytest
import torch

from coursework.evidence import Disagreement, agree, differ, matrix_products, mean_agrees
from coursework.nn import MLP


def test_agree_prints_both_numbers_and_the_error_allowed(capsys):
    agree("variance", torch.tensor(2.0314), 2.026, error=0.02)
    assert " ".join(capsys.readouterr().out.split()) == "variance 2.031 exact 2.026 (to 0.02)"


@pytest.mark.parametrize("measured", [0.89, 1.11, math.nan, math.inf, torch.tensor([1.0, 1.2])])
def test_agree_stops_where_a_number_is_too_far_off(measured):
    with pytest.raises(Disagreement, match=r"further apart than 0\.1"):
        agree("x", measured, 1.0, error=0.1)


@pytest.mark.parametrize("measured", [0.91, 1.09, [1.0, 1.05], torch.tensor([[0.95]])])
def test_agree_lets_pass_what_is_close_enough(measured):
    agree("x", measured, 1.0, error=0.1)


def test_agree_shows_the_worst_of_many(capsys):
    measured = torch.zeros(3, 4).index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(0.25))
    agree("residual", measured, 0.0, error=0.5)
    assert " ".join(capsys.readouterr().out.split()) == "residual (worst of 12) 0.25 exact 0 (to 0.5)"


def test_a_number_that_is_not_one_is_the_worst_of_many():
    with pytest.raises(Disagreement, match="nan"):
        agree("residual", torch.tensor([9.0] * 6 + [math.nan]), 0.0, error=10.0)


def test_differ_stops_where_a_wrong_number_is_right(capsys):
    differ("half of the score", 5.913, 2.026, by=3)
    assert " ".join(capsys.readouterr().out.split()) == "half of the score 5.913 exact 2.026 (off by more than 3)"
    for measured in (2.1, math.nan, [6.0, 2.0]):
        with pytest.raises(Disagreement, match="closer than 3"):
            differ("x", measured, 2.026, by=3)


def test_mean_agrees_counts_standard_errors(capsys):
    draws = torch.tensor([1.0, -1.0]).repeat(200)  # standard deviation 1.00125, standard error 0.0501
    mean_agrees("mean", draws + 0.1, 0.0)
    assert " ".join(capsys.readouterr().out.split()) == "mean 0.1 ± 0.05 exact 0 (2.0 standard errors off)"
    with pytest.raises(Disagreement, match="more than 4 standard errors off"):
        mean_agrees("mean", draws + 0.21, 0.0)
    mean_agrees("mean", draws + 0.21, 0.0, within=5)
    with pytest.raises(Disagreement, match="nan"):
        mean_agrees("mean", torch.tensor([0.0, math.nan]), 0.0)


def test_equal_draws_agree_with_their_own_value_only(capsys):
    mean_agrees("mean", torch.full((5,), 2.0), 2.0)
    assert "(0.0 standard errors off)" in capsys.readouterr().out
    with pytest.raises(Disagreement):
        mean_agrees("mean", torch.full((5,), 2.0), 2.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: agree("x", 1.0, 1.0, error=0.0), "error: expected a number > 0, got 0.0"),
        (lambda: differ("x", 1.0, 1.0, by=-1), "by: expected a number > 0, got -1"),
        (lambda: agree("x", torch.ones(2), torch.ones(3), error=1), r"exact: expected shape \(2,\) like measured"),
        (lambda: agree("x", torch.ones(0), 0.0, error=1), "measured: expected at least one number"),
        (lambda: agree("x", "two", 2.0, error=1), "measured: expected a number or a tensor of numbers, got str"),
        (lambda: mean_agrees("x", torch.ones(1), 1.0), "values: expected at least 2 draws, got 1"),
        (lambda: mean_agrees("x", torch.ones(3), torch.ones(3)), r"exact: expected one number, got shape \(3,\)"),
        (lambda: mean_agrees("x", torch.ones(3), 1.0, within=0), "within: expected a number > 0"),
    ],
)
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_matrix_products_are_counted_in_every_pass():
    network, x = MLP(5, depth=2), torch.randn(7, 5)  # three linear layers
    assert matrix_products(lambda: network(x)) == 3
    assert matrix_products(lambda: network(x).sum().backward()) == 3 + 3 + 2  # no gradient in x for the first layer
    assert matrix_products(lambda: torch.einsum("bij,bjk->bik", x[:, None], x[:, :, None])) == 1
    assert matrix_products(lambda: x * x) == 0
