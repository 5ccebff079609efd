"""Pictures of images: every row beside its name."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from coursework import plots


@pytest.mark.parametrize("size", [(7, 5.2), (3, 6), (8, 2)])
def test_rows_of_images_have_their_names_beside_them_in_order_and_inside_the_picture(size):
    shades = {"dark": -1.0, "grey, with a rather long name": 0.0, "light": 1.0}
    with matplotlib.rc_context():
        plots.use_style()
        figure, ax = plt.subplots(figsize=size)
        plots.rows_of_images(ax, {name: torch.full((9, 1, 4, 4), shade) for name, shade in shades.items()}, "shades")
        figure.canvas.draw()
        picture, frame = ax.images[0].get_array(), ax.get_window_extent()
        boxes = {label.get_text(): label.get_window_extent() for label in ax.texts}
        plt.close(figure)
    assert ax.get_title() == "shades"
    assert list(boxes) == list(shades)
    assert picture.shape[1] > 9 * 4
    for name, box in boxes.items():
        assert box.x0 >= 0
        assert box.x1 <= frame.x0
        _, row = ax.transData.inverted().transform((frame.x0, (box.y0 + box.y1) / 2))
        assert picture[round(row), 2, 0] == pytest.approx((shades[name] + 1) / 2)


def test_rows_of_different_lengths_are_refused():
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="'b': 2"):
        plots.rows_of_images(ax, {"a": torch.zeros(3, 1, 4, 4), "b": torch.zeros(2, 1, 4, 4)})
    plt.close("all")


def test_panels_show_pictures_in_grey_and_maps_on_one_scale():
    rows = [
        {"mean": torch.full((3, 4), shade), "map": torch.full((3, 4), top)} for shade, top in ((0.0, 0.2), (1.0, 0.8))
    ]
    with matplotlib.rc_context():
        figure = plots.panels(rows, ("map",), "spread")
        *axes, bar = figure.axes
        plt.close(figure)
    assert [ax.get_title() for ax in axes] == ["mean", "map"] * 2
    assert bar.get_ylabel() == "spread"
    pictures = [ax.images[0] for ax in axes]
    assert [float(pictures[i].get_array()[1, 1, 0]) for i in (0, 2)] == pytest.approx([0.5, 1.0])
    assert [pictures[i].get_clim() for i in (1, 3)] == [pytest.approx((0, 0.8))] * 2
    with pytest.raises(ValueError, match=r"rows: expected rows of the same number of pictures, got \[1, 2\]"):
        plots.panels([rows[0], {"mean": torch.zeros(3, 4)}])


def test_paths_lie_over_the_density_of_their_times_and_time_runs_as_given():
    times = torch.linspace(1, 0, 251)
    states = torch.stack([1 + times, -times], dim=1)[:, :, None]
    _, ax = plt.subplots()
    plots.paths(ax, times, states, lambda x, t: x[:, 0] + 10 * t)
    mesh = ax.collections[0]
    corners = mesh.get_coordinates()
    values = mesh.get_array()
    assert ax.get_xlim() == (1, 0)
    assert [line.get_ydata()[0] for line in ax.lines] == pytest.approx([2, -1])
    assert corners[0, 0, 0] == pytest.approx(1, abs=0.01)
    assert values[0, 0] - values[0, -1] == pytest.approx(10)  # 10 t falls from 10 to 0
    assert values[-1, 0] - values[0, 0] == pytest.approx(4)  # x rises from -1.5 to 2.5
    plt.close("all")
