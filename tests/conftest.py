"""Shared fixtures."""

import pytest
import torch


@pytest.fixture
def generator() -> torch.Generator:
    """A fixed random stream: statistical tests give the same numbers on every run."""
    return torch.Generator().manual_seed(20240607)
