"""Averages of a run that are made afterwards, against those of the weights that it really had."""

from dataclasses import replace

import pytest
import torch

from coursework.averaging import gamma_of, power_average
from coursework.models import checkpoints, snapshots
from coursework.models.recipes import Recipe
from coursework.models.training import Run, train

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = Recipe(
    "score",
    "digits",
    64,
    network={"widths": (8,), "attention_at": (), "features": 8},
    batch_size=4,
    warmup=4,
    learning_rate=5e-3,
    profiles=(0.05, 0.1),
    n_snapshots=8,
)


def weights(model):
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder, and the weights after each of its steps."""
    torch.set_num_threads(1)
    folder, passed, advance = tmp_path_factory.mktemp("run"), [], Run.advance

    def watched(self):
        advance(self)
        passed.append(weights(self.bare))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "advance", watched)
        train(RECIPE, folder, show_progress=False)
    return folder, torch.stack(passed)


def test_snapshots_are_evenly_spread_and_the_last_is_the_end():
    assert sorted(snapshots.steps(RECIPE)) == list(range(8, 65, 8))
    assert sorted(snapshots.steps(replace(RECIPE, n_steps=10, n_snapshots=4))) == [2, 5, 7, 10]
    assert snapshots.steps(replace(RECIPE, profiles=())) == frozenset()


def test_what_was_stored_comes_back(run):
    folder, passed = run
    for width in RECIPE.profiles:
        for step in (64, 24):
            model, recipe = snapshots.rebuild(folder, width, step=step)
            assert recipe == RECIPE
            direct = power_average(passed[:step], gamma_of(width))
            torch.testing.assert_close(weights(model), direct, rtol=1e-4, atol=2e-6)
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


@pytest.mark.parametrize(("width", "share"), [(0.075, 0.08), (0.15, 0.08), (0.2, 0.15)])
def test_other_averages_are_near_the_true_ones(run, width, share):
    """Relative to what lies between the average and the last weights."""
    folder, passed = run
    direct = power_average(passed, gamma_of(width))
    model, _ = snapshots.rebuild(folder, width)
    error = float((weights(model) - direct).norm() / (passed[-1] - direct).norm())
    nearest = min(float((power_average(passed, gamma_of(w)) - direct).norm()) for w in RECIPE.profiles)
    assert error < share
    assert float((weights(model) - direct).norm()) < 0.5 * nearest, "nearer than what was stored"


def test_refusals(run, tmp_path):
    folder, _ = run
    with pytest.raises(ValueError, match=r"^folder: .* has no snapshots"):
        snapshots.rebuild(tmp_path, 0.1)
    with pytest.raises(ValueError, match=r"^sigma_rel: expected at most"):
        snapshots.rebuild(folder, 0.5)
    with pytest.raises(ValueError, match=r"^step: expected 1 to 64, the last snapshot's, got 65"):
        snapshots.rebuild(folder, 0.1, step=65)
    for path in folder.glob("snapshot-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    last = tmp_path / "snapshot-0000064.safetensors"
    tensors, facts = checkpoints.read(last)
    checkpoints.write(last, tensors, {**facts, "recipe": replace(RECIPE, seed=3).to_json()})
    with pytest.raises(ValueError, match=r"snapshot-0000064.safetensors: from another recipe than snapshot-0000008"):
        snapshots.rebuild(tmp_path, 0.1)
    checkpoints.write(last, {k: v for k, v in tensors.items() if not k.endswith("stem.bias")}, facts)
    with pytest.raises(ValueError, match=r"from another architecture: it lacks network.stem.bias"):
        snapshots.rebuild(tmp_path, 0.1)
    last.write_bytes(b"")
    with pytest.raises(ValueError, match=r"snapshot-0000064.safetensors: damaged"):
        snapshots.rebuild(tmp_path, 0.1)
