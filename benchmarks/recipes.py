"""What an equal budget buys: the course's training recipe beside those of diffusers and denoising-diffusion-pytorch.

    python benchmarks/recipes.py [--data digits] [--seconds 600] [--threads 2] [--seeds 3] [--out runs/recipes.jsonl]
    python benchmarks/recipes.py --table ...            (of what is in the file; runs nothing)

Each rival trains as its documentation shows: diffusers by the loop, the optimiser and the averaged weights of its
example `train_unconditional.py` around a UNet2DModel, lucidrains' package by its own Trainer, GaussianDiffusion and
Unet with the README's arguments. Nobody sees labels. Differences from the documents, for all rates alike: the networks
have as many parameters as the course's and its resolutions; images come from memory, where the rivals would read
files; no image is mirrored; float32. A rival runs with seed 0 at its documented learning rate, at three times and at
ten times that rate; the rate with the best score there then runs with the other seeds. The course's recipe has one
rate. A rival that is not installed is left out: pip install diffusers denoising-diffusion-pytorch

The budget of a run is --seconds times --threads of CPU time: user and system time of all threads of the run's own
process (`time.process_time`) from the first step to the last, the batches' preparation included, evaluation not. The
learning rate's cosine needs the number of steps beforehand: it is the budget over the cost of a step, measured just
before in the same process and not counted. What was really used is in the file and in the table.

The score: the Frechet distance of `coursework evaluate` (features of the data set's classifier, against the training
images) less that of held-out images, the floor. n samples count in parts of as many as are held out, so that samples
and floor have one bias. All samplers make at most --calls calls of the network for a sample.

Results are in the file as soon as a run ends; the same command goes on where it was stopped. With the defaults there
are 13 runs, more than two hours of training on two free cores; the samples to score come on top.
"""

import argparse
import functools
import importlib.util
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm.auto import tqdm
from training_step import size

from coursework import models
from coursework._files import check_writable, write_atomically
from coursework.data import load as load_data
from coursework.data.images import SHAPES, default_images
from coursework.metrics import frechet_distance, image_features
from coursework.models import training
from coursework.models.evaluation import CLASSIFIERS
from coursework.models.generation import generate
from coursework.models.recipes import RECIPES

OURS = {"digits": "digits-vp", "fashion-mnist": "fashion-vp"}
RATES = {"coursework": (1,), "diffusers": (1, 3, 10), "lucidrains": (1, 3, 10)}  # times the documented one
PACKAGES = {"diffusers": "diffusers", "lucidrains": "denoising_diffusion_pytorch"}
DIFFUSERS_RATE, LUCIDRAINS_RATE = 1e-4, 8e-5
BATCH = 250  # of sampling


@dataclass(frozen=True)
class Job:
    """One run: who trains on what, with which budget, and how it is scored."""

    who: str
    data: str
    rate: int
    seed: int
    seconds: float
    threads: int
    n: int
    calls: int


# The three contestants: job, number of steps -> (network, train, samplers), where train() makes the steps and then each
# of samplers, by name, makes images in [-1, 1] from their number


def our_recipe(data):
    """The course's recipe without labels, which the rivals' examples do not use either."""
    recipe = RECIPES[OURS[data]]
    network = {name: value for name, value in recipe.network.items() if name != "n_classes"}
    return replace(recipe, network=network, label_dropout=0.0)


def coursework(job, n_steps, data):
    """`coursework train` on the recipe, then `coursework sample`."""
    recipe = replace(our_recipe(job.data), n_steps=n_steps, seed=job.seed)
    accelerator, trained = training.default_accelerator(cpu=True), {}

    def train():
        options = {"accelerator": accelerator, "data": data, "show_progress": False}
        trained["model"] = training.train(recipe, **options)

    def heun(n):
        shape = (n, *SHAPES[job.data])
        options = {"n_steps": (job.calls - 1) // 2, "seed": job.seed, "batch_size": BATCH, "show_progress": False}
        return generate(trained["model"], shape, **options)

    return models.make(recipe), train, {"heun": heun}


def diffusers(job, n_steps, data):
    """The example `train_unconditional.py` of diffusers with its defaults and --use_ema, then its two pipelines."""
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    accelerator, batches = training.default_accelerator(cpu=True), endless(data.images, 16)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    bare = diffusers_network(job.data, equal_width("diffusers", job.data))
    rate = job.rate * DIFFUSERS_RATE
    optimizer = torch.optim.AdamW(bare.parameters(), lr=rate, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    rates = get_scheduler("cosine", optimizer=optimizer, num_warmup_steps=500, num_training_steps=n_steps)
    model, optimizer, rates = accelerator.prepare(bare, optimizer, rates)
    ema = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)

    def train():
        for _ in range(n_steps):
            clean = next(batches)
            noise, t = torch.randn_like(clean), torch.randint(0, 1000, (len(clean),))
            loss = F.mse_loss(model(scheduler.add_noise(clean, noise, t), t).sample, noise)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
            ema.step(model.parameters())
        ema.copy_to(bare.parameters())

    def sampler(pipeline):
        pipeline.set_progress_bar_config(disable=True)

        def sample(n):
            options = {"num_inference_steps": job.calls, "output_type": "np"}
            parts = [torch.from_numpy(pipeline(batch_size=k, **options).images) for k in portions(n)]
            return torch.cat(parts).permute(0, 3, 1, 2) * 2 - 1

        return sample

    ddim = DDIMPipeline(unet=bare, scheduler=DDIMScheduler.from_config(scheduler.config))
    return bare, train, {"DDPM": sampler(DDPMPipeline(unet=bare, scheduler=scheduler)), "DDIM": sampler(ddim)}


def lucidrains(job, n_steps, data):
    """The Trainer of denoising-diffusion-pytorch with the README's arguments, then its DDIM."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer
    from torchvision.utils import save_image

    network = lucidrains_network(job.data, equal_width("lucidrains", job.data))
    images = (data.images + 1) / 2
    diffusion = GaussianDiffusion(network, image_size=data.images.shape[-1], sampling_timesteps=job.calls)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pinned memory without a GPU
        for i in range(100):  # it refuses a folder with less; its loader is replaced
            save_image(images[i % len(images)], Path(folder, f"{i}.png"))
        trainer = Trainer(
            diffusion,
            folder,
            train_batch_size=32,
            gradient_accumulate_every=2,
            train_lr=job.rate * LUCIDRAINS_RATE,
            train_num_steps=n_steps,
            ema_decay=0.995,
            calculate_fid=False,
            save_and_sample_every=n_steps + 1,
            results_folder=folder,
        )
    trainer.dl = endless(images, 32)

    def ddim(n):
        return torch.cat([trainer.ema.ema_model.sample(batch_size=k) for k in portions(n)]) * 2 - 1

    return network, trainer.train, {"DDIM": ddim}


CONTESTANTS = {"coursework": coursework, "diffusers": diffusers, "lucidrains": lucidrains}


def endless(images, batch_size):
    """Batches of shuffled epochs without end; an epoch's last, shorter batch is dropped."""
    while True:
        for part in torch.randperm(len(images))[: len(images) // batch_size * batch_size].split(batch_size):
            yield images[part]


def portions(n):
    """The sizes of the batches that make n samples."""
    return [min(BATCH, n - start) for start in range(0, n, BATCH)]


# Networks of equal size


def diffusers_network(data, widths):
    """A UNet2DModel with the example's two blocks at each resolution, attention at the coarsest."""
    from diffusers import UNet2DModel

    channels, pixels, _ = SHAPES[data]
    return UNet2DModel(
        sample_size=pixels,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=2,
        block_out_channels=widths,
        down_block_types=(*["DownBlock2D"] * (len(widths) - 1), "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", *["UpBlock2D"] * (len(widths) - 1)),
        norm_num_groups=4,
    )


def lucidrains_network(data, width):
    """A Unet of lucidrains' package whose widths are in proportion to the course's."""
    from denoising_diffusion_pytorch import Unet

    ours = our_recipe(data).network["widths"]
    return Unet(width, channels=SHAPES[data][0], dim_mults=tuple(w // ours[0] for w in ours), flash_attn=True)


def diffusers_widths(data):
    """Doubled from one resolution to the next but for the last, which makes the size fit."""
    doublings = [2**i for i in range(len(our_recipe(data).network["widths"]) - 1)]
    rows = [(*(w * m for m in doublings), last) for w in range(16, 37, 4) for last in range(w, 9 * w, 4)]
    return [row for row in rows if 1.8 <= row[-1] / row[-2] <= 2.2]


@functools.cache
def equal_width(who, data):
    """The width or widths with which a rival's network has as many parameters as the course's, as nearly as can be."""
    wanted = size(models.make(our_recipe(data)))
    make, widths = {
        "diffusers": (diffusers_network, diffusers_widths(data)),
        "lucidrains": (lucidrains_network, range(16, 65, 2)),
    }[who]

    def distance(width):
        with torch.device("meta"):
            return abs(size(make(data, width)) - wanted)

    return min(widths, key=distance)


# One run, in a process of its own


def run(job):
    """Train, sample, score: the line for the results file."""
    torch.set_num_threads(job.threads)
    data, contestant = load_data(job.data), CONTESTANTS[job.who]

    def cost(n_steps):
        torch.manual_seed(job.seed)
        network, train, samplers = contestant(job, n_steps, data)
        start = time.process_time()
        train()
        return time.process_time() - start, network, samplers

    budget = job.seconds * job.threads
    n_pilot = max(4, int(0.05 * budget / (cost(2)[0] / 2)))  # the first two steps warm up
    n_steps = max(1, round(budget * n_pilot / cost(n_pilot)[0]))
    spent, network, samplers = cost(n_steps)
    return {
        "job": asdict(job),
        "n_parameters": size(network),
        "n_steps": n_steps,
        "cpu_seconds": round(spent, 1),
        **scores(job, samplers),
    }


def scores(job, samplers):
    """The floor, and for each sampler the distance of each part of its n samples; null where one is not finite."""
    classifier = models.load(CLASSIFIERS[job.data])
    train, held_out = (load_data(job.data, split=split) for split in ("train", "test"))
    a_part = min(job.n, len(held_out))
    n_parts = max(1, round(job.n / a_part))

    def features(images):
        return torch.cat([image_features(classifier, part)[0] for part in images.split(1000)])

    real, found = features(train.images), {}
    for name, sample in samplers.items():
        torch.manual_seed(job.seed)
        try:
            parts = sample(n_parts * a_part).clamp(-1, 1).split(a_part)
        except FloatingPointError:
            parts = [torch.tensor(math.nan)]
        finite = all(part.isfinite().all() for part in parts)
        found[name] = [frechet_distance(real, features(part)) for part in parts] if finite else None
    return {"floor": frechet_distance(real, features(held_out.images[:a_part])), "frechet": found}


# All runs


def read(path):
    """The lines of the results file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def best_distance(result):
    """The mean distance with the sampler that does best; infinite where no sampler's images were finite."""
    return min((statistics.mean(values) for values in result["frechet"].values() if values), default=math.inf)


def plan(options, results):
    """The jobs to run now and the number that remain after them; a rival's other seeds wait for its rates."""
    done = {json.dumps(result["job"], sort_keys=True): result for result in results}
    ready, n_waiting = [], 0
    for who in options.who:
        fields = {name: getattr(options, name) for name in ("data", "seconds", "threads", "n", "calls")}
        search = [Job(who, rate=rate, seed=0, **fields) for rate in RATES[who]]
        missing = [job for job in search if key(job) not in done]
        ready += missing
        if missing and len(search) > 1:
            n_waiting += options.seeds - 1
            continue
        best = min(search, key=lambda job: best_distance(done[key(job)])) if len(search) > 1 else search[0]
        others = [replace(best, seed=seed) for seed in range(1, options.seeds)]
        ready += [job for job in others if key(job) not in done]
    return ready, n_waiting


def key(job):
    """What a job is found by in the results."""
    return json.dumps(asdict(job), sort_keys=True)


def installed(who):
    """Whether a contestant's package is there."""
    return who not in PACKAGES or importlib.util.find_spec(PACKAGES[who]) is not None


def execute(job):
    """The result of a job, run in a process of its own. Raises RuntimeError with the last line of its complaint."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, "--job", key(job)]
    process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        answer, complaint = process.communicate()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"{job.who}: {(complaint.strip() or 'it was killed').splitlines()[-1]}")
    return json.loads(answer.splitlines()[-1])


def run_all(options):
    """Run what is missing from the results file, one job after the other; all results."""
    results = read(options.out)
    ready, n_waiting = plan(options, results)
    n_done = len(chosen(options, results))
    with tqdm(total=n_done + len(ready) + n_waiting, initial=n_done, unit="run") as bar:
        while ready:
            job = ready[0]
            bar.set_description(f"{job.who}, rate x {job.rate}, seed {job.seed}")
            results = [*results, execute(job)]
            write_atomically(options.out, "".join(json.dumps(result) + "\n" for result in results))
            bar.update()
            ready, _ = plan(options, results)
    return results


def chosen(options, results):
    """The results of the contestants, data, budget and score that are asked for."""
    wanted = {name: getattr(options, name) for name in ("data", "seconds", "threads", "n", "calls")}
    return [r for r in results if r["job"]["who"] in options.who and wanted.items() <= r["job"].items()]


def table(options, results):
    """The Markdown table: a row for each sampler of each contestant at its best rate; then the course's ratio."""
    lines = [
        "| | parameters | steps | CPU seconds | learning rate | sampler | above the floor |",
        "|---|---|---|---|---|---|---|",
    ]
    means = {}
    for who in options.who:
        mine = [r for r in chosen(options, results) if r["job"]["who"] == who]
        if not mine:
            continue
        first = min((r for r in mine if r["job"]["seed"] == 0), key=best_distance)
        rate = first["job"]["rate"]
        runs = [r for r in mine if r["job"]["rate"] == rate and r["job"]["seed"] < options.seeds]
        steps, spent = (statistics.mean(r[name] for r in runs) for name in ("n_steps", "cpu_seconds"))
        for sampler in first["frechet"]:
            values = [statistics.mean(r["frechet"][sampler] or [math.inf]) - r["floor"] for r in runs]
            mean, error = statistics.mean(values), ""
            if len(values) > 1 and math.isfinite(mean):
                error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.3f}"
            means.setdefault(who, []).append(mean)
            lines.append(
                f"| {who} | {first['n_parameters']:,} | {steps:,.0f} | {spent:.0f} "
                f"| {rate * documented_rate(who, options.data):.2g} | {sampler} | {mean:.3f}{error} |"
            )
    rivals = [mean for who, found in means.items() if who != "coursework" for mean in found]
    if rivals and "coursework" in means:
        lines += ["", f"The course's distance is {min(means['coursework']) / min(rivals):.2f} times the best rival's."]
    return "\n".join(lines)


def documented_rate(who, data):
    """The learning rate that the recipe or the rival's documentation gives."""
    return {"diffusers": DIFFUSERS_RATE, "lucidrains": LUCIDRAINS_RATE}.get(who, our_recipe(data).learning_rate)


def main():
    """Read the arguments, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(OURS), default=default_images())
    parser.add_argument("--seconds", type=float, default=600.0, help="of the budget of a run, on each thread")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-n", type=int, default=1000, help="how many samples are scored, about")
    parser.add_argument("--calls", type=int, default=50, help="of the network, for a sample")
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS), dest="who")
    parser.add_argument("--out", type=Path, default=Path("runs", "recipes.jsonl"), help="the results file")
    parser.add_argument("--table", action="store_true", help="only print the table of the results file")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job is not None:
        print(json.dumps(run(Job(**json.loads(options.job)))))
        return
    if not options.table:
        check_writable(options.out)
        for who in [who for who in options.who if not installed(who)]:
            print(f"{who}: {PACKAGES[who]} is not installed, left out")
            options.who.remove(who)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            run_all(options)
        except KeyboardInterrupt:
            sys.exit("stopped; the same command goes on from there")
        except RuntimeError as error:
            sys.exit(str(error))
    print(table(options, read(options.out)))


if __name__ == "__main__":
    main()
