"""Explorers: sliders above a picture. Without a front end the picture of the first setting is shown by itself."""

import base64
from collections.abc import Callable
from html import escape
from typing import Any

from matplotlib.figure import Figure

from coursework.extras import lacking
from coursework.plots import png

try:
    import anywidget
    import ipywidgets
except ModuleNotFoundError as error:
    raise lacking(error) from None


class SpokenLabels(anywidget.AnyWidget):
    """Nothing to see: names the sliders of its box for screen readers, which ipywidgets leaves without a name."""

    _esm = """
    const nameSliders = (box) => box.querySelectorAll(".widget-slider").forEach((slider) => {
        const label = slider.querySelector(".widget-label")?.textContent.trim() ?? "";
        slider.querySelector(".noUi-handle")?.setAttribute("aria-label", label);
        const readout = slider.querySelector(".widget-readout");
        if (readout?.isContentEditable) {
            readout.setAttribute("role", "textbox");
            readout.setAttribute("aria-label", `${label}, value`);
        }
    });
    function render({ el }) {
        el.style.display = "none";
        let box = null;
        const observer = new MutationObserver(() => nameSliders(box));
        const start = () => {
            box = el.closest(".widget-vbox");
            if (!box) return requestAnimationFrame(start); // not in the page yet
            observer.observe(box, { childList: true, subtree: true });
            nameSliders(box);
        };
        start();
        return () => observer.disconnect();
    }
    export default { render };
    """


class Explorer(ipywidgets.VBox):
    """Controls above a picture that `draw(**values)` makes anew whenever a control moves.

    `controls` are ipywidgets with a `value` and a `description`; their keywords are draw's arguments. `alt` says what
    the picture shows.
    """

    def __init__(self, draw: Callable[..., Figure], alt: str, controls: dict[str, ipywidgets.ValueWidget]) -> None:
        self._draw, self._alt, self.controls = draw, alt, controls
        for control in controls.values():
            control.observe(self._redraw, names="value")
            control.set_trait("style", {"description_width": "initial"})
            control.set_trait("layout", ipywidgets.Layout(width="480px"))
        self.picture = ipywidgets.HTML()
        self._redraw()
        super().__init__([*controls.values(), self.picture, SpokenLabels()])

    def _redraw(self, change: dict[str, Any] | None = None) -> None:
        values = {name: control.value for name, control in self.controls.items()}
        self._still = base64.b64encode(png(self._draw(**values))).decode()
        image = f'<img src="data:image/png;base64,{self._still}" alt="{escape(self._alt)}" style="max-width: 100%">'
        self.picture.value = image

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The live widget, and the picture for viewers that cannot show one: data and their metadata."""
        data = super()._repr_mimebundle_(**kwargs) or {}
        alt = f"Picture of an explorer: {self._alt}"
        return {**data, "image/png": self._still, "text/plain": alt}, {"image/png": {"alt": alt}}


def slider(
    description: str, low: float, high: float, value: float, *, step: float = 0.05, log: bool = False
) -> ipywidgets.FloatSlider | ipywidgets.FloatLogSlider:
    """A labelled slider for a number; `log` spaces it in powers of ten (`low`, `high` are then the exponents)."""
    if log:
        return ipywidgets.FloatLogSlider(value=value, min=low, max=high, step=step, description=description)
    return ipywidgets.FloatSlider(value=value, min=low, max=high, step=step, description=description)
