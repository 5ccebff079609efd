"""What a step of the training engine costs beside the bare step of the same network, in one run, as a ratio.

    python benchmarks/training_step.py [--recipe fashion-vp] [--steps 5] [--rounds 10] [--diffusers] [--compile]

Bare: forward, backward and AdamW on one fixed batch, nothing else. The engine adds the batch's random numbers, the
gradient's norm, the moving average, the log. Both in turn, in alternating order; the table shows the median of the
ratios within a round, and the memory after the first and the last round. With --diffusers also images per second
beside a U-Net of the library `diffusers` of about as many parameters in the training loop of its documentation.
"""

import argparse
import statistics

import psutil
import torch
from timing import seconds
from torch.nn import functional as F

from coursework import models
from coursework.devices import autocast
from coursework.models.recipes import RECIPES
from coursework.models.training import Run, default_accelerator


def memory(device):
    """Bytes: the largest allocation so far on a GPU, else what the process holds."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return psutil.Process().memory_info().rss


def bare_step(recipe, compiled):
    """A function that makes one step of the recipe's network on a fixed batch."""
    run = Run(recipe, None, default_accelerator(), None, 1, None, compiled)
    network, batch, device = run.model.network, run.batches[0], run.accelerator.device
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    t = batch.times[:, None, None, None]
    x_t = run.sde.alpha(t) * batch.images + run.sde.sigma(t) * batch.noise
    labels = (batch.labels,) if run.labelled else ()

    def step():
        with autocast(device, recipe.precision):
            loss = (network(x_t, batch.times, *labels) - batch.noise).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def engine_step(recipe, compiled, look_every=20):
    """A function that makes one step of the engine, with the look at its losses that falls due."""
    run = Run(recipe, None, default_accelerator(), None, 1, None, compiled)

    def step():
        run.advance()
        if run.step % look_every == 0:
            run.look()

    return step, run.accelerator.device


def diffusers_unet(n_parameters, *, n_classes=None):
    """A U-Net2D of diffusers for images of 28 x 28, of about n_parameters."""
    from diffusers import UNet2DModel

    def make(width):
        return UNet2DModel(
            sample_size=28,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(width, 2 * width, 2 * width),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
            num_class_embeds=n_classes,
        )

    return make(min(range(16, 129, 8), key=lambda width: abs(size(make(width)) - n_parameters)))


def size(network):
    """The number of parameters."""
    return sum(p.numel() for p in network.parameters())


def diffusers_step(recipe, n_parameters):
    """The training loop of diffusers' documentation on a U-Net2D of about n_parameters, and how many it has."""
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_cosine_schedule_with_warmup

    accelerator = default_accelerator()
    scheduler, model = DDPMScheduler(num_train_timesteps=1000), diffusers_unet(n_parameters, n_classes=11)
    theirs = size(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    rates = get_cosine_schedule_with_warmup(optimizer, 500, recipe.n_steps)
    batch = Run(recipe, None, accelerator, None, 1, None, False).batches[0]
    model, optimizer, rates = accelerator.prepare(model, optimizer, rates)
    labels = batch.labels.where(batch.labels >= 0, 10)

    def step():
        noise = torch.randn_like(batch.images)
        t = torch.randint(0, 1000, (len(noise),), device=noise.device)
        noisy = scheduler.add_noise(batch.images, noise, t)
        with autocast(noise.device, recipe.precision):
            loss = F.mse_loss(model(noisy, t, class_labels=labels, return_dict=False)[0], noise)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()

    return step, theirs


def main():
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe", choices=[name for name, r in RECIPES.items() if r.task == "score"], default="fashion-vp"
    )
    parser.add_argument("--steps", type=int, default=5, help="steps that are timed together")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--diffusers", action="store_true")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    recipe = RECIPES[options.recipe]
    ours, device = engine_step(recipe, options.compile)
    steps = {"bare": bare_step(recipe, options.compile), "engine": ours}
    n_parameters = size(models.make(recipe))
    if options.diffusers:
        steps["diffusers"], theirs = diffusers_step(recipe, n_parameters)
        print(f"parameters: ours {n_parameters:,}, diffusers {theirs:,}")
    times, held = {name: [] for name in steps}, []
    for i in range(-1, options.rounds):  # round -1 warms up
        for name in sorted(steps, reverse=bool(i % 2)):
            spent = seconds(lambda name=name: [steps[name]() for _ in range(options.steps)], device)
            if i >= 0:
                times[name].append(spent / options.steps)
        held.append(memory(device))
    ratios = [e / b for e, b in zip(times["engine"], times["bare"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    print(f"{options.recipe}, batch {recipe.batch_size}, {recipe.precision}, {device}")
    print(f"engine / bare: median {quartiles[1]:.3f}, quartiles {quartiles[0]:.3f} to {quartiles[2]:.3f}")
    for name, values in times.items():
        print(f"{name:10} {recipe.batch_size / statistics.median(values):8.0f} images a second")
    print(f"memory: {held[1] / 2**20:.0f} MiB after the first round, {held[-1] / 2**20:.0f} MiB after the last")


if __name__ == "__main__":
    main()
