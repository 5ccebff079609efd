"""Explorers: a moved control draws anew with its value, and viewers without a front end get the picture."""

import base64
import io

import ipywidgets
import matplotlib.pyplot as plt
import pytest
from PIL import Image

from coursework.widgets import Explorer, slider


def draw(height, shade):
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.bar([0], [height], color=shade)
    ax.set_ylim(0, 4)
    return figure


@pytest.fixture
def explorer():
    controls = {"height": slider("height", 0.0, 4.0, 1.0), "shade": ipywidgets.Dropdown(options=["black", "red"])}
    return Explorer(draw, "a bar of a height", controls)


def dark_pixels(explorer):
    data = base64.b64decode(explorer._repr_mimebundle_()[0]["image/png"])
    return sum(value < 60 for value in Image.open(io.BytesIO(data)).convert("L").get_flattened_data())


def test_moving_a_slider_redraws_with_its_value(explorer):
    seen = []
    for height in (0.5, 2.0, 4.0):
        explorer.controls["height"].value = height
        seen.append(dark_pixels(explorer))
    assert seen[0] < seen[1] < seen[2]
    explorer.controls["shade"].value = "red"
    assert dark_pixels(explorer) < seen[0]


def test_live_picture_and_still_picture_are_the_same(explorer):
    before = explorer.picture.value
    explorer.controls["height"].value = 3.0
    assert explorer.picture.value != before
    data, metadata = explorer._repr_mimebundle_()
    assert data["image/png"] in explorer.picture.value
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "a bar of a height" in metadata["image/png"]["alt"]
    assert 'alt="a bar of a height"' in explorer.picture.value


def test_figures_are_closed(explorer):
    explorer.controls["height"].value = 2.5
    assert plt.get_fignums() == []


def test_an_error_in_the_drawing_is_not_swallowed(explorer):
    explorer._draw = lambda height, shade: 1 / 0
    with pytest.raises(ZeroDivisionError):
        explorer.controls["height"].value = 2.0


def test_log_slider_spans_powers_of_ten():
    control = slider("sigma", -2, 1, 0.1, log=True)
    assert (control.base**control.min, control.base**control.max, control.value) == (0.01, 10, 0.1)
