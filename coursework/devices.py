"""What is computed on, and how exactly: `pick_device` stands in every lesson's set-up."""

from __future__ import annotations

import os

import torch


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """Chooses the device that a lesson computes on, and one thread for what it computes on the CPU.

    "auto" takes CUDA where there is one, else the CPU; "mps" only by its name, because it lacks float64. Several
    threads gain little on small tensors, and wait for one another while another program keeps a core busy. Where
    OMP_NUM_THREADS is set, its number stays.

    name: "auto", or what `torch.device` understands: "cpu", "cuda", "cuda:1", "mps"; a device too, since the cell
    `device = pick_device(device)` may be run again. Raises TypeError if it is neither a string nor a device, ValueError
    if there is no such device, here or at all.
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(1)
    name = str(name) if isinstance(name, torch.device) else name
    if not isinstance(name, str):
        raise TypeError(f"name: expected a string such as 'auto' or 'cpu', got {type(name).__name__}")
    found = devices()
    if name == "auto":
        return torch.device("cuda" if "cuda:0" in found else "cpu")
    if name not in found and f"{name}:0" not in found:
        raise ValueError(f"name: there is no device {name!r} here; expected 'auto' or one of {', '.join(found)}")
    return torch.device(name)


def devices() -> list[str]:
    """Names the devices that torch can use here, the CPU first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *cuda, *(["mps:0"] if torch.backends.mps.is_available() else [])]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Makes the context in which a network computes: in bfloat16 where that is asked for and the device has it.

    A CPU without such products imitates them, ten times slower than float32, in which it computes here instead.

    precision: "float32" or "bfloat16".
    """
    low = precision == "bfloat16" and has_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=low)


def has_bfloat16(device: torch.device) -> bool:
    """Tells whether the device multiplies matrices in bfloat16; of a GPU it is taken for granted."""
    if device.type != "cpu":
        return True
    return any(present for name, present in torch.cpu.get_capabilities().items() if "bf16" in name)
