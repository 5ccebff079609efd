"""The command `coursework`. It works on the course tree in the current directory."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from tqdm import tqdm

from coursework import environment, running

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)
MARKS = {"ok": "ok      ", "note": "note    ", "problem": "PROBLEM "}
REFUSED, INTERRUPTED = 2, 130

Names = Annotated[list[str] | None, typer.Argument(help='lessons by number or name ("01", "01_score"); all if none')]
Out = Annotated[Path | None, typer.Option("--out", help="folder for the executed lessons [default: build/executed]")]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "-p", "--parameter", metavar="NAME VALUE", help="replace a value of the `parameters` cell; repeatable"
    ),
]
Jobs = Annotated[int, typer.Option(help="lessons that run at the same time")]
Tree = Annotated[str, typer.Option(help="notebooks (as learners get them) or solutions")]
Timeout = Annotated[float, typer.Option(help="seconds that one cell may take")]
Store = Annotated[bool, typer.Option("--store", help="write the outputs back (with --tree solutions)")]
Check = Annotated[bool, typer.Option("--check", help="write nothing; fail where notebooks/ are not up to date")]


def refuse(message: str) -> NoReturn:
    """Ends the command with a message and status 2."""
    print(f"coursework: {message}", file=sys.stderr)
    raise typer.Exit(REFUSED)


def here() -> Path:
    """Returns the course tree in the current directory, or ends the command."""
    try:
        return running.course_tree(Path.cwd())
    except running.RunError as error:
        refuse(str(error))


class PairsCommand(typer.core.TyperCommand):
    """A command whose -p takes two values, NAME VALUE, as papermill's does."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Joins each NAME VALUE to NAME=VALUE before the arguments are parsed."""
        return super().parse_args(ctx, join_pairs(args))


def join_pairs(args: list[str]) -> list[str]:
    """Replaces "-p", NAME, VALUE by "-p", NAME=VALUE; a pair that lacks its value stays as it is."""
    joined, rest = [], list(args)
    while rest:
        joined.append(rest.pop(0))
        if joined[-1] in ("-p", "--parameter") and len(rest) > 1:
            joined.append(f"{rest.pop(0)}={rest.pop(0)}")
    return joined


def read_parameters(pairs: list[str]) -> dict[str, Any]:
    """Turns NAME=VALUE pairs into parameters, or ends the command."""
    for pair in pairs:
        if not pair.partition("=")[0].isidentifier() or "=" not in pair:
            refuse(f"-p takes a name and a value (-p seed 1), got {pair!r}")
    return {name: running.parse_value(value) for name, _, value in (pair.partition("=") for pair in pairs)}


@app.command()
def doctor() -> None:
    """Say what this machine can do, and how to mend what is wrong."""
    findings = environment.diagnose(here())
    for finding in findings:
        print(MARKS[finding.status] + finding.text)
        if finding.status == "problem":
            print(f"{'':8}mend: {finding.mend}")
    raise typer.Exit(int(any(finding.status == "problem" for finding in findings)))


@app.command()
def publish(check: Check = False) -> None:
    """Write notebooks/ from solutions/."""
    from coursework import publishing

    root = here()
    try:
        lines = publishing.out_of_sync(root) if check else publishing.publish(root)
    except publishing.PublishError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    for line in lines:
        print(line.relative_to(root) if isinstance(line, Path) else line)
    raise typer.Exit(int(check and bool(lines)))


@app.command(cls=PairsCommand)
def run(
    names: Names = None,
    out: Out = None,
    parameter: Pairs = None,
    jobs: Jobs = 1,
    tree: Tree = "notebooks",
    timeout: Timeout = 300.0,
    store: Store = False,
) -> None:
    """Execute lessons, and say how each went."""
    options = {"tree": tree, "out": out, "jobs": jobs, "timeout": timeout, "store": store}
    try:
        outcomes = run_with_progress(here(), names or [], read_parameters(parameter or []), options)
    except running.RunError as error:
        refuse(str(error))
    except KeyboardInterrupt:
        print("coursework: interrupted; no kernel is left running", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    print("\n" + running.summary(outcomes))
    raise typer.Exit(int(any(outcome.error for outcome in outcomes)))


Name = Annotated[str, typer.Argument(help="a trained model that comes with the package, or a .safetensors file")]
Solver = Annotated[str, typer.Option(help="euler, heun, rk4, euler-maruyama, reverse-diffusion, ancestral, ...")]
Grid = Annotated[str, typer.Option(help="how the times are spread: uniform, log-snr or karras")]
Cpu = Annotated[bool, typer.Option("--cpu", help="compute on the CPU although there is a GPU")]


@contextmanager
def refusals() -> Iterator[None]:
    """Ends the command with one line where the package refuses an argument or a file, or training diverges."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError, ConnectionError, FloatingPointError, RuntimeError) as error:
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
    """Train a model; the same command again resumes a run. Several processes: torchrun -m coursework.cli train ..."""
    from coursework import training

    with refusals():
        chosen = read_recipe(recipe, read_parameters(parameter or []))
        folder = out or Path("runs", Path(recipe).stem)
        accelerator = training.default_accelerator(cpu=cpu)
        options = {"accumulate": accumulate, "save_every": save_every, "compiled": compiled}
        try:
            training.train(chosen, folder, accelerator=accelerator, **options)
        except KeyboardInterrupt as stop:
            print(f"coursework: {stop or 'interrupted'}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
    if accelerator.is_main_process:
        print(f"{folder / training.TRAINED} is ready: coursework sample {folder / training.TRAINED}")


def read_recipe(name: str, changes: dict[str, Any]) -> Any:
    """The recipe of that name or file, with some values replaced."""
    import dataclasses

    from coursework._arguments import one_of
    from coursework.recipes import RECIPES, Recipe

    if name.endswith(".json"):
        recipe = Recipe.from_json(Path(name).read_text(encoding="utf-8"))
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
    n: Annotated[int, typer.Option(help="how many samples")] = 40,
    label: Annotated[int | None, typer.Option(help="of which class; without it, all in turn")] = None,
    solver: Solver = "heun",
    grid: Grid = "log-snr",
    steps: Annotated[int, typer.Option(help="of the solver")] = 25,
    seed: int = 0,
    cpu: Cpu = False,
) -> None:
    """Draw samples from a trained model into a picture."""
    from coursework import generation, models, training

    with refusals():
        accelerator = training.default_accelerator(cpu=cpu)
        model, recipe = models.load_with_recipe(name)
        if recipe.task != "score":
            raise ValueError(f"name: expected a score model, {name} is a classifier")
        labels = models.labels_for(recipe, n, label)
        shape = (n, *models.SHAPES[recipe.data])
        samples = generation.generate(
            model, shape, labels=labels, solver=solver, grid=grid, n_steps=steps, seed=seed, accelerator=accelerator
        )
        if accelerator.is_main_process:
            generation.save_grid(samples, out)
            print(out)


@app.command()
def evaluate(
    name: Name,
    out: Annotated[Path | None, typer.Option("--out", help="also write the numbers here, as .json")] = None,
    n: Annotated[int | None, typer.Option(help="how many samples [default: as many as held-out images]")] = None,
    solver: Solver = "heun",
    grid: Grid = "log-snr",
    steps: Annotated[int, typer.Option(help="of the solver")] = 25,
    seed: int = 0,
    cpu: Cpu = False,
) -> None:
    """Compare a trained model's samples with real images."""
    import json

    from coursework import evaluation, training
    from coursework._files import write_atomically

    with refusals():
        accelerator = training.default_accelerator(cpu=cpu)
        numbers, _ = evaluation.evaluate(
            name, n=n, accelerator=accelerator, seed=seed, solver=solver, grid=grid, n_steps=steps
        )
        if accelerator.is_main_process:
            for key, value in numbers.as_dict().items():
                print(f"{key:18} {value}")
            if out is not None:
                write_atomically(out, json.dumps(numbers.as_dict(), indent=1) + "\n")


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Makes SIGTERM end a run like Ctrl-C does, so that no kernel is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_with_progress(root: Path, names: list[str], parameters: dict[str, Any], options: dict) -> list[running.Outcome]:
    """Runs lessons with a line for each that is done, and a bar in a terminal."""
    with termination_interrupts(), tqdm(unit="lesson", disable=None, leave=False) as bar:

        def show(outcome: running.Outcome, n_lessons: int) -> None:
            bar.total = n_lessons
            bar.update()
            tqdm.write(f"{outcome.name}: {outcome.status}, {outcome.seconds:.1f} s {outcome.error}".rstrip())

        return running.run(root, names, parameters=parameters, on_outcome=show, **options)


@app.command()
def reset(name: Annotated[str, typer.Argument(help="the lesson, by number or name")]) -> None:
    """Put a fresh student copy of a lesson in place; the old one is kept beside it."""
    from coursework import publishing

    try:
        path, kept = running.reset(here(), name)
    except (running.RunError, publishing.PublishError) as error:
        refuse(str(error))
    print(f"{path.relative_to(Path.cwd())} is fresh" + (f"; yours is now {kept.name}" if kept else ""))


if __name__ == "__main__":
    app()
