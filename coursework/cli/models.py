"""The commands around trained models: `coursework train`, `sample` and `evaluate`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from coursework._files import check_writable, write_atomically
from coursework.cli.asked import parameters_of
from coursework.cli.terminal import PairsCommand, refuse

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="a trained model that comes with the package, or a .safetensors file")]
Solver = Annotated[
    str | None,
    typer.Option(help="heun [default], euler, rk4, euler-maruyama, ancestral, ...; of a distilled map: map or restart"),
]
Grid = Annotated[
    str | None, typer.Option(help="how the times are spread: karras [default], uniform, log-snr or angle [of a map]")
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, max=100_000, help="of the solver [default: 30; of a map 4, or its 1]"),
]
Samples = Annotated[
    int | None, typer.Option("-n", "--n", min=10, help="how many samples [default: as many as held-out images]")
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="of all that is random")]
Precision = Annotated[
    str, typer.Option(help="float32, or bfloat16: faster and less exact where GPU or CPU has it, else float32 too")
]
Cpu = Annotated[bool, typer.Option("--cpu", help="compute on the CPU although there is a GPU")]


@contextmanager
def refusals() -> Iterator[None]:
    """Ends the command with one line where the package refuses an argument, training diverges, or memory is lacking."""
    try:
        yield
    except (ValueError, TypeError, FloatingPointError) as error:
        refuse(str(error))
    except (MemoryError, RuntimeError) as error:  # torch has an exception of its own for GPUs alone
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        refuse("there is not enough memory for that: smaller batches or networks need less")


@app.command(cls=PairsCommand)
def train(
    recipe: Annotated[
        str, typer.Argument(help="a recipe's name (see coursework/models/recipes.py), or a .json file with one")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="the run's folder [default: runs/RECIPE]")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME VALUE", help="replace a value of the recipe; repeatable"),
    ] = None,
    save_every: Annotated[int, typer.Option(min=1, help="steps between checkpoints")] = 500,
    accumulate: Annotated[
        int, typer.Option(min=1, help="parts that each process computes a batch in, to save memory")
    ] = 1,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile the model (for GPUs)")] = False,
    cpu: Cpu = False,
) -> None:
    """Train a model. The same command again goes on with a run that was stopped.

    On several GPUs or processes: torchrun --standalone --nproc-per-node 2 -m coursework train ...
    """
    from coursework.models import training
    from coursework.models.recipes import read_recipe

    with refusals():
        chosen = read_recipe(recipe, parameters_of(parameter or []))
        folder = out or Path("runs", Path(recipe).stem)
        accelerator = training.default_accelerator(cpu=cpu)
        options = {"accumulate": accumulate, "save_every": save_every, "compiled": compiled}
        training.train(chosen, folder, accelerator=accelerator, **options)
    training.leave(accelerator)
    if accelerator.is_main_process:
        ready = folder / training.TRAINED
        print(f"{ready} is ready" + (f": coursework sample {ready}" if chosen.task in ("score", "distill") else ""))


@app.command()
def ship(
    name: Annotated[str, typer.Argument(help="the recipe's name, which becomes the model's")],
    run: Annotated[Path, typer.Option("--run", help="the folder that `coursework train` filled")],
    n: Samples = None,
) -> None:
    """Put a finished run's weights into the package, evaluated, with a card and a picture of samples."""
    from coursework.models import card

    with refusals():
        print(card.ship(name, run, n))


def check_result(out: Path, kind: str) -> None:
    """Ends the command, before hours of work, where its result could not be written."""
    if out.suffix != kind:
        refuse(f"--out: expected a {kind}, got {out}")
    check_writable(out)


@app.command()
def sample(
    name: Name,
    out: Annotated[Path, typer.Option("--out", help="the picture, a .png")] = Path("samples.png"),
    n: Annotated[int, typer.Option("-n", "--n", min=1, max=10_000, help="how many samples")] = 40,
    label: Annotated[
        int | None, typer.Option(min=-1, help="of which class, or caption; without it, all in turn")
    ] = None,
    solver: Solver = None,
    grid: Grid = None,
    steps: Steps = None,
    precision: Precision = "float32",
    seed: Seed = 0,
    cpu: Cpu = False,
) -> None:
    """Draw samples from a trained model into a picture."""
    from coursework import models
    from coursework.flow_maps import VelocityMap
    from coursework.models import generation, training
    from coursework.predictions import ScoreModel

    with refusals():
        check_result(out, ".png")
        accelerator = training.default_accelerator(cpu=cpu)
        model, recipe = models.load_with_recipe(name)
        if not isinstance(model, ScoreModel | VelocityMap):
            raise ValueError(f"name: expected a score model or a map, {name} was trained to {recipe.task}")
        labels = models.labels_for(recipe, n, label)
        shape = (n, *models.sample_shape(recipe))
        samples = generation.generate(
            model,
            shape,
            labels=labels,
            solver=solver,
            grid=grid,
            n_steps=steps,
            seed=seed,
            precision=precision,
            accelerator=accelerator,
        )
        if accelerator.is_main_process:
            generation.save_grid(models.images_of(recipe, samples), out)
            print(out)
    training.leave(accelerator)


@app.command()
def evaluate(
    name: Name,
    out: Annotated[Path | None, typer.Option("--out", help="also write the numbers here, as .json")] = None,
    n: Samples = None,
    solver: Solver = None,
    grid: Grid = None,
    steps: Steps = None,
    precision: Precision = "float32",
    seed: Seed = 0,
    cpu: Cpu = False,
) -> None:
    """Compare a trained model's samples with real images.

    On several processes: torchrun --standalone --nproc-per-node 2 -m coursework evaluate NAME -n 1000
    """
    from coursework.models import evaluation, training

    with refusals():
        if out is not None:
            check_result(out, ".json")
        accelerator = training.default_accelerator(cpu=cpu)
        numbers, _ = evaluation.evaluate(
            name,
            n=n,
            accelerator=accelerator,
            seed=seed,
            solver=solver,
            grid=grid,
            n_steps=steps,
            precision=precision,
        )
        if accelerator.is_main_process:
            for key, value in numbers.as_dict().items():
                print(f"{key:18} {value}")
            if out is not None:
                write_atomically(out, json.dumps(numbers.as_dict(), indent=1) + "\n")
    training.leave(accelerator)
