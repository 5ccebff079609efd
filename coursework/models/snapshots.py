"""Power-function averages that a run stores on its way, and any other average made from them afterwards (lesson 15).

A snapshot holds the averages of the recipe's `profiles` at one step.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from coursework import models
from coursework._arguments import at_least, number
from coursework.averaging import gamma_of, reconstruct
from coursework.models import checkpoints
from coursework.models.recipes import Recipe


def steps(recipe: Recipe) -> frozenset[int]:
    """The steps after which a run of the recipe stores its averages: n_snapshots of them, evenly, the last included."""
    n = recipe.n_snapshots
    return frozenset(recipe.n_steps * (k + 1) // n for k in range(n)) if recipe.profiles else frozenset()


def write(folder: Path, recipe: Recipe, step: int, profiles: Sequence[nn.Module]) -> None:
    """Store a recipe's averages at a step, in the order of its `profiles`."""
    tensors = {f"{i}.{name}": value for i, model in enumerate(profiles) for name, value in model.state_dict().items()}
    checkpoints.write(folder / f"snapshot-{step:07d}.safetensors", tensors, {"recipe": recipe.to_json(), "step": step})


def rebuild(folder: Path, sigma_rel: float, *, step: int | None = None) -> tuple[models.Model, Recipe]:
    """The model whose weights are the average with profile `sigma_rel` at `step` (the last snapshot's), and its recipe.

    folder: of a run whose recipe has `profiles`. The model is ready to use, as from `models.load`. How well a profile
    can be rebuilt tells `averaging.profile_error`. Raises ValueError for a folder without snapshots, snapshots of
    different recipes, a sigma_rel beyond (0, 0.2887], and for a step after the last snapshot.
    """
    gamma = gamma_of(sigma_rel)
    paths = sorted(folder.glob("snapshot-*.safetensors"))
    if not paths:
        raise ValueError(f"folder: {folder} has no snapshots; the recipe's profiles say which a run stores")
    stored, times, gammas, recipe = [], [], [], None
    for path in paths:
        tensors, facts = checkpoints.read(path)
        its_recipe, its_step = models.recipe_of(facts, path), at_least(facts.get("step"), 1, f"{path}: step")
        if recipe is not None and its_recipe != recipe:
            raise ValueError(f"{path}: from another recipe than {paths[0].name}")
        recipe = its_recipe
        for i, width in enumerate(recipe.profiles):
            stored.append(checkpoints.part(tensors, f"{i}."))
            times.append(float(its_step))
            gammas.append(gamma_of(width))
    assert recipe is not None
    model = models.make(recipe)
    for weights in stored:
        checkpoints.same_form(model.state_dict(), weights, folder)
    target = max(times) if step is None else number(step, "step")
    if not 0 < target <= max(times):
        raise ValueError(f"step: expected 1 to {max(times):.0f}, the last snapshot's, got {step}")
    model.load_state_dict(reconstruct(stored, times, gammas, gamma, target))
    return model.eval().requires_grad_(False), recipe
