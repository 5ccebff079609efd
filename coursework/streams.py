"""Random streams by key, so that a result does not depend on what was drawn before it, nor in which process."""

import numpy as np
import torch


def stream_of(device: torch.device | str, *key: int) -> torch.Generator:
    """A random stream on the device that depends on the key alone; keys of one length give independent streams.

    The key is one or more integers >= 0. Streams on the CPU and on GPUs differ.
    """
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    return torch.Generator(device).manual_seed(seed)
