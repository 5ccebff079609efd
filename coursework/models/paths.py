"""What a distilled model learns from: pairs of points on the paths of its teacher (lesson 18).

The target is where the teacher's solver arrives, so it needs neither images nor the student's own answers. Source: for
one step, Luhman & Luhman 2021.
"""

import torch
from torch import Tensor, nn

from coursework import models
from coursework.fast_solvers import exponential_multistep
from coursework.flow_maps import VelocityMap, angle_times
from coursework.models.batches import Pairs, stream_of
from coursework.models.recipes import Recipe
from coursework.nn import UNet
from coursework.predictions import ScoreModel

N_PATHS, REUSED = 1024, 128  # paths made at once, and for how many steps they serve
PART = 256  # paths that are walked together
FINE = 8  # places that an inner time may have in a step


class Paths:
    """The batches of a recipe that distills: step i's is a function of (recipe, i) alone.

    A set of `N_PATHS` paths serves `REUSED` steps: from noise at T to t_min by the second-order multistep solver on
    `angle_times`, whose inner times are moved together by up to half a step, at random for each set. A batch has pairs
    of points of them: the first is more often an early one, and the path's beginning in about n_path^(-1/2) of all.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.teacher = teacher_of(recipe, device)
        self.two_times = bool(recipe.network.get("two_times", False))
        self._made: tuple[int, Tensor, Tensor, Tensor] | None = None

    def __getitem__(self, step: int) -> Pairs:
        recipe, device, size, k = self.recipe, self.device, self.recipe.batch_size, self.recipe.n_path
        times, points, labels = self._paths(step // REUSED)
        stream = stream_of(device, recipe.seed, 3, step)
        path = torch.randint(points.shape[1], (size,), generator=stream, device=device)
        first, share = torch.rand(2, size, generator=stream, device=device)
        begin = (k * first**2).long()
        end = begin + 1 + (share * (k - begin)).long() if self.two_times else torch.full_like(begin, k)
        return Pairs(points[end, path], labels[path], times[begin], points[begin, path], times[end])

    def _paths(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Times (n_path + 1,), points (n_path + 1, N, C, H, W) and labels (N,) of a set of paths."""
        if self._made is None or self._made[0] != number:
            self._made = (number, *self._walk(number))
        return self._made[1:]

    @torch.no_grad()
    def _walk(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        recipe, sde, device, k = self.recipe, self.teacher.sde, self.device, self.recipe.n_path
        stream = stream_of(device, recipe.seed, 2, number)
        shape = (N_PATHS, *models.SHAPES[recipe.data])
        start = sde.prior_sample(shape, generator=stream, device=device)
        labels = torch.arange(N_PATHS, device=device) % models.N_CLASSES
        dropped = torch.rand(N_PATHS, generator=stream, device=device) < recipe.label_dropout
        labels = labels.masked_fill(dropped, -1)
        moved = int(torch.randint(FINE, (), generator=stream, device=device)) - FINE // 2
        fine = angle_times(sde, FINE * k)
        times = torch.cat([fine[:1], fine[FINE * torch.arange(1, k) + moved], fine[-1:]])
        parts = [self._part(x, labels[i * PART : (i + 1) * PART], times) for i, x in enumerate(start.split(PART))]
        return times.to(device, start.dtype), torch.cat(parts, 1), labels

    def _part(self, x: Tensor, labels: Tensor, times: Tensor) -> Tensor:
        """The points of a few paths, (n_path + 1, n, C, H, W)."""
        points = [x]
        label = None if self.recipe.network.get("n_classes") is None else labels
        exponential_multistep(
            lambda x, t: self.teacher(x, t, label), self.teacher.sde, x, times, on_step=lambda i, t, x: points.append(x)
        )
        return torch.stack(points)


def teacher_of(recipe: Recipe, device: torch.device | str = "cpu") -> ScoreModel:
    """The score model that a recipe distills. Raises ValueError where it is another kind, or of other data or SDE."""
    teacher, its = models.load_with_recipe(str(recipe.teacher), device=device)
    if not isinstance(teacher, ScoreModel):
        raise ValueError(f"teacher: expected a score model, {recipe.teacher} is trained to {its.task}")
    for name in ("data", "sde"):
        if getattr(its, name) != getattr(recipe, name):
            raise ValueError(f"teacher: its {name} is {getattr(its, name)}, the recipe's {getattr(recipe, name)}")
    if its.network.get("n_classes") != recipe.network.get("n_classes"):
        raise ValueError("teacher: it was trained with labels where the recipe has none, or the other way round")
    return teacher


def begin_from(model: nn.Module, recipe: Recipe) -> None:
    """Copy the teacher's weights into a new student, but for its last layer and what only the student has.

    The last layer answers something else: a velocity, 0 at first. Raises ValueError for another architecture.
    """
    teacher = teacher_of(recipe)
    assert isinstance(model, VelocityMap)
    own, its = model.network, teacher.network
    if not isinstance(own, UNet) or not isinstance(its, UNet):
        raise ValueError("teacher: expected a U-Net without preconditioning to begin from")
    weights = {name: value for name, value in its.state_dict().items() if not name.startswith("last.")}
    try:
        lacking = own.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError:
        lacking = list(weights)
    if any(not name.startswith(("last.", "embed_second.")) for name in lacking):
        raise ValueError(f"teacher: {recipe.teacher} is of another architecture: {dict(its.configuration)}")
