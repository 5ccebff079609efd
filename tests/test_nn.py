"""Networks: shapes, what reaches the output, where gradients go, and whether times can be told apart."""

import pytest
import torch

from coursework.nn import MLP, Denoiser, SinusoidalEmbedding, TimeMLP
from coursework.nn.blocks import FiLM

SIZES = [(1, 28, 28), (1, 8, 8), (3, 32, 32), (1, 9, 7), (2, 13, 8), (1, 1, 5)]


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """The network in float64 with random parameters everywhere, also where it starts at zero."""
    network = network.double()
    stream = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    return network


def inputs(network: torch.nn.Module, n: int = 5) -> tuple[torch.Tensor, ...]:
    """A batch whose size is no dimension of the data; images for the denoiser, points for the others."""
    stream = torch.Generator().manual_seed(4)
    shape = (n, 2, 7, 9) if isinstance(network, Denoiser) else (n, 3)
    x = torch.randn(shape, generator=stream, dtype=torch.float64)
    t = torch.linspace(0.05, 0.95, n, dtype=torch.float64)
    return (x,) if isinstance(network, MLP) else (x, t)


NETWORKS = {
    "MLP": lambda: MLP(3, hidden=16, depth=2),
    "TimeMLP": lambda: TimeMLP(3, hidden=16, depth=2),
    "Denoiser": lambda: Denoiser(2),
    "Denoiser of one level": lambda: Denoiser(2, widths=(16,)),
    "Denoiser of four levels": lambda: Denoiser(2, widths=(8, 16, 16, 24)),
}
every_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
every_timed_network = pytest.mark.parametrize(
    "make", [v for k, v in NETWORKS.items() if k != "MLP"], ids=[k for k in NETWORKS if k != "MLP"]
)


@every_network
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_output_has_the_shape_and_dtype_of_x(make, dtype):
    network = make().to(dtype)
    args = [a.to(dtype) for a in inputs(network)]
    value = network(*args)
    assert value.shape == args[0].shape
    assert value.dtype == dtype


@pytest.mark.parametrize("size", SIZES)
def test_denoiser_keeps_odd_and_even_sizes(size):
    value = awake(Denoiser(size[0]))(torch.ones(2, *size, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64))
    assert value.shape == (2, *size)
    assert bool(torch.isfinite(value).all())


@every_network
def test_every_input_changes_the_output(make):
    network = awake(make())
    args = [a.requires_grad_() for a in inputs(network)]
    for i in range(len(args[0])):
        gradients = torch.autograd.grad(network(*args)[i].pow(2).sum(), args)
        for gradient in gradients:
            assert bool((gradient[i] != 0).all()), "every pixel, coordinate and time of the point counts"
            others = torch.cat([gradient[:i], gradient[i + 1 :]])
            assert not others.any(), "other points of the batch do not"


@every_network
def test_every_parameter_gets_a_gradient(make):
    network = awake(make())
    network(*inputs(network)).pow(2).sum().backward()
    size = {name: float(p.grad.abs().max()) for name, p in network.named_parameters()}
    assert min(size.values()) > 1e-6 * max(size.values()), size


@every_network
def test_permuting_a_batch_permutes_the_output(make):
    network = awake(make())
    args = inputs(network)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(network(*[a[order] for a in args]), network(*args)[order], rtol=1e-10, atol=1e-12)


@every_timed_network
def test_one_time_for_all_points(make):
    network = awake(make())
    x, _ = inputs(network)
    t = torch.tensor(0.3, dtype=torch.float64)
    torch.testing.assert_close(network(x, t), network(x, t.expand(len(x))), rtol=0, atol=0)


@every_timed_network
def test_near_times_give_different_outputs(make):
    network = awake(make())
    x, _ = inputs(network)
    first, second = (network(x, torch.tensor(t, dtype=torch.float64)).detach() for t in (0.50, 0.51))
    assert float((first - second).norm() / first.norm()) > 1e-3


def test_untrained_denoiser_answers_zero_and_learns_at_once():
    network, x = Denoiser(1), torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not network(x, torch.tensor(0.5)).any()
    (network(x, torch.tensor(0.5)) - x).pow(2).mean().backward()
    assert bool(network.last.weight.grad.any())


def test_denoiser_sees_the_whole_image():
    """One pixel of a 28 x 28 image can answer to every other, also through the convolutions alone (no norms)."""
    network = awake(Denoiser(1))
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda h: h
    x = torch.randn(1, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x, torch.tensor(0.5, dtype=torch.float64))[0, 0, 14, 14], x)
    rows, columns = (gradient[0, 0].abs().sum(axis) > 0 for axis in (1, 0))
    assert int(rows.sum()) == 28
    assert int(columns.sum()) == 28


def test_film_scales_and_shifts_after_the_norm():
    """Every group to mean 0 and variance 1, then (1 + a) h + b: a norm behind it would take most of that out again."""
    film = awake(FiLM(8, 3))
    h, time = torch.randn(2, 8, 5, 6, dtype=torch.float64) + 4, torch.randn(2, 3, dtype=torch.float64)
    groups = h.reshape(2, 4, 2 * 5 * 6)
    normed = (groups - groups.mean(2, keepdim=True)) / groups.std(2, correction=0, keepdim=True)
    scale, shift = film.scale_and_shift(time)[:, :, None, None].split(8, dim=1)
    expected = (1 + scale) * normed.reshape(h.shape) + shift
    torch.testing.assert_close(film(h, time), expected, rtol=1e-4, atol=1e-4)


def test_a_block_adds_to_what_it_gets():
    block = awake(Denoiser(1)).descent[0]
    torch.nn.init.zeros_(block.second.weight)
    torch.nn.init.zeros_(block.second.bias)
    h, time = torch.randn(2, 16, 6, 6, dtype=torch.float64), torch.zeros(2, 64, dtype=torch.float64)
    torch.testing.assert_close(block(h, time), h, rtol=0, atol=0)


def test_fine_detail_takes_the_short_way():
    """With nothing coming up from the coarse resolutions the output still depends on the image."""
    network = awake(Denoiser(2))
    for layer in network.up:
        torch.nn.init.zeros_(layer.weight)
    x, t = inputs(network)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x, t).pow(2).sum(), x)
    assert bool((gradient != 0).all())


@pytest.mark.parametrize("widths", [(), (12, 16), (0,), (16, -8)])
def test_denoiser_refuses_widths_that_groups_do_not_divide(widths):
    with pytest.raises(ValueError, match="widths"):
        Denoiser(1, widths)


def test_denoiser_size():
    count = sum(p.numel() for p in Denoiser().parameters())
    assert 50_000 < count < 300_000


# -- the time embedding ------------------------------------------------------------------------------------------------


def test_embedding_formula():
    t, dim = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64), 6
    frequencies = [1000 * 10_000 ** (-k / 2) for k in range(3)]
    expected = torch.stack([torch.cat([torch.sin(w * t)[:, None] for w in frequencies], 1)])[0]
    value = SinusoidalEmbedding(dim)(t)
    torch.testing.assert_close(value[:, :3], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(value[:, :3] ** 2 + value[:, 3:] ** 2, torch.ones(3, 3, dtype=torch.float64))


def test_embedding_tells_times_apart():
    """With t in [0, 1] as it is, nearly all features are constant: the circulating mistake (scale=1)."""
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    right, circulating = (SinusoidalEmbedding(64, scale=s)(t) for s in (1000.0, 1.0))

    def rank(features):
        values = torch.linalg.svdvals(features - features.mean(0))
        return int((values > 1e-2 * values[0]).sum())

    assert rank(right) > 25
    assert rank(circulating) < 6

    def nearest(features):
        return float((features[10:] - features[:-10]).norm(dim=1).min())  # t + 0.01 against t

    assert nearest(right) > 1.0
    assert nearest(circulating) < 0.1


@pytest.mark.parametrize("dim", [2, 5, 0, -4])
def test_embedding_refuses_odd_and_small_dimensions(dim):
    with pytest.raises(ValueError, match="dim"):
        SinusoidalEmbedding(dim)


def test_mlp_refuses_empty_layers():
    for options in ({"hidden": 0}, {"depth": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            MLP(2, **options)


def test_mlp_is_a_nonlinear_function_with_a_smooth_derivative():
    network = awake(MLP(3, hidden=16, depth=2))
    x, y = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x.requires_grad_()
    assert float((network(x) + network(y) - network(x + y) - network(0 * x)).detach().abs().max()) > 1e-3
    (slope,) = torch.autograd.grad(network(x)[:, 0].sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert bool((curvature != 0).all())
