"""Wall-clock time, for the benchmarks beside it."""

import time

import torch


def seconds(work, device=None):
    """Seconds of work(); on a GPU its queue is emptied before and after."""
    synchronise = torch.cuda.synchronize if device is not None and device.type == "cuda" else lambda: None
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start
