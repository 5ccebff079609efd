"""An exercise's cases on their way into the sandbox, and back: random numbers go in, never the seed that gave them.

A case may hold functions, which do not travel. So the numbers that drawing it took are recorded here, and on the other
side drawing is played back with them.
"""

import base64
import json
from collections.abc import Callable
from typing import Any

from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode

Draw = Callable[[Generator], tuple[Any, ...]]


class _Recording(TorchFunctionMode):
    """Keeps what every function of torch that takes a generator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[Tensor] = []

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        value = function(*args, **(kwargs or {}))
        if _takes_generator(kwargs):
            self.numbers.append(value.clone())
        return value


class _Playback(TorchFunctionMode):
    """Gives what was kept in place of new numbers."""

    def __init__(self, numbers: list[Tensor]) -> None:
        super().__init__()
        self.numbers = iter(numbers)

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if not _takes_generator(kwargs):
            return function(*args, **(kwargs or {}))
        value = next(self.numbers)
        return args[0].copy_(value) if function.__name__.endswith("_") else value


def _takes_generator(kwargs: dict | None) -> bool:
    return isinstance((kwargs or {}).get("generator"), Generator)


def record(draw: Draw, seed: int) -> tuple[tuple[Any, ...], str]:
    """The case that a seed gives, and the random numbers in it as text."""
    from safetensors.torch import save

    with _Recording() as recording:
        case = draw(Generator().manual_seed(seed))
    numbers = {str(i): value.contiguous() for i, value in enumerate(recording.numbers)}
    return case, base64.b64encode(save(numbers)).decode()


def play(draw: Draw, recorded: str) -> tuple[Any, ...]:
    """The case that `record` saw."""
    from safetensors.torch import load

    numbers = load(base64.b64decode(recorded))
    with _Playback([numbers[str(i)] for i in range(len(numbers))]):
        return draw(Generator())


def plain(arguments: tuple[Any, ...]) -> str:
    """Tensors and numbers as text."""
    from safetensors.torch import save

    tensors = {str(i): value.contiguous() for i, value in enumerate(arguments) if isinstance(value, Tensor)}
    numbers = {str(i): value for i, value in enumerate(arguments) if not isinstance(value, Tensor)}
    return json.dumps({"numbers": numbers, "tensors": base64.b64encode(save(tensors)).decode()})


def unplain(text: str) -> tuple[Any, ...]:
    """What `plain` was given."""
    from safetensors.torch import load

    content = json.loads(text)
    values = content["numbers"] | load(base64.b64decode(content["tensors"]))
    return tuple(values[str(i)] for i in range(len(values)))
