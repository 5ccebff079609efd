from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

State = TypeVar("State", Tensor, tuple[Tensor, Tensor])

def odeint(
    func: Callable[[Tensor, State], State],
    y0: State,
    t: Tensor,
    *,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    method: str | None = None,
    options: dict[str, Any] | None = None,
) -> State: ...
