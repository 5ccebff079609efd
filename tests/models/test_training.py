"""The engine against a loop written out by hand; runs that are stopped, killed, damaged, or split over processes."""

import csv
import json
import math
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional as F

from coursework import devices, models
from coursework.averaging import gamma_of, power_average
from coursework.data import ImageData, load
from coursework.metrics import frechet_distance, inception_score
from coursework.models import checkpoints, generation, training
from coursework.models.batches import spread_times
from coursework.models.recipes import Recipe
from coursework.models.training import (
    Batches,
    Run,
    average_decay,
    checkpoints_in,
    default_accelerator,
    leave,
    rate_factor,
    train,
)
from coursework.nn import RandomFourierEmbedding
from coursework.sdes import VPSDE
from tests.helpers import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"widths": (8, 16), "attention_at": (4,), "heads": 2, "features": 16}
TINY = Recipe(
    "score", "digits", 12, network={**SMALL, "n_classes": 10}, label_dropout=0.2, batch_size=16, warmup=3, seed=4
)
RICH = replace(
    TINY,
    prediction="preconditioned",
    sigma_data=0.6,
    weighting="edm",
    times={"kind": "log-normal", "mean": -0.8, "std": 1.0},
    uncertainty=True,
    profiles=(0.1, 0.2),
    n_snapshots=3,
)


def digits(n=None):
    return load("digits", n=n)


def losses(folder):
    with (folder / "log.csv").open() as file:
        return {int(row["step"]): (row["loss"], row["gradient_norm"]) for row in csv.DictReader(file)}


def weights(model):
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


# -- what a step is trained on -----------------------------------------------------------------------------------------


def test_an_epoch_holds_every_image_once():
    data = ImageData(torch.arange(40.0).reshape(40, 1, 1, 1), torch.arange(40), ())
    batches = Batches(replace(TINY, batch_size=16, label_dropout=0.0), data, 0.0, 1.0)
    row = torch.cat([batches[i].images.flatten() for i in range(5)])
    assert sorted(row[:40].tolist()) == sorted(row[40:80].tolist()) == list(range(40))
    assert row[:40].tolist() != row[40:80].tolist() != list(range(40))
    assert torch.equal(torch.cat([batches[i].labels for i in range(5)]), row.long())


def test_a_batch_depends_on_its_number_alone():
    forwards, backwards = Batches(TINY, digits(), 0.0, 1.0), Batches(TINY, digits(), 0.0, 1.0)
    first = [forwards[i] for i in range(200)]
    for i in (199, 3, 90):
        for name in ("images", "labels", "times", "noise"):
            assert torch.equal(getattr(first[i], name), getattr(backwards[i], name)), name
    assert not torch.equal(first[3].noise, first[4].noise)
    other = Batches(replace(TINY, seed=5), digits(), 0.0, 1.0)
    assert not torch.equal(first[3].noise, other[3].noise)


def test_labels_are_dropped_and_images_mirrored_at_their_rates():
    recipe = replace(TINY, batch_size=8000, flip=True, label_dropout=0.2)
    ramp = torch.linspace(-1, 1, 8).expand(100, 1, 8, 8)
    batch = Batches(recipe, ImageData(ramp, torch.arange(100) % 10, ()), 0.0, 1.0)[0]
    dropped = (batch.labels == -1).double()
    mirrored = (batch.images[:, 0, 0, 0] > 0).double()
    assert torch.equal(batch.images[mirrored == 1][0], ramp[0].flip(-1))
    for share, rate in ((dropped, 0.2), (mirrored, 0.5)):
        assert abs(float(share.mean()) - rate) < 4 * math.sqrt(rate * (1 - rate) / 8000)
    assert abs(float(torch.stack([dropped, mirrored]).corrcoef()[0, 1])) < 4 / math.sqrt(8000)
    assert abs(float(batch.noise.double().std()) - 1) < 4 / math.sqrt(2 * batch.noise.numel())
    assert torch.equal(Batches(replace(recipe, label_dropout=0.0), digits(), 0, 1)[0].labels.unique(), torch.arange(10))


def test_antithetic_halves_differ_in_the_sign_of_the_noise_only():
    batch = Batches(replace(TINY, antithetic=True), digits(), 0.0, 1.0)[7]
    for column in (batch.images, batch.labels, batch.times):
        assert torch.equal(column[:8], column[8:])
    assert torch.equal(batch.noise[:8], -batch.noise[8:])
    assert len(batch.times.unique()) == 8


def test_spread_times_are_uniform_each_and_even_together(generator):
    draws = torch.stack([spread_times(8, 0.1, 0.9, generator=generator) for _ in range(4000)])
    cells = ((draws - 0.1) / 0.1).floor()
    assert torch.equal(cells.sort(1).values, torch.arange(8.0).expand(4000, 8).double()), "one in every eighth"
    for column in draws.T:  # each by itself uniform: mean and variance
        assert abs(float(column.mean()) - 0.5) < 4 * 0.8 / math.sqrt(12 * 4000)
        assert float(column.var()) == pytest.approx(0.64 / 12, rel=0.08)
    spread = float((draws**2).mean(1).var())  # of the mean of f(t): (f(0.9) - f(0.1))^2 / (12 n^2), to leading order
    assert spread == pytest.approx(0.8**2 / (12 * 8**2), rel=0.08)
    independent = (0.1 + 0.8 * torch.rand(4000, 8, generator=generator, dtype=torch.float64)).square().mean(1).var()
    assert spread < 0.2 * float(independent)


# -- one step ----------------------------------------------------------------------------------------------------------


def by_hand(recipe, n_steps):
    """The recipe's first steps in plain torch: weights, their average, losses."""
    model, data = models.make(recipe), digits()
    sde, batches = models.make_sde(recipe), Batches(recipe, data, models.make_sde(recipe).t_min, 1.0)
    parameters = list(model.parameters())
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    average, history = None, []
    for i in range(n_steps):
        batch = batches[i]
        t = batch.times[:, None, None, None]
        x_t = sde.alpha(t) * batch.images + sde.sigma(t) * batch.noise
        predicted = model.network(x_t, batch.times, batch.labels)
        loss = 0.5 * (predicted - batch.noise).square().mean()
        gradients = torch.autograd.grad(loss, parameters)
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        history.append((loss.item(), norm.item()))
        warm = (i + 1) / recipe.warmup if i < recipe.warmup else None
        through = (i - recipe.warmup) / (recipe.n_steps - recipe.warmup)
        rate = recipe.learning_rate * (0.5 * (1 + math.cos(math.pi * through)) if warm is None else warm)
        with torch.no_grad():
            for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
                g = g * min(1.0, recipe.clip / (float(norm) + 1e-6))
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g**2)
                p.mul_(1 - rate * recipe.weight_decay)
                p.sub_(rate * (m / (1 - 0.9 ** (i + 1))) / ((v / (1 - 0.999 ** (i + 1))).sqrt() + 1e-8))
        now, decay = weights(model), min(recipe.average, (1 + i) / (10 + i))
        average = now if average is None else decay * average + (1 - decay) * now
    return now, average, history


@pytest.mark.parametrize("clip", [1.0, 0.05])
def test_the_engine_does_what_the_formulas_say(clip):
    recipe = replace(TINY, clip=clip, weight_decay=0.1, average=0.3, learning_rate=2e-3)
    now, average, history = by_hand(recipe, 6)
    run = Run(recipe, None, default_accelerator(), None, 1, None, False)
    for _ in range(6):
        run.advance()
    got = [(float(loss), float(norm)) for _, loss, norm, _ in run.unseen]
    assert torch.tensor(got) == pytest.approx(torch.tensor(history), rel=1e-4)
    torch.testing.assert_close(weights(run.bare), now, rtol=1e-4, atol=2e-6)
    torch.testing.assert_close(weights(run.average), average, rtol=1e-4, atol=2e-6)
    assert float((now - average).abs().max()) > 1e-4, "the average is another thing than the weights"


def test_the_engine_trains_as_karras_et_al_say():
    """In x = x_0 + sigma noise, the language of their papers: D, 1 / c_out^2, e^-u L + u, and what is stored of it."""
    recipe = replace(RICH, weight_decay=0.1, learning_rate=3e-3, clip=0.5)
    network, features = models.make(recipe).network.denoiser.network, RandomFourierEmbedding(64, scale=1.0)
    w, b = torch.zeros(64, requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.AdamW(
        [{"params": network.parameters(), "weight_decay": 0.1}, {"params": [w, b], "weight_decay": 0.0}]
    )
    run, sde, history, passed = Run(recipe, None, default_accelerator(), None, 1, None, False), VPSDE(), [], []
    for i in range(6):
        batch = run.batches[i]
        sigma = (sde.sigma(batch.times) / sde.alpha(batch.times))[:, None, None, None]
        x = batch.images + sigma * batch.noise
        total = sigma**2 + 0.36
        c_noise = sigma.flatten().log() / 4
        value = network(x / total.sqrt(), c_noise, batch.labels)
        denoised = 0.36 / total * x + 0.6 * sigma / total.sqrt() * value
        error = (total / (0.6 * sigma) ** 2 * (denoised - batch.images) ** 2).mean((1, 2, 3)) / 2
        u = b + features(c_noise) @ w
        loss = (error / u.exp() + u).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate_factor(i, recipe)
        optimizer.step()
        history.append((loss.item(), norm.item()))
        passed.append(weights(network))
        run.advance()
    got = [(float(loss), float(norm)) for _, loss, norm, _ in run.unseen]
    assert torch.tensor(got) == pytest.approx(torch.tensor(history), rel=2e-4)
    torch.testing.assert_close(weights(run.bare), passed[-1], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(run.uncertainty.weight, w, rtol=1e-3, atol=1e-5)
    for width, (_, profile) in zip(recipe.profiles, run.profiles, strict=True):
        expected = power_average(torch.stack(passed), gamma_of(width))
        torch.testing.assert_close(weights(profile), expected, rtol=1e-3, atol=1e-5)
        assert float((expected - passed[-1]).abs().max()) > 1e-4


@pytest.mark.parametrize("weighting", ["data", "velocity", "min-snr", "likelihood"])
def test_a_weighting_is_that_of_the_error_it_is_named_after(weighting):
    recipe = replace(TINY, weighting=weighting, gamma=3.0)
    run = Run(recipe, None, default_accelerator(), None, 1, None, False)
    batch, sde = run.batches[0], run.sde
    t = batch.times[:, None, None, None]
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    noise = run.bare.network(alpha * batch.images + sigma * batch.noise, batch.times, batch.labels) + 0.1 * batch.images
    run.bare.network.register_forward_hook(lambda module, given, value: value + 0.1 * batch.images)
    data = (alpha * batch.images + sigma * (batch.noise - noise)) / alpha
    error = {
        "data": data - batch.images,
        "velocity": (alpha * noise - sigma * data) - (alpha * batch.noise - sigma * batch.images),
        "min-snr": (alpha**2 / sigma**2).clamp(max=3).sqrt() * (data - batch.images),
        "likelihood": sde.diffusion(t) / sigma * (noise - batch.noise),
    }[weighting]
    assert float(run.loss(batch).detach()) == pytest.approx(float((error**2).mean().detach() / 2), rel=1e-4)


def test_the_uncertainty_learns_the_logarithm_of_the_loss():
    """Of a model that answers 0: 1/2 on the noise at every level."""
    run = Run(replace(TINY, uncertainty=True, batch_size=64), None, default_accelerator(), None, 1, None, False)
    run.model = lambda x, t, label: 0 * x
    for rate, n in ((0.02, 80), (0.002, 80)):
        optimizer = torch.optim.Adam(run.uncertainty.parameters(), lr=rate)
        for i in range(n):
            optimizer.zero_grad()
            run.loss(run.batches[i]).backward()
            optimizer.step()
    t = torch.linspace(0.1, 0.9, 5)
    u = run.uncertainty(torch.log(run.sde.sigma(t) / run.sde.alpha(t)) / 4)
    torch.testing.assert_close(u.exp(), torch.full((5,), 0.5), rtol=0.06, atol=0)


def test_times_follow_the_recipes_law():
    sde, n = VPSDE(), 1024
    for times in ({"kind": "log-normal", "mean": -0.5, "std": 0.7}, {"kind": "log-snr"}):
        run = Run(replace(TINY, batch_size=n, times=times), None, default_accelerator(), None, 1, None, False)
        ratios = (-sde.log_snr(run.batches[3].times.double()) / 2).sort().values
        middles = (torch.arange(n, dtype=torch.float64) + 0.5) / n  # each time lies in its share of the law
        low, high = (float(-sde.log_snr(t) / 2) for t in (sde.t_min, sde.T))
        if times["kind"] == "log-snr":
            expected = low + (high - low) * middles
        else:
            expected = -0.5 + 0.7 * torch.special.ndtri(middles)
        assert float((ratios - expected)[20:-20].abs().max()) < 0.05


def test_rates_and_decays():
    recipe = replace(TINY, n_steps=103, warmup=3)
    assert [rate_factor(i, recipe) for i in (0, 2, 3, 53, 103)] == pytest.approx([1 / 3, 1, 1, 0.5, 0], abs=1e-12)
    assert [average_decay(i, 0.999) for i in (0, 10, 10**6)] == pytest.approx([0.0, 11 / 20, 0.999])


def test_gradients_do_not_depend_on_the_parts_a_batch_is_computed_in():
    runs = [Run(TINY, None, default_accelerator(), None, n, None, False) for n in (1, 4)]
    for _ in range(3):
        for run in runs:
            run.advance()
    torch.testing.assert_close(weights(runs[0].bare), weights(runs[1].bare), rtol=1e-4, atol=2e-6)
    for whole, parts in zip(runs[0].unseen, runs[1].unseen, strict=True):
        assert [float(v) for v in parts[1:]] == pytest.approx([float(v) for v in whole[1:]], rel=1e-4)
    assert [row[0] for row in runs[1].unseen] == [1, 2, 3]


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"channels_last": True}], ids=str)
def test_other_ways_of_computing_give_the_same_losses(options, monkeypatch):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)
    recipe = replace(TINY, precision=options.get("precision", "float32"))
    runs = [
        Run(TINY, None, default_accelerator(), None, 1, False, False),
        Run(recipe, None, default_accelerator(), None, 1, "channels_last" in options, False),
    ]
    for _ in range(4):
        for run in runs:
            run.advance()
    expected, got = ([float(row[1]) for row in run.unseen] for run in runs)
    assert got == pytest.approx(expected, rel=2e-2 if "precision" in options else 1e-4)
    if "precision" in options:
        assert got != pytest.approx(expected, rel=1e-7)


@pytest.mark.needs("gpu")
def test_on_the_gpu_compiled_and_in_bfloat16(tmp_path):
    recipe = replace(TINY, n_steps=200, batch_size=64, precision="bfloat16", learning_rate=3e-3)
    train(recipe, tmp_path, compiled=True, show_progress=False)
    first, last = (float(losses(tmp_path)[step][0]) for step in (1, 200))
    assert last < 0.5 * first


def test_a_classifier_learns_the_digits():
    options = {"batch_size": 64, "warmup": 5, "average": 0.9, "learning_rate": 3e-3}
    recipe = Recipe("classify", "digits", 100, network={"widths": (16, 32)}, **options)
    model, held_out = train(recipe, show_progress=False), load("digits", split="test")
    loss = float(F.cross_entropy(model(held_out.images), held_out.labels))
    assert float((model(held_out.images).argmax(1) == held_out.labels).double().mean()) > 0.8
    assert loss < 0.8
    assert not any(p.requires_grad for p in model.parameters())


def test_training_lowers_the_loss_on_held_out_digits_and_leaves_the_global_stream_alone(generator):
    state = torch.get_rng_state()
    recipe = replace(TINY, n_steps=150, batch_size=32, learning_rate=3e-3)
    model = train(recipe, show_progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    x, sde = load("digits", split="test").images, model.sde
    noise = torch.randn(x.shape, generator=generator)
    for t, silence in ((0.3, 1.0), (0.7, 1.0)):
        predicted = model.predict(sde.perturb(x, t, noise), t, "noise")
        assert float((predicted - noise).square().mean()) < 0.45 * silence


# -- stopping and resuming ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was never stopped."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    train(TINY, folder, save_every=5, look_every=2, show_progress=False)
    return folder


def test_what_a_run_leaves_behind(whole):
    names = [".lock", "log.csv", "step-0000010.safetensors", "step-0000012.safetensors", "trained.safetensors"]
    assert sorted(p.name for p in whole.iterdir()) == names
    assert list(losses(whole)) == list(range(1, 13))
    model = models.load(whole / "trained.safetensors")
    tensors, facts = checkpoints.read(whole / "step-0000012.safetensors")
    assert (facts["step"], Recipe.from_json(facts["recipe"])) == (12, TINY)
    for name, value in model.state_dict().items():
        assert torch.equal(value, tensors[f"average.{name}"])
        assert value.dtype == torch.float32
    assert model.prediction == "noise"


def test_a_run_goes_on_exactly_where_its_checkpoint_stands(whole, tmp_path):
    """Stopped by Ctrl-C after step 7, that is between two checkpoints, then resumed."""
    count, advance = [], Run.advance

    def interrupted(self):
        advance(self)
        count.append(1)
        if len(count) == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "advance", interrupted)
        with pytest.raises(training.Interrupted, match=r"stopped after step 7; the same command goes on"):
            train(TINY, tmp_path, save_every=5, show_progress=False)
    assert [p.name for p in checkpoints_in(tmp_path)] == ["step-0000005.safetensors", "step-0000007.safetensors"]
    train(TINY, tmp_path, save_every=5, show_progress=False)
    assert losses(tmp_path) == losses(whole)
    for name in ("step-0000012.safetensors", "trained.safetensors"):
        theirs, ours = (checkpoints.read(folder / name)[0] for folder in (whole, tmp_path))
        assert all(torch.equal(theirs[key], ours[key]) for key in theirs)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_with_everything_goes_on_where_its_checkpoint_stands_and_keeps_its_snapshots(tmp_path):
    """Stopped after step 7; the snapshots are of steps 4, 8 and 12."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(RICH, whole, save_every=5, show_progress=False)
    advance = Run.advance

    def interrupted(self):
        advance(self)
        if self.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "advance", interrupted)
        with pytest.raises(training.Interrupted, match=r"stopped after step 7"):
            train(RICH, stopped, save_every=5, show_progress=False)
    model = train(RICH, stopped, save_every=5, show_progress=False)
    assert losses(stopped) == losses(whole)
    files = ["step-0000012", "trained", "snapshot-0000004", "snapshot-0000008", "snapshot-0000012"]
    assert sorted(p.stem for p in stopped.glob("*.safetensors")) == sorted([*files, "step-0000010"])
    for name in files:
        theirs, ours = (checkpoints.read(folder / f"{name}.safetensors")[0] for folder in (whole, stopped))
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[key], ours[key]) for key in theirs), name
    loaded = models.load(stopped / "trained.safetensors")
    x, t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor(0.3)
    torch.testing.assert_close(loaded(x, t), model(x, t))
    with pytest.raises(ValueError, match=r"from another recipe: its profiles is \[0.1, 0.2\], here it is \[\]"):
        train(replace(RICH, profiles=()), stopped, show_progress=False)


KILLED = """
import os, random, signal, sys, time, torch
torch.set_num_threads(1)
from pathlib import Path
from coursework.models.recipes import Recipe
from coursework.models.training import train, checkpoints_in
from coursework import data, models  # imported before the forks, which then start at once
from coursework.models import generation  # imported before the forks, which then start at once

recipe, folder = Recipe.from_json(sys.argv[1]), Path(sys.argv[2])
chance, kills, lasts = random.Random(6), 0, []
while True:
    child = os.fork()
    if child == 0:
        train(recipe, folder, save_every=5, look_every=2, show_progress=False)
        os._exit(0)
    if kills < 12:
        time.sleep(chance.uniform(0.05, 0.5))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    kills += os.WIFSIGNALED(status)
    saved = checkpoints_in(folder)
    lasts.append(int(saved[-1].stem.removeprefix("step-")) if saved else 0)
    if status == 0:
        break
    assert os.WIFSIGNALED(status), status
print(kills, lasts)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_dozen_kills_lose_nothing_but_the_steps_since_the_last_checkpoint(tmp_path):
    recipe = replace(TINY, n_steps=200)
    done = _python(KILLED, recipe.to_json(), str(tmp_path / "killed"))
    kills, lasts = done.stdout.split(" ", 1)
    lasts = json.loads(lasts)
    assert lasts == sorted(lasts), "no checkpoint is lost"
    assert int(kills) >= 6, lasts
    train(recipe, tmp_path / "whole", save_every=100, show_progress=False)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert len(checkpoints_in(tmp_path / "killed")) == 2


# -- refusals ----------------------------------------------------------------------------------------------------------


def copy_of(whole, folder):
    for path in whole.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "trained.safetensors").unlink()
    return folder / "step-0000012.safetensors"


@pytest.mark.parametrize("keep", [0, 5, 400, -1])
def test_a_truncated_checkpoint_is_refused_and_left_alone(whole, tmp_path, keep):
    path = copy_of(whole, tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"step-0000012.safetensors: damaged, or no checkpoint"):
        train(TINY, tmp_path, show_progress=False)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_checkpoint_of_another_architecture_or_recipe_is_refused(whole, tmp_path):
    copy_of(whole, tmp_path)
    other = replace(TINY, network={**TINY.network, "widths": (8, 24)})
    with pytest.raises(ValueError, match=r"from another architecture: its network is .*16.* here it is .*24"):
        train(other, tmp_path, show_progress=False)
    with pytest.raises(ValueError, match=r"from another recipe: its learning_rate is 0.001, here it is 0.1"):
        train(replace(TINY, learning_rate=0.1), tmp_path, show_progress=False)


def changed(path, tensors=None, **facts):
    """Write a checkpoint again with some tensors and facts replaced; None takes one out."""
    old_tensors, old_facts = checkpoints.read(path)
    new = {key: value for key, value in {**old_tensors, **(tensors or {})}.items() if value is not None}
    checkpoints.write(path, new, {key: value for key, value in {**old_facts, **facts}.items() if value is not None})


FIRST = "optimizer.exp_avg.network.embed.1.weight"


@pytest.mark.parametrize(
    ("tensors", "facts", "match"),
    [
        ({FIRST: torch.zeros(3)}, {}, r"another architecture: exp_avg.network.embed.1.weight is torch.float32 \(3,\)"),
        ({FIRST: None}, {}, r"from another architecture: it lacks exp_avg.network.embed.1.weight"),
        ({}, {"step": None}, r"step: expected an integer, got NoneType"),
        ({}, {"step": "12"}, r"step-0000012.safetensors: step: expected an integer, got str"),
        ({}, {"step": -5}, r"step: expected at least 0, got -5"),
        ({}, {"step": 500}, r"step: expected at most 12, got 500"),
        ({}, {"seconds": "long"}, r"seconds: expected a number, got 'long'"),
        ({}, {"recipe": None}, r"step-0000012.safetensors: there is no recipe in it"),
    ],
)
def test_a_checkpoint_whose_parts_do_not_fit_is_refused(whole, tmp_path, tensors, facts, match):
    changed(copy_of(whole, tmp_path), tensors, **facts)
    with pytest.raises((ValueError, TypeError), match=match):
        train(TINY, tmp_path, show_progress=False)


def test_of_two_checkpoints_the_refusal_of_the_newer_names_the_older(whole, tmp_path):
    copy_of(whole, tmp_path).write_bytes(b"")
    with pytest.raises(ValueError, match=r"0000012.safetensors: damaged.*the run goes on from .*step-0000010.safetens"):
        train(TINY, tmp_path, show_progress=False)
    (tmp_path / "step-0000012.safetensors").unlink()
    train(TINY, tmp_path, save_every=5, look_every=2, show_progress=False)
    assert losses(tmp_path) == losses(whole)


def test_other_files_in_the_folder_do_not_disturb(whole, tmp_path):
    copy_of(whole, tmp_path).unlink()
    (tmp_path / "step-abc.safetensors").mkdir()
    (tmp_path / ".step-0000011.safetensors.4711").write_bytes(b"left by a killed write")
    with (tmp_path / "log.csv").open("ab") as log:
        log.write(b"ab,1,2,3,4\n\xff\xfe,,,,\n")
    train(TINY, tmp_path, save_every=5, look_every=2, show_progress=False)
    assert losses(tmp_path) == losses(whole)
    assert not list(tmp_path.glob(".step*"))


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    for step in (9_999_999, 10_000_000, 2):
        (tmp_path / f"step-{step:07d}.safetensors").touch()
    names = [path.name for path in checkpoints_in(tmp_path)]
    assert names == ["step-0000002.safetensors", "step-9999999.safetensors", "step-10000000.safetensors"]


def test_one_folder_holds_one_run_at_a_time(tmp_path):
    advance, seen = Run.advance, []

    def meanwhile(self):
        if not seen:
            seen.append(1)
            with pytest.raises(ValueError, match=r"another training runs in this folder"):
                train(TINY, tmp_path, show_progress=False)
        advance(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "advance", meanwhile)
        train(TINY, tmp_path, show_progress=False)
    assert list(losses(tmp_path)) == list(range(1, 13))
    train(TINY, tmp_path, show_progress=False)  # the folder is free again


def test_processes_on_cpus_agree_to_stop_after_every_step(monkeypatch):
    asked = []
    run = Run(TINY, None, training.default_accelerator(cpu=True), None, 1, None, False)
    monkeypatch.setattr(run.accelerator.state, "num_processes", 2, raising=False)
    monkeypatch.setattr(Run, "agree", lambda self, stop: asked.append(self.step) or False)
    monkeypatch.setattr(Run, "advance", lambda self: setattr(self, "step", self.step + 1))
    monkeypatch.setattr(Run, "look", lambda self: 0.0)
    training._train(run, 500, 20, False)
    assert asked == list(range(1, 13))


def test_a_checkpoint_with_nan_is_refused(whole, tmp_path):
    path = copy_of(whole, tmp_path)
    tensors, facts = checkpoints.read(path)
    name = next(key for key in tensors if key.startswith("optimizer.exp_avg."))
    tensors[name].view(-1)[0] = math.nan
    from safetensors.torch import save_file

    save_file(tensors, path, {"facts": json.dumps(facts)})
    with pytest.raises(ValueError, match=rf"{path.name}: {name} has NaN or infinite values"):
        train(TINY, tmp_path, show_progress=False)


@pytest.mark.parametrize("when", ["loss", "gradient"])
def test_training_stops_at_the_first_step_that_is_not_finite(tmp_path, when):
    advance, loss = Run.advance, Run.loss

    def poisoned(self, part):
        value = loss(self, part)
        if self.step != 7:
            return value
        return value * math.nan if when == "loss" else value + 0 * torch.sqrt(0 * self.bare.network.last.bias).sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "loss", poisoned)
        message = r"loss: not finite at step 8 .*; the last good checkpoint is .*step-0000005.safetensors"
        with pytest.raises(FloatingPointError, match=message):
            train(TINY, tmp_path, save_every=5, look_every=4, show_progress=False)
    assert Run.advance is advance
    assert [p.name for p in checkpoints_in(tmp_path)] == ["step-0000005.safetensors"]
    train(TINY, tmp_path, save_every=5, show_progress=False)  # from there it goes on


def test_shares_must_be_whole():
    with pytest.raises(ValueError, match=r"^batch_size: expected a multiple of 1 processes times 3 accumulated parts"):
        train(TINY, accumulate=3, show_progress=False)


# -- several processes -------------------------------------------------------------------------------------------------

TWO = """
import os, sys, torch
torch.set_num_threads(1)
from tests.models.test_training import together

os.environ.update(WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[2])
other = os.fork()
os.environ.update(dict.fromkeys(("RANK", "LOCAL_RANK"), "0" if other else "1"))
together(sys.argv[1])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) if other else 0)
"""


def together(folder):
    """What the processes of a group train, sample and measure; the first writes it into the folder."""
    accelerator = default_accelerator()
    recipe = replace(TINY, uncertainty=True, profiles=(0.1,), n_snapshots=2)
    run = Run(recipe, None, accelerator, None, 1, None, False)
    mine = run.batches[0].parts(accelerator.num_processes)[accelerator.process_index]
    accelerator.backward(run.loss(mine))
    gradients = {name: p.grad for name, p in run.bare.named_parameters()}
    del run
    model = train(recipe, Path(folder), accelerator=accelerator, save_every=5, show_progress=False)
    options = {"labels": torch.arange(7), "n_steps": 2, "batch_size": 2, "show_progress": False}
    images = generation.generate(model, (7, 1, 8, 8), accelerator=accelerator, **options)
    features = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0))
    scores = [frechet_distance(*features), *inception_score(features[0])]
    if accelerator.is_main_process:
        seen = {"n": accelerator.num_processes, "gradients": gradients, "images": images, "scores": scores}
        torch.save(seen, Path(folder) / "seen.pt")
    leave(accelerator)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process")
def test_two_processes_train_and_sample_as_one_does(tmp_path):
    """As torchrun starts them, but for its own process: the variables of the environment say who is who."""
    seen = {}
    for n in (1, 2):
        folder = tmp_path / str(n)
        folder.mkdir()
        if n == 1:
            together(folder)
        else:
            _python(TWO, str(folder), str(free_port()))
        seen[n] = torch.load(folder / "seen.pt")
        assert seen[n]["n"] == n
    for name, value in seen[1]["gradients"].items():
        torch.testing.assert_close(seen[2]["gradients"][name], value, rtol=1e-4, atol=1e-7, msg=name)
    for one, two in zip(losses(tmp_path / "1").values(), losses(tmp_path / "2").values(), strict=True):
        assert [float(v) for v in two] == pytest.approx([float(v) for v in one], rel=1e-3)
    torch.testing.assert_close(seen[2]["images"], seen[1]["images"], rtol=1e-2, atol=1e-2)
    one, two = (checkpoints.read(tmp_path / n / "step-0000012.safetensors")[0] for n in ("1", "2"))
    for name in ("uncertainty.weight", "profile-0.network.stem.weight"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-2, atol=1e-4)
    assert seen[2]["scores"] == pytest.approx(seen[1]["scores"], rel=1e-9)


def free_port():
    """A port that nobody listens to."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_processes_that_do_not_find_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(training, "Accelerator", lambda **options: Accelerator(cpu=True))
    with pytest.raises(ValueError, match=r"^WORLD_SIZE: 3 processes were started, but each sees 1"):
        default_accelerator()


def _python(code, *arguments):
    """Run code in a new Python, or fail with what it wrote."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
