"""What a GPU does with this package: its tests, training and sampling in images a second, in one command.

    python benchmarks/gpu.py [--recipe fashion-vp] [--seconds 15] [--batch 512] [--out build/gpu.md]
    python benchmarks/gpu.py --rehearse        (tiny sizes, on the CPU: does everything run?)

Rows: the training engine in float32, in bfloat16, then also compiled, on a GPU with channels-last tensors; beside it
the training loop of the documentation of `diffusers` around a U-Net of about as many parameters. Then sampling, with
as many calls of the network, by `generate` and by diffusers' DDIM pipeline. "Of the peak": the row's operations in
products of matrices and convolutions, counted by torch, divided by what a product of two square matrices of bfloat16
reaches on the same chip in the same run. Memory: the largest allocation. Each row is warmed up, which includes
compiling, then measured for the stated seconds; a row that fails says why in one line and the others go on. The table
is Markdown.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from accelerate import Accelerator
from timing import seconds
from torch.utils.flop_counter import FlopCounterMode
from training_step import diffusers_step, diffusers_unet, engine_step, size

from coursework import models
from coursework._files import write_atomically
from coursework.data.images import SHAPES
from coursework.models.generation import generate
from coursework.models.recipes import RECIPES

ROOT = Path(__file__).parent.parent
N_STEPS = 20  # of sampling; a step is one call of the network


def peak(device, size):
    """Operations a second of the product of two square matrices in bfloat16."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(10))


def operations(work):
    """Multiplications and additions of work(), in products of matrices and convolutions, backward passes too."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def rate(work, device, budget):
    """Calls of work() a second, after two that are not measured."""
    work()
    once = seconds(work, device)
    n_calls = max(1, int(budget / once))
    return n_calls / seconds(lambda: [work() for _ in range(n_calls)], device)


def row(name, work, n_images, flops, options, device, top):
    """A line of the table: images a second, share of the peak, memory. flops: operations of one call, or None."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        calls = rate(work, device, options.seconds)
    except Exception as error:  # the other rows are wanted all the same
        return f"| {name} | failed: {str(error).splitlines()[0][:80]} | | |"
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device.type == "cuda" else ""
    share = f"{calls * flops / top:.1%}" if flops and device.type == "cuda" else ""
    images = f"{calls * n_images:,.0f}" if calls * n_images > 100 else f"{calls * n_images:.1f}"
    return f"| {name} | {images} | {share} | {memory} |"


def training_rows(recipe, options, device, top):
    """The engine in three ways, and diffusers' loop in two."""
    flops = operations(engine_step(replace(recipe, precision="float32"), False)[0])
    n_parameters = size(models.make(recipe))
    ways = [("float32", "float32", False), ("bfloat16", "bfloat16", False), ("bfloat16, compiled", "bfloat16", True)]
    for name, precision, compiled in ways:
        work, _ = engine_step(replace(recipe, precision=precision), compiled)
        yield row(f"training, {name}", work, recipe.batch_size, flops, options, device, top)
    for name, precision, _ in ways[:2]:
        work, theirs = diffusers_step(replace(recipe, precision=precision), n_parameters)
        name = f"diffusers' training, {name} ({theirs / 1e6:.2f} M parameters; ours {n_parameters / 1e6:.2f} M)"
        yield row(name, work, recipe.batch_size, None, options, device, top)


def sampling_rows(recipe, options, device, top):
    """`generate` and diffusers' DDIM, with as many calls of the network each."""
    from diffusers import DDIMPipeline, DDIMScheduler

    model, accelerator = models.make(recipe).eval().requires_grad_(False), Accelerator(cpu=device.type == "cpu")
    model = model.to(memory_format=torch.channels_last) if device.type == "cuda" else model
    shape = (options.batch, *SHAPES[recipe.data])

    def ours(precision="float32"):
        how = {"solver": "euler", "n_steps": N_STEPS - 1, "batch_size": options.batch, "precision": precision}
        generate(model, shape, accelerator=accelerator, show_progress=False, **how)

    flops = operations(ours)
    for precision in ("float32", "bfloat16"):
        name = f"sampling, {N_STEPS} calls, {precision}"
        yield row(name, lambda p=precision: ours(p), options.batch, flops, options, device, top)
    unet = diffusers_unet(size(model)).to(device)
    for precision in ("float32", "bfloat16"):
        pipeline = DDIMPipeline(torch.nn.Module.to(unet, dtype=getattr(torch, precision)), DDIMScheduler())
        pipeline.set_progress_bar_config(disable=True)

        def theirs(pipeline=pipeline):
            pipeline(batch_size=options.batch, num_inference_steps=N_STEPS, output_type="np")

        name = f"diffusers' DDIM pipeline, {N_STEPS} calls, {precision}"
        yield row(name, theirs, options.batch, None, options, device, top)


def tests_line():
    """What the tests that need a GPU say, in one line."""
    command = [sys.executable, "-m", "pytest", "tests", "-k", "on_the_gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "\n".join([done.stdout.strip().splitlines()[-1], *failed])


def main():
    """Read the arguments, measure, print, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scores = [name for name, recipe in RECIPES.items() if recipe.task == "score"]
    parser.add_argument("--recipe", choices=scores, default="fashion-vp")
    parser.add_argument("--seconds", type=float, default=15.0, help="a row, without its warming up")
    parser.add_argument("--batch", type=int, default=512, help="images in a batch, in training and sampling")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu.md")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU where there is no GPU")
    options = parser.parse_args()
    if options.rehearse:
        options.recipe, options.seconds, options.batch = "digits-vp", 0.1, 8
    if not (torch.cuda.is_available() or options.rehearse):
        parser.error("no GPU here; --rehearse runs everything with tiny sizes on the CPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.monotonic()
    recipe = replace(RECIPES[options.recipe], batch_size=options.batch)
    top = peak(device, 256 if options.rehearse else 8192)
    chip = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, a rehearsal"
    lines = [f"{chip}, torch {torch.__version__}, {options.recipe}, batches of {options.batch}; ", ""]
    lines[0] += f"the peak of matrix products: {top / 1e12:.3g} TFLOP/s"
    lines += ["| | images a second | of the peak | memory |", "|---|---:|---:|---:|"]
    for line in chain(training_rows(recipe, options, device, top), sampling_rows(recipe, options, device, top)):
        print(line, flush=True)
        lines.append(line)
    lines += ["", f"Tests that need a GPU: {tests_line()}", f"All of it took {time.monotonic() - started:.0f} s."]
    write_atomically(options.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
