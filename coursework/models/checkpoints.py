"""Weights on disk: one safetensors file, written whole or not at all, refused if damaged or foreign."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from coursework._files import write_atomically


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors by name, with `facts` (anything that JSON can hold) beside them, atomically.

    Raises ValueError, and writes nothing, if a tensor has NaN or infinite values.
    """
    _finite(tensors, path)
    contiguous = {name: value.detach().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(contiguous, {"facts": json.dumps(facts, sort_keys=True)}))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, on the CPU, and the facts beside them.

    Raises FileNotFoundError if there is no such file, ValueError naming it if it is truncated, is no checkpoint, or
    holds NaN.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if not isinstance(facts, dict):
            raise KeyError("facts")
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"{path}: damaged, or no checkpoint of this course ({type(error).__name__}: {error})"
        ) from None
    _finite(tensors, path)
    return tensors, facts


def load_into(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into the module's parameters and buffers of the same names.

    Raises ValueError, and changes nothing, if a name or a shape differs: weights of another architecture.
    """
    same_form(module.state_dict(), tensors, path)
    module.load_state_dict(dict(tensors))


def same_form(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that are not, by name, shape and kind of number, those of the network."""
    lacking, foreign = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    if lacking or foreign:
        what = f"lacks {lacking[0]}" if lacking else f"has {foreign[0]}, which the network has not"
        raise ValueError(f"{path}: from another architecture: it {what}")
    for name, value in own.items():
        got = tensors[name]
        if got.shape != value.shape or got.is_floating_point() != value.is_floating_point():
            raise ValueError(
                f"{path}: from another architecture: {name} is {got.dtype} {tuple(got.shape)}, "
                f"the network's is {value.dtype} {tuple(value.shape)}"
            )


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise ValueError(f"{path}: {name} has NaN or infinite values")
