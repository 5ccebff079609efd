"""Distilling: pairs are points of the teacher's paths, the loss is the velocity's, a student begins as its teacher."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from coursework import models
from coursework.data import load
from coursework.fast_solvers import exponential_multistep
from coursework.flow_maps import VelocityMap, angle_times
from coursework.models import checkpoints, paths, training
from coursework.models.batches import stream_of
from coursework.models.generation import generate
from coursework.models.paths import Paths, begin_from, teacher_of
from coursework.models.recipes import Recipe
from coursework.models.training import Run, default_accelerator, train

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORK = {"widths": (8, 16), "attention_at": (4,), "heads": 2, "features": 16, "n_classes": 10}
TEACHER = Recipe("score", "digits", 1, network=NETWORK, prediction="data", label_dropout=0.2, batch_size=16)
TO_THE_END = Recipe("distill", "digits", 8, network=NETWORK, batch_size=8, warmup=2, n_path=4, teacher="?")
TO_ALL = replace(TO_THE_END, network={**NETWORK, "two_times": True}, label_dropout=0.3)
both = pytest.mark.parametrize("recipe", [TO_THE_END, TO_ALL], ids=["one end", "two times"])


@pytest.fixture(scope="module", autouse=True)
def few_paths():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "N_PATHS", 40)
        patch.setattr(paths, "REUSED", 3)
        patch.setattr(paths, "PART", 16)
        yield


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher's file: a small network with random weights, whose paths are no straight lines."""
    model = models.make(TEACHER)
    for i, parameter in enumerate(model.parameters()):
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    models.save_trained(model, TEACHER, path)
    return str(path)


def pairs_of(recipe, n_steps):
    batches = Paths(recipe, torch.device("cpu"))
    return batches, [batches[i] for i in range(n_steps)]


@both
def test_a_pair_is_two_points_of_one_path_of_the_teacher(recipe, teacher):
    """From the pair's noise at T the solver comes by both; in each set of paths the inner times are others."""
    recipe = replace(recipe, teacher=teacher, batch_size=64)
    batches, pairs = pairs_of(recipe, 6)
    model, sde, inner = teacher_of(recipe), batches.teacher.sde, set()
    for step, pair in enumerate(pairs):
        first = pair.times == sde.T
        assert 0.35 < float(first.double().mean()) < 0.65, "n_path^(-1/2) = 1/2"
        assert bool((pair.ends < pair.times).all())
        times = torch.cat([pair.times, pair.ends]).unique().flip(0)
        assert len(times) == recipe.n_path + 1
        inner.add(round(float(times[1]), 6))
        points = [pair.noise[first]]
        grid = paths_times(batches, step)
        exponential_multistep(
            lambda x, t, label=pair.labels[first]: model(x, t, label),
            sde,
            points[0],
            grid,
            on_step=lambda i, t, x, points=points: points.append(x),
        )
        ends = (pair.ends[first][:, None] - grid[None].float()).abs().argmin(1)
        expected = torch.stack(points)[ends, torch.arange(len(ends))]
        torch.testing.assert_close(pair.images[first], expected, rtol=1e-4, atol=1e-4)
        if recipe is not TO_THE_END and "two_times" not in recipe.network:
            assert pair.ends.unique().tolist() == pytest.approx([sde.t_min])
    assert len(inner) == 2


def paths_times(batches, step):
    """The times of the set that serves a step, made here from a grid that is eight times as fine."""
    stream = stream_of("cpu", batches.recipe.seed, 2, step // 3)
    torch.randn(40, 1, 8, 8, generator=stream)
    torch.rand(40, generator=stream)
    moved = int(torch.randint(8, (), generator=stream)) - 4
    fine = angle_times(batches.teacher.sde, 32)
    return fine[torch.tensor([0, 8 + moved, 16 + moved, 24 + moved, 32])]


def test_labels_are_dropped_at_their_rate_and_classes_are_even(teacher):
    batches = Paths(replace(TO_ALL, teacher=teacher), torch.device("cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "N_PATHS", 1000)
        patch.setattr(Paths, "_part", lambda self, x, labels, times: x[None])
        labels = batches._paths(0)[2]
    dropped = float((labels == -1).double().mean())
    assert dropped == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 1000) ** 0.5)
    assert bool(((labels == -1) | (labels == torch.arange(1000) % 10)).all())


@both
def test_a_batch_depends_on_its_number_alone(recipe, teacher):
    recipe = replace(recipe, teacher=teacher)
    _, there = pairs_of(recipe, 5)
    batches = Paths(recipe, torch.device("cpu"))
    for step in (4, 0, 3, 2, 1):
        for name, value in vars(batches[step]).items():
            assert torch.equal(value, getattr(there[step], name)), name
    assert not torch.equal(there[0].noise, there[1].noise)


@both
def test_the_loss_is_that_of_the_velocity(recipe, teacher):
    """The velocity that would have been right is (cos(a) x_t - x_s) / sin(a), a the angle between the two times."""
    recipe = replace(recipe, teacher=teacher)
    run = Run(recipe, None, default_accelerator(cpu=True), None, 1, None, False)
    for parameter in run.bare.network.last.parameters():
        parameter.data += 0.1
    pair, sde, network = run.batches[0], run.sde, run.bare.network
    second = (pair.ends,) if network.configuration["two_times"] else ()
    velocity = network(pair.noise, pair.times, pair.labels, *second).double()
    angles = [torch.atan2(sde.sigma(t.double()), sde.alpha(t.double())) for t in (pair.times, pair.ends)]
    a = (angles[0] - angles[1])[:, None, None, None]
    right = (a.cos() * pair.noise - pair.images) / a.sin()
    assert run.loss(pair).item() == pytest.approx((velocity - right).square().mean().item(), rel=1e-3)


@both
def test_a_student_begins_with_its_teachers_weights_and_answers_nothing(recipe, teacher):
    recipe = replace(recipe, teacher=teacher)
    student = models.make(recipe)
    begin_from(student, recipe)
    weights, theirs = student.network.state_dict(), teacher_of(recipe).network.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in theirs.items() if not name.startswith("last."))
    x, t, s = torch.ones(2, 1, 8, 8), torch.tensor(0.8), torch.tensor(student.path.t_min)
    angle = torch.atan2(student.path.sigma(t), student.path.alpha(t)) - torch.atan2(
        student.path.sigma(s), student.path.alpha(s)
    )
    torch.testing.assert_close(student(x, t, s), angle.cos() * x, rtol=1e-4, atol=1e-4)


@both
def test_a_run_that_distills_goes_on_where_its_checkpoint_stands(recipe, teacher, tmp_path):
    """Stopped after step 5, in the middle of what one set of paths serves."""
    recipe, advance = replace(recipe, teacher=teacher), Run.advance

    def interrupted(self):
        advance(self)
        if self.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    model = train(recipe, tmp_path / "whole", show_progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "advance", interrupted)
        with pytest.raises(training.Interrupted, match="stopped after step 5"):
            train(recipe, tmp_path / "stopped", show_progress=False)
    train(recipe, tmp_path / "stopped", show_progress=False)
    ours, theirs = (checkpoints.read(tmp_path / run / "trained.safetensors")[0] for run in ("whole", "stopped"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    loaded = models.load(tmp_path / "whole" / "trained.safetensors")
    assert isinstance(loaded, VelocityMap)
    options = {"labels": torch.arange(4), "show_progress": False}
    x, again = (generate(m, (4, 1, 8, 8), **options) for m in (model, loaded))
    assert torch.equal(x, again)
    with pytest.raises(ValueError, match=r"from another recipe: its n_path is 4, here it is 5"):
        train(replace(recipe, n_path=5), tmp_path / "whole", show_progress=False)


@both
def test_distilling_lowers_the_loss_on_paths_it_has_not_seen(recipe, teacher):
    recipe = replace(recipe, teacher=teacher, n_steps=60, batch_size=32, learning_rate=3e-3, average=0.8)
    trained = train(recipe, show_progress=False)
    run = Run(recipe, None, default_accelerator(cpu=True), None, 1, None, False)
    later = [run.batches[step] for step in range(100, 106)]
    before = sum(run.loss(pair).item() for pair in later)
    run.bare.load_state_dict(trained.state_dict())
    assert sum(run.loss(pair).item() for pair in later) < 0.85 * before


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"teacher": "digits-classifier"},
            r"^teacher: expected a score model, .* is trained to classify",
        ),
        ({"teacher": "fashion-vp"}, r"^teacher: its data is fashion-mnist, the recipe's digits"),
        ({"teacher": "digits-ncsn"}, r"^teacher: its sde is .*'ve'.*, the recipe's .*'vp'"),
        ({"teacher": "nobody"}, r"^name: expected one of"),
        ({"network": {"widths": (8, 16), "attention_at": ()}}, r"^teacher: it was trained with labels"),
        ({"network": {**NETWORK, "widths": (8, 8)}}, r"^teacher: .* is of another architecture"),
        ({"network": {**NETWORK, "n_blocks": 2}}, r"^teacher: .* is of another architecture"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(changes, match, teacher):
    with pytest.raises(ValueError, match=match):
        train(replace(TO_THE_END, **{"teacher": teacher, **changes}), show_progress=False)


def test_images_are_not_asked_for(teacher):
    with pytest.raises(ValueError, match=r"^data: distilling sees paths of its teacher, no images"):
        train(replace(TO_THE_END, teacher=teacher), data=load("digits"), show_progress=False)
