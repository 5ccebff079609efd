"""The lessons' explorers without a browser: every control at several settings, the still picture, the colours."""

import ast
import base64
import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from colorspacious import cspace_convert, deltaE
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb

from coursework import plots
from coursework.widgets import Explorer
from tests.helpers import LESSONS
from tests.helpers.explorer_cells import explorer_cells, statements

APART = 8.0  # in CAM02-UCS, where 1 is about the smallest difference that eyes see side by side
EYES = ("normal", "deuteranomaly", "protanomaly")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=LESSONS)
def explorer(request):
    """A lesson's explorer, made as the lesson makes it."""
    *earlier, last = [s for source in explorer_cells(request.param) for s in statements(source)]
    space = {}
    with matplotlib.rc_context():
        exec(compile(ast.Module(earlier, []), request.param, "exec"), space)
        yield eval(compile(ast.Expression(last.value), request.param, "eval"), space)


def settings(control):
    """Values of a control, from one end to the other."""
    if hasattr(control, "options"):
        values = [option[1] if isinstance(option, tuple) else option for option in control.options]
        return [values[i] for i in sorted({0, len(values) // 2, len(values) - 1})]
    ends = np.array([control.min, control.max])
    values = ends[0] + (ends[1] - ends[0]) * np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    values = ends[0] + control.step * np.round((values - ends[0]) / control.step)
    return [float(v) for v in (control.base**values if hasattr(control, "base") else values)]


def still(explorer):
    """The picture for viewers without a front end."""
    data, metadata = explorer._repr_mimebundle_()
    assert explorer._alt in metadata["image/png"]["alt"]
    return data["image/png"]


def test_every_setting_draws_and_changes_the_picture(explorer):
    assert isinstance(explorer, Explorer)
    open_before = plt.get_fignums()
    for control in explorer.controls.values():
        assert control.description
        at_first, pictures = control.value, []
        for value in settings(control):
            control.value = value
            pictures.append(still(explorer))
            assert base64.b64decode(pictures[-1]).startswith(b"\x89PNG")
            assert pictures[-1] in explorer.picture.value
        assert len(pictures) >= 2
        assert len(set(pictures)) == len(pictures), control.description
        control.value = at_first
    assert plt.get_fignums() == open_before


def test_the_same_setting_draws_the_same_picture(explorer):
    """A slider that is moved away and back shows what it showed: chance comes from fixed seeds."""
    control = next(iter(explorer.controls.values()))
    at_first, before = control.value, still(explorer)
    control.value = next(v for v in settings(control) if v != at_first)
    control.value = at_first
    assert still(explorer) == before


def seen_by(eyes, colours):
    """sRGB colours (n, 3) as these eyes see them: Machado, Oliveira and Fernandes (2009), complete lack of a cone."""
    if eyes == "normal":
        return colours
    space = {"name": "sRGB1+CVD", "cvd_type": eyes, "severity": 100}
    return np.clip(cspace_convert(colours, space, "sRGB1"), 0, 1)


def alike(colours):
    """Pairs of colours that some eyes cannot tell apart."""
    if len(colours) < 2:
        return []
    views = {eyes: seen_by(eyes, np.array(colours)) for eyes in EYES}
    pairs = itertools.combinations(range(len(colours)), 2)
    distance = lambda view, i, j: deltaE(view[i], view[j], input_space="sRGB1")  # noqa: E731 (one line, one use)
    return [(eyes, colours[i], colours[j]) for i, j in pairs for eyes in EYES if distance(views[eyes], i, j) < APART]


def test_every_two_colours_of_the_palette_are_apart_for_all_eyes():
    """Seaborn's green and brown, its own C2 and C5, are not."""
    assert alike(plots.PALETTE) == []
    assert {pair[0] for pair in alike([(0.0, 0.6, 0.45), (0.79, 0.57, 0.38)])} == {"protanomaly"}


def test_the_style_sets_the_palette():
    with matplotlib.rc_context():
        plots.use_style()
        assert [to_rgb(f"C{i}") for i in range(7)] == plots.PALETTE


@pytest.mark.parametrize("name", ["Blues", "Oranges"])
@pytest.mark.parametrize("eyes", EYES)
def test_maps_of_densities_get_darker_for_all_eyes(name, eyes):
    colours = seen_by(eyes, matplotlib.colormaps[name](np.linspace(0, 1, 32))[:, :3])
    assert (np.diff(cspace_convert(colours, "sRGB1", "CAM02-UCS")[:, 0]) < 0).all()


def plain_colours(figure):
    """The colours of lines, bars, areas and points that have one colour each; a map's colours are no such."""
    found = set()
    for ax in figure.axes:
        found |= {to_rgb(line.get_color()) for line in ax.lines}
        found |= {to_rgb(patch.get_facecolor()) for patch in ax.patches}
        for collection in ax.collections:
            if isinstance(collection, PathCollection | LineCollection) and collection.get_array() is None:
                faces = collection.get_facecolor() if isinstance(collection, PathCollection) else collection.get_color()
                found |= {to_rgb(face) for face in faces[:1]}
    return sorted(found)


def test_the_colours_of_an_explorers_picture_are_apart_for_all_eyes(explorer):
    figure = explorer._draw(**{name: control.value for name, control in explorer.controls.items()})
    colours = plain_colours(figure)
    plt.close(figure)
    assert alike(colours) == []
