"""The commands around trained models: `coursework train`, `sample` and `evaluate`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from coursework._command_line import INTERRUPTED, PairsCommand, read_parameters, refuse

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="a trained model that comes with the package, or a .safetensors file")]
Solver = Annotated[str, typer.Option(help="euler, heun, rk4, euler-maruyama, reverse-diffusion, ancestral, ...")]
Grid = Annotated[str, typer.Option(help="how the times are spread: uniform, log-snr or karras")]
Steps = Annotated[int, typer.Option(help="of the solver")]
Precision = Annotated[str, typer.Option(help="float32, or bfloat16: faster on GPUs and new CPUs, less exact")]
Cpu = Annotated[bool, typer.Option("--cpu", help="compute on the CPU although there is a GPU")]


@contextmanager
def refusals() -> Iterator[None]:
    """Ends the command with one line where the package refuses an argument or a file, or training diverges."""
    try:
        yield
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        refuse(str(error))


@app.command(cls=PairsCommand)
def train(
    recipe: Annotated[
        str, typer.Argument(help="a recipe's name (see coursework/recipes.py), or a .json file with one")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="the run's folder [default: runs/RECIPE]")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME VALUE", help="replace a value of the recipe; repeatable"),
    ] = None,
    save_every: Annotated[int, typer.Option(help="steps between checkpoints")] = 500,
    accumulate: Annotated[int, typer.Option(help="parts that each process computes a batch in, to save memory")] = 1,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile the model (for GPUs)")] = False,
    cpu: Cpu = False,
) -> None:
    """Train a model. The same command again goes on with a run that was stopped.

    On several GPUs or processes: torchrun --standalone --nproc-per-node 2 -m coursework.cli train ...
    """
    from coursework import training

    with refusals():
        chosen = read_recipe(recipe, read_parameters(parameter or []))
        folder = out or Path("runs", Path(recipe).stem)
        accelerator = training.default_accelerator(cpu=cpu)
        options = {"accumulate": accumulate, "save_every": save_every, "compiled": compiled}
        try:
            training.train(chosen, folder, accelerator=accelerator, **options)
        except KeyboardInterrupt as stop:
            print(f"coursework: {str(stop) or 'interrupted'}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
    training.leave(accelerator)
    if accelerator.is_main_process:
        ready = folder / training.TRAINED
        print(f"{ready} is ready" + (f": coursework sample {ready}" if chosen.task == "score" else ""))


def read_recipe(name: str, changes: dict[str, Any]) -> Any:
    """The recipe of that name or file, with some values replaced."""
    from coursework._arguments import one_of
    from coursework.recipes import RECIPES, Recipe

    if name.endswith(".json"):
        try:
            recipe = Recipe.from_json(Path(name).read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise ValueError(f"recipe: {name} is not text in UTF-8") from None
    else:
        one_of(name, tuple(RECIPES), "recipe")
        recipe = RECIPES[name]
    for key in changes:
        one_of(key, tuple(field.name for field in dataclasses.fields(Recipe)), "-p's name")
    return dataclasses.replace(recipe, **changes)


@app.command()
def sample(
    name: Name,
    out: Annotated[Path, typer.Option("--out", help="the picture, a .png")] = Path("samples.png"),
    n: Annotated[int, typer.Option("-n", "--n", help="how many samples")] = 40,
    label: Annotated[int | None, typer.Option(help="of which class; without it, all in turn")] = None,
    solver: Solver = "heun",
    grid: Grid = "karras",
    steps: Steps = 30,
    precision: Precision = "float32",
    seed: int = 0,
    cpu: Cpu = False,
) -> None:
    """Draw samples from a trained model into a picture."""
    from coursework import generation, models, training

    with refusals():
        if out.suffix != ".png":
            raise ValueError(f"--out: expected a .png, got {out}")
        accelerator = training.default_accelerator(cpu=cpu)
        model, recipe = models.load_with_recipe(name)
        if recipe.task != "score":
            raise ValueError(f"name: expected a score model, {name} is a classifier")
        labels = models.labels_for(recipe, n, label)
        shape = (n, *models.SHAPES[recipe.data])
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
            generation.save_grid(samples, out)
            print(out)
    training.leave(accelerator)


@app.command()
def evaluate(
    name: Name,
    out: Annotated[Path | None, typer.Option("--out", help="also write the numbers here, as .json")] = None,
    n: Annotated[
        int | None, typer.Option("-n", "--n", help="how many samples [default: as many as held-out images]")
    ] = None,
    solver: Solver = "heun",
    grid: Grid = "karras",
    steps: Steps = 30,
    precision: Precision = "float32",
    seed: int = 0,
    cpu: Cpu = False,
) -> None:
    """Compare a trained model's samples with real images.

    On several processes: torchrun --standalone --nproc-per-node 2 -m coursework.cli evaluate NAME -n 1000
    """
    from coursework import evaluation, training
    from coursework._files import write_atomically

    with refusals():
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
