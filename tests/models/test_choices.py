"""The table of lesson 15: what it measures, and that the stored file is what the script writes."""

import math

import pytest
import torch

from coursework.data import load
from coursework.models import choices
from coursework.models.training import train
from coursework.predictions import ScoreModel
from coursework.sdes import VPSDE
from tests.helpers import ROOT


def test_the_file_has_every_choice_with_the_same_seeds():
    rows = choices.read()
    seeds = sorted({row.seed for row in rows})
    assert sorted((row.choice, row.seed) for row in rows) == sorted((c, s) for c in choices.CHOICES for s in seeds)
    assert seeds == list(range(max(2, len(seeds))))
    assert all(math.isfinite(v) and v > 0 for row in rows for v in (row.frechet, row.bound, row.seconds))


def test_a_network_that_answers_zero_has_the_whole_bound():
    """E|noise|^2 is 1 a pixel, so the bound is half of the log-SNR's range."""
    sde = VPSDE()
    model = ScoreModel(lambda x, t: torch.zeros_like(x), sde, "noise")
    ends = sde.log_snr(torch.tensor([sde.t_min, sde.T], dtype=torch.float64))
    n = 4 * 355 * 64  # numbers, each squared: a relative standard error of sqrt(2 / n)
    exact = float(ends[0] - ends[1]) / 2
    assert choices.bound(model) == pytest.approx(exact, rel=4 * math.sqrt(2 / n))


def test_the_distance_of_the_held_out_images_is_the_floor_of_the_cards():
    images = load("digits", split="test").images
    card = (ROOT / "coursework" / "models" / "trained" / "digits-vp.md").read_text(encoding="utf-8")
    assert f"| {choices.distance(images):.3f} |" in card


def test_each_choice_changes_a_run_and_a_seed_fixes_it():
    options = {"n_steps": 3, "warmup": 1, "batch_size": 16, "n": 80}
    again, base = (choices.measure("base", 1, **options) for _ in range(2))
    assert (base.frechet, base.bound) == pytest.approx((again.frechet, again.bound), rel=1e-4)
    for choice in ("predict and weight the data", "time features of scale 1", "no average of the weights"):
        other = choices.measure(choice, 1, **options)
        assert (other.frechet, other.bound) != pytest.approx((base.frechet, base.bound), rel=1e-4)
    with pytest.raises(ValueError, match=r"^choice: expected"):
        choices.measure("luck")


def test_a_network_of_ones_own_has_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"^network: a run in a folder"):
        train(choices.BASE, tmp_path, network=torch.nn.Identity())
