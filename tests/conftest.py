"""Shared fixtures."""

import signal
from collections.abc import Iterator

import pytest
import torch

# What a shell starts in the background ignores Ctrl-C, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# torch gives some warnings once a process: a test would then fail or pass by what ran before it.
torch.set_warn_always(True)


@pytest.fixture
def generator() -> torch.Generator:
    """A fixed random stream: statistical tests give the same numbers on every run."""
    return torch.Generator().manual_seed(20240607)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors on one thread: where cores are shared, threads that wait for one another take ten times longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
