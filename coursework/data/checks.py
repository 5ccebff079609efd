"""The refusal that points and images share."""

import torch


def floating_dtype(value: torch.dtype, name: str) -> None:
    """Refuse what is not a floating-point dtype of torch (TypeError)."""
    if not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise TypeError(f"{name}: expected a floating-point torch.dtype, got {value!r}")
