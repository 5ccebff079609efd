"""The pictures of the lessons: densities, score fields, points, image grids; every one with an alternative text."""

import base64
import io
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from coursework.extras import lacking

DPI = 80
# Seaborn's "colorblind" in an order, and without three of its colours, so that no two look alike to readers without red
# or green cones: blue, orange, green, vermilion, pink, light blue, yellow.
PALETTE = [sns.color_palette("colorblind", 10)[i] for i in (0, 1, 2, 3, 4, 9, 8)]
Extent = tuple[float, float, float, float]  # x_min, x_max, y_min, y_max


def use_style() -> None:
    """Set the course's look: seaborn's ticks, a palette that colour-blind readers can tell apart."""
    sns.set_theme(context="notebook", style="ticks", palette=PALETTE, rc={"figure.constrained_layout.use": True})


def png(figure: Figure) -> bytes:
    """The figure as PNG, and close it."""
    figure.set_dpi(DPI)
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()  # once; savefig goes through everything twice
    Image.fromarray(np.asarray(canvas.buffer_rgba())).save(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()


def show(figure: Figure, alt: str) -> None:
    """Display a figure with an alternative text that says what it shows."""
    try:
        from IPython.display import display
    except ModuleNotFoundError as error:
        raise lacking(error) from None
    data = {"image/png": base64.b64encode(png(figure)).decode(), "text/plain": f"Picture: {alt}"}
    display(data, metadata={"image/png": {"alt": alt}}, raw=True)


def grid(extent: Extent, n: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates x and y, each (n, n), and the points (n * n, 2), of a regular grid; float64."""
    x_min, x_max, y_min, y_max = extent
    axes = torch.linspace(x_min, x_max, n, dtype=torch.float64), torch.linspace(y_min, y_max, n, dtype=torch.float64)
    x, y = torch.meshgrid(*axes, indexing="xy")
    return x, y, torch.stack([x.flatten(), y.flatten()], dim=1)


def density(ax: Axes, log_prob: Callable[[Tensor], Tensor], extent: Extent, *, log: bool = False) -> None:
    """Filled contours of exp(log_prob), or of log_prob itself, in the plane. `log_prob`: (n, 2) -> (n,)."""
    x, y, points = grid(extent)
    values = log_prob(points).detach().reshape(x.shape)
    ax.contourf(x, y, values if log else values.exp(), levels=16, cmap="Blues")
    _plane(ax, extent)


def score_field(
    ax: Axes,
    score: Callable[[Tensor], Tensor],
    extent: Extent,
    *,
    n: int = 20,
    unit: bool = False,
    scale: float | None = None,
    color: str = "C1",
) -> None:
    """Arrows of a score on an n x n grid. `score`: (m, 2) -> (m, 2).

    `unit` shows directions only; `scale` is the length that spans the picture's width. Set it where pictures are
    compared; None leaves the choice to matplotlib.
    """
    x, y, points = grid(extent, n)
    arrows = score(points).detach()
    if unit:
        arrows = arrows / arrows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    u, v = (arrows[:, i].reshape(x.shape) for i in (0, 1))
    ax.quiver(x, y, u, v, color=color, angles="xy", width=0.004, scale=scale)
    _plane(ax, extent)


def points(ax: Axes, x: Tensor, *, color: str = "C0", label: str | None = None, size: float = 4) -> None:
    """Scatter points (n, 2)."""
    x = x.detach().cpu()
    ax.scatter(x[:, 0], x[:, 1], s=size, color=color, alpha=0.5, linewidths=0, label=label)


def _plane(ax: Axes, extent: Extent) -> None:
    ax.set(xlim=extent[:2], ylim=extent[2:], xlabel="$x_1$", ylabel="$x_2$", aspect="equal")


def images(ax: Axes, batch: Tensor, *, columns: int = 8, title: str | None = None) -> None:
    """A grid of images (B, C, H, W) with values in [-1, 1]."""
    picture = make_grid(
        batch.detach().cpu().clamp(-1, 1), nrow=columns, normalize=True, value_range=(-1, 1), padding=1, pad_value=0.5
    )
    ax.imshow(picture.permute(1, 2, 0).numpy(), cmap="gray", interpolation="nearest")
    ax.set_axis_off()
    if title:
        ax.set_title(title)


def rows_of_images(ax: Axes, table: dict[str, Tensor], title: str | None = None) -> None:
    """A row of images for every entry of `table`, with its name at the left.

    table: {name: images (n, C, H, W) with values in [-1, 1]}, n the same for all.
    """
    counts = {name: len(batch) for name, batch in table.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"table: expected rows of the same number of images, got {counts}")
    images(ax, torch.cat([*table.values()]), columns=next(iter(counts.values())), title=title)
    ax.set_anchor("E")  # what is left of the width goes to the names
    for i, name in enumerate(table):
        y = 1 - (i + 0.5) / len(table)
        ax.text(-0.01, y, name, transform=ax.transAxes, ha="right", va="center", fontsize=8)


def panels(rows: list[dict[str, Tensor]], maps: tuple[str, ...] = (), label: str = "") -> Figure:
    """A figure of pictures in rows, each with its name above it: what was measured beside what was made of it.

    rows: {name: (H, W)}, as many in each. Values of a picture are in [-1, 1]; those named in `maps` are not negative,
    white at 0, all with one bar of colours, whose name is `label`.
    """
    counts = sorted({len(row) for row in rows})
    if len(counts) != 1:
        raise ValueError(f"rows: expected rows of the same number of pictures, got {counts}")
    figure, axes = plt.subplots(len(rows), counts[0], figsize=(2.1 * counts[0], 2.4 * len(rows)), squeeze=False)
    shades = ScalarMappable(
        Normalize(0, max([float(row[name].max()) for row in rows for name in maps], default=1)), "Blues"
    )
    for line, row in zip(axes, rows, strict=True):
        for ax, (name, picture) in zip(line, row.items(), strict=True):
            if name in maps:
                ax.imshow(picture.cpu().numpy(), cmap="Blues", norm=shades.norm, interpolation="nearest")
                ax.set_axis_off()
            else:
                images(ax, picture[None, None])
            ax.set_title(name, fontsize=10)
    if maps:
        figure.colorbar(shades, ax=axes, label=label, shrink=0.7)
    return figure


def paths(ax: Axes, times: Tensor, states: Tensor, density: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Paths on the line against time, over the density that the points have at each time.

    Shapes: times (n,), states (n, B, 1); `density(x, t)`: (m, 1), () -> (m,). Time runs in the order of `times`.
    """
    low, high = float(states.min()) - 0.5, float(states.max()) + 0.5
    heights = torch.linspace(low, high, 140, dtype=torch.float64)
    some = times[:: max(1, len(times) // 100)]
    columns = torch.stack([density(heights[:, None], t) for t in some], dim=1)
    ax.pcolormesh(some.numpy(), heights.numpy(), columns.numpy(), cmap="Blues", rasterized=True)
    ax.plot(times.numpy(), states[:, :, 0].numpy(), linewidth=0.8)
    ax.set(xlabel="time $t$", ylabel="$x$", xlim=(float(times[0]), float(times[-1])), ylim=(low, high))
