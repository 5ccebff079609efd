"""A network whose input has about unit variance at every time (lesson 06)."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from coursework._arguments import expand

if TYPE_CHECKING:
    from coursework.sdes import SDE


class ScaledInput(nn.Module):
    """network(x / sqrt(alpha^2 + sigma^2), t, label): for the VE SDE, whose x_t grows up to sigma_max.

    For the VP SDE, where alpha^2 + sigma^2 = 1, it changes nothing. Shapes: those of the network.
    Source: Karras et al. 2022, section 5 (c_in, for data of unit variance).
    """

    def __init__(self, network: nn.Module, sde: "SDE") -> None:
        super().__init__()
        self.network, self.sde = network, sde

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The network at the scaled x."""
        scale = (self.sde.alpha(t) ** 2 + self.sde.sigma(t) ** 2).rsqrt()
        return self.network(expand(scale, x, "t") * x, t, label)
