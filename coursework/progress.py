"""A progress bar for solvers and samplers: `with progress(len(times) - 1) as on_step: euler(..., on_step=on_step)`."""

from collections.abc import Generator
from contextlib import contextmanager

from torch import Tensor
from tqdm.auto import tqdm

from coursework._arguments import at_least
from coursework._loops import OnStep


@contextmanager
def progress(n_steps: int, description: str = "sampling") -> Generator[OnStep]:
    """A bar of n_steps steps, in a terminal or a notebook, and the `on_step` that moves it.

    It is closed on the way out, also by an error or by Ctrl-C, so that nothing is left of it.
    """
    at_least(n_steps, 1, "n_steps")
    with tqdm(total=n_steps, desc=description, unit="step", leave=False) as bar:

        def on_step(i: int, t: Tensor, x: Tensor) -> None:
            bar.update()

        yield on_step
