"""Random streams by key."""

import itertools

import torch

from coursework.models.batches import stream_of


def draw(*key):
    return torch.randn(20_000, generator=stream_of("cpu", *key), dtype=torch.float64)


def test_the_key_alone_decides():
    first = draw(3, 0, 7)
    torch.manual_seed(5)
    assert torch.equal(draw(3, 0, 7), first)


def test_other_keys_give_independent_streams():
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 2), (2**40, 0, 3)]
    for a, b in itertools.combinations([draw(*key) for key in keys], 2):
        assert abs(float((a * b).mean())) < 4 / 20_000**0.5
