"""Networks: shapes, what reaches the output, where gradients go, and whether times can be told apart."""

import pytest
import torch
from torch.nn import functional as F

from coursework.nn import (
    MLP,
    Classifier,
    Denoiser,
    RandomFourierEmbedding,
    ScaledInput,
    SinusoidalEmbedding,
    TimeMLP,
    UNet,
)
from coursework.nn.blocks import FiLM, ResidualBlock, SelfAttention
from coursework.nn.unet import resolutions
from coursework.sdes import VESDE, VPSDE

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
    shape = (n, *network.image_shape) if isinstance(network, UNet) else shape
    x = torch.randn(shape, generator=stream, dtype=torch.float64)
    t = torch.linspace(0.05, 0.95, n, dtype=torch.float64)
    return (x,) if isinstance(network, MLP) else (x, t)


NETWORKS = {
    "MLP": lambda: MLP(3, hidden=16, depth=2),
    "TimeMLP": lambda: TimeMLP(3, hidden=16, depth=2),
    "Denoiser": lambda: Denoiser(2),
    "Denoiser of one level": lambda: Denoiser(2, widths=(16,)),
    "Denoiser of four levels": lambda: Denoiser(2, widths=(8, 16, 16, 24)),
    "UNet": lambda: unet(),
    "UNet with attention": lambda: unet(attention_at=(9, 5, 3)),
    "UNet of two blocks": lambda: unet(n_blocks=2, attention_at=(5,), embedding="fourier"),
    "UNet of one level": lambda: unet(widths=(8,)),
}


def unet(size: int = 9, channels: int = 2, **options) -> UNet:
    """A small one."""
    return UNet(size, channels, **{"widths": (8, 16, 16), "attention_at": (), "features": 16, **options})


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


# -- the U-Net ---------------------------------------------------------------------------------------------------------


def labelled(**options):
    network = awake(unet(n_classes=4, **options))
    return network, inputs(network), torch.tensor([0, 3, -1, 2, 1])


@pytest.mark.parametrize("size", [8, 9, 28, 31, 64])
def test_unet_keeps_odd_and_even_sizes_with_attention_everywhere(size):
    sizes = resolutions(size, 3)
    network = awake(unet(size, 1, attention_at=tuple(s for s in sizes if s < 20)))
    x = torch.randn(2, 1, size, size, dtype=torch.float64)
    value = network(x, torch.tensor(0.5, dtype=torch.float64))
    assert value.shape == x.shape
    assert bool((value != 0).all())


def test_resolutions_are_halved_and_rounded_up():
    assert resolutions(28, 4) == [28, 14, 7, 4]
    assert resolutions(31, 3) == [31, 16, 8]


@pytest.mark.parametrize("asked", [(), (7,), (28, 7), (14, 7)])
def test_attention_sits_where_it_was_asked_for(asked):
    """By the sizes of the maps that attention really gets; at the coarsest resolution also in the middle."""
    network, seen = unet(28, 1, attention_at=asked), []
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[-1]))
    network(torch.zeros(1, 1, 28, 28), torch.tensor(0.5))
    expected = {size: 2 + (size == 7) for size in asked}
    assert {size: seen.count(size) for size in set(seen)} == expected


@torch.no_grad()
def test_every_label_changes_its_own_output_only():
    network, (x, t), label = labelled()
    base = network(x, t, label)
    other = network(x, t, torch.tensor([0, 3, -1, 2, 3]))
    assert torch.equal(base[:4], other[:4])
    assert float((base[4] - other[4]).abs().min()) > 0
    outputs = torch.stack([network(x[:1], t[:1], torch.tensor([k]))[0] for k in range(-1, 4)])
    assert float(torch.pdist(outputs.flatten(1)).min()) > 1e-2


def test_no_label_is_the_null_label_and_learns():
    network, (x, t), _ = labelled()
    torch.testing.assert_close(network(x, t), network(x, t, torch.full((5,), -1)), rtol=0, atol=0)
    network(x, t).pow(2).sum().backward()
    rows = network.label.weight.grad.abs().sum(1)
    assert rows[:4].tolist() == [0] * 4
    assert float(rows[4]) > 0


def test_permuting_a_labelled_batch_permutes_the_output():
    network, (x, t), label = labelled(attention_at=(5,))
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(
        network(x[order], t[order], label[order]), network(x, t, label)[order], rtol=1e-10, atol=1e-12
    )


def test_every_skip_connection_carries_something():
    """With the partner's part of a block's input cut off, the output changes: at every block, on the right level."""
    network, (x, t), label = labelled(n_blocks=2)
    base = network(x, t, label)
    for levels, width in zip(network.ascent, (8, 16, 16), strict=True):
        for level in levels:
            with torch.no_grad():
                kept = level.block.project.weight.clone(), level.block.first.weight.clone()
                level.block.project.weight[:, width:] = 0
                level.block.first.weight[:, width:] = 0
                assert float((network(x, t, label) - base).abs().max()) > 1e-6
                level.block.project.weight.copy_(kept[0])
                level.block.first.weight.copy_(kept[1])
    assert torch.equal(network(x, t, label), base)


def test_a_second_time_changes_nothing_at_first_and_reaches_every_image_then():
    one, two = unet(n_classes=3), unet(n_classes=3, two_times=True)
    two.load_state_dict(one.state_dict(), strict=False)
    generator = torch.Generator().manual_seed(2)
    for network in (one, two):
        for parameter in network.last.parameters():
            parameter.data.fill_(0.1)
    x, t, label = torch.randn(3, 2, 9, 9, generator=generator), torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0, -1, 2])
    s = torch.tensor([0.1, 0.2, 0.1])
    torch.testing.assert_close(two(x, t, label, s), one(x, t, label))
    two.embed_second[-1].weight.data.normal_(generator=generator)
    changed = (two(x, t, label, s) - two(x, t, label, torch.tensor(0.1))).flatten(1).abs().amax(1)
    assert (changed > 1e-4).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"^s: this network was made with a second time"):
        two(x, t, label)
    with pytest.raises(ValueError, match=r"^s: this network was made without a second time"):
        one(x, t, label, s)


def test_untrained_unet_answers_zero_and_its_configuration_makes_another():
    network = UNet(28, 3, widths=(8, 16), attention_at=(14,), heads=2, n_classes=5, embedding="fourier", features=32)
    assert not network(torch.randn(2, 3, 28, 28), torch.tensor([0.1, 0.9]), torch.tensor([4, -1])).any()
    twin = UNet(**network.configuration)
    assert twin.configuration == network.configuration
    assert {k: v.shape for k, v in twin.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_self_attention_is_its_formula():
    """Against softmax(q k^T / sqrt(d)) v written out for every head and pixel."""
    layer = awake(SelfAttention(8, heads=2))
    h = torch.randn(3, 8, 2, 5, dtype=torch.float64)
    q, k, v = layer.query_key_value(layer.norm(h)).chunk(3, 1)
    out = torch.zeros(3, 8, 10, dtype=torch.float64)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        a, b, c = (m.flatten(2)[:, part].mT for m in (q, k, v))
        weights = torch.softmax(a @ b.mT / 4**0.5, dim=-1)
        out[:, part] = (weights @ c).mT
    expected = h + layer.out(out.reshape(3, 8, 2, 5))
    torch.testing.assert_close(layer(h), expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(SelfAttention(8, heads=2)(h.float()), h.float()), "at first nothing is added"


def test_residual_block_between_widths_projects():
    block = awake(ResidualBlock(8, 16, 24))
    torch.nn.init.zeros_(block.second.weight)
    torch.nn.init.zeros_(block.second.bias)
    h, time = torch.randn(2, 8, 6, 6, dtype=torch.float64), torch.zeros(2, 16, dtype=torch.float64)
    expected = torch.einsum("oi,bihw->bohw", block.project.weight[:, :, 0, 0], h)
    torch.testing.assert_close(block(h, time), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("way", ["channels last", "bfloat16", "traced by torch.compile"])
def test_other_ways_of_computing_agree(way):
    """Channels-last and a traced graph to rounding; bfloat16, with 8 bits, to 3% of the output's size."""
    network = awake(unet(14, 1, widths=(16, 32), attention_at=(7,), n_classes=4)).float()
    x, t, label = torch.randn(6, 1, 14, 14), torch.linspace(0, 1, 6), torch.tensor([0, 1, 2, 3, -1, 2])
    expected = network(x, t, label).detach()
    if way == "channels last":
        network = network.to(memory_format=torch.channels_last)
        got = network(x.to(memory_format=torch.channels_last), t, label)
    elif way == "bfloat16":
        with torch.autocast("cpu", torch.bfloat16):
            got = network(x, t, label).float()
    else:
        got = torch.compile(network, backend="aot_eager", fullgraph=True)(x, t, label)
    error = (got.detach() - expected).norm() / expected.norm()
    assert float(error) < (3e-2 if way == "bfloat16" else 1e-5)
    assert (float(error) > 1e-4) == (way == "bfloat16")


@pytest.mark.needs("gpu")
def test_compiled_in_bfloat16_and_channels_last_on_the_gpu():
    network = awake(unet(28, 1, widths=(32, 64, 64), attention_at=(7,), n_classes=10)).float().cuda()
    x, t, label = torch.randn(6, 1, 28, 28).cuda(), torch.linspace(0, 1, 6).cuda(), torch.arange(6).cuda()
    expected = network(x, t, label)
    compiled = torch.compile(network.to(memory_format=torch.channels_last), fullgraph=True)
    with torch.autocast("cuda", torch.bfloat16):
        got = compiled(x.to(memory_format=torch.channels_last), t, label).float()
    assert float((got - expected).norm() / expected.norm()) < 3e-2


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: unet(widths=()), r"^widths: expected positive multiples of 8 and of heads=4, got \(\)"),
        (lambda: unet(widths=(8, 20)), r"^widths"),
        (lambda: unet(widths=(8, 16), heads=5), r"^widths: .* heads=5"),
        (lambda: unet(28, attention_at=(8,)), r"^attention_at: expected resolutions among \[28, 14, 7\], got \(8,\)"),
        (lambda: unet(embedding="learned"), r"^embedding: expected one of 'sinusoidal', 'fourier'"),
        (lambda: unet(n_blocks=0), r"^n_blocks: expected at least 1"),
        (lambda: unet(n_classes=0), r"^n_classes: expected at least 1"),
        (lambda: call(unet(), size=8), r"^x: expected shape \(B, 2, 9, 9\), got \(3, 2, 8, 8\)"),
        (lambda: call(unet(), [0, 1, 2]), r"^label: this network was made without classes"),
        (lambda: call(unet(n_classes=4), [0, 4, 2]), r"^label: expected -1 to 3, got 0 to 4"),
        (lambda: call(unet(n_classes=4), [0, -2, 2]), r"^label: expected -1 to 3"),
        (lambda: call(unet(n_classes=4), [0, 1]), r"^label: expected one or \(3,\), got \(2,\)"),
        (lambda: call(unet(n_classes=4), [0.0, 1.0, 2.0]), r"^label: expected integers, got torch.float32"),
        (lambda: Classifier(1), r"^n_classes: expected at least 2"),
        (lambda: Classifier(3, widths=(12,)), r"^widths: expected positive multiples of 8"),
        (lambda: RandomFourierEmbedding(5), r"^dim: expected an even number"),
    ],
)
def test_refusals(call, match):
    with pytest.raises((ValueError, TypeError), match=match):
        call()


def call(network, label=None, size=9):
    return network(torch.zeros(3, 2, size, size), torch.tensor(0.5), None if label is None else torch.tensor(label))


def test_scaled_input_has_unit_variance_at_every_level(generator):
    """For data of unit variance; at level sigma the wrapped network sees x / sqrt(1 + sigma^2)."""
    seen, sde = [], VESDE(0.01, 40.0)
    wrapped = ScaledInput(lambda x, t, label: seen.append((x, t, label)), sde)
    t = torch.linspace(0, 1, 5).double()
    x0 = torch.randn(5, 1, 60, 60, generator=generator, dtype=torch.float64)
    x = sde.perturb(x0, t, torch.randn(x0.shape, generator=generator, dtype=torch.float64))
    wrapped(x, t, None)
    torch.testing.assert_close(seen[0][0], x / (1 + sde.sigma(t) ** 2).sqrt()[:, None, None, None])
    assert float((seen[0][0].std((1, 2, 3)) - 1).abs().max()) < 0.06
    assert torch.equal(seen[0][1], t)
    ScaledInput(lambda x, t, label: seen.append((x, t, label)), VPSDE())(x, t, "label")
    torch.testing.assert_close(seen[1][0], x, rtol=1e-12, atol=0)
    assert seen[1][2] == "label"


# -- the classifier ----------------------------------------------------------------------------------------------------


def test_classifier_sees_every_pixel_and_its_head_sees_the_features():
    network = awake(Classifier(4, 2, widths=(8, 16)))
    x = torch.randn(5, 2, 9, 7, dtype=torch.float64, requires_grad=True)
    logits = network(x)
    assert logits.shape == (5, 4)
    (gradient,) = torch.autograd.grad(logits[2].pow(2).sum(), x)
    assert bool((gradient[2] != 0).all())
    assert not gradient[[0, 1, 3, 4]].any()
    normalised = []
    with network.norm.register_forward_hook(lambda module, inputs, output: normalised.append(output)):
        features = network.features(x)
    torch.testing.assert_close(features, F.silu(normalised[0]).flatten(2).mean(2))
    torch.testing.assert_close(logits, features @ network.head.weight.T + network.head.bias)
    network(x).pow(2).sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in network.parameters())
    assert Classifier(**network.configuration).configuration == network.configuration


# -- the time embedding ------------------------------------------------------------------------------------------------


def test_embedding_formula():
    t, dim = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64), 6
    frequencies = [1000 * 10_000 ** (-k / 2) for k in range(3)]
    expected = torch.stack([torch.cat([torch.sin(w * t)[:, None] for w in frequencies], 1)])[0]
    value = SinusoidalEmbedding(dim).double()(t)
    torch.testing.assert_close(value[:, :3], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(value[:, :3] ** 2 + value[:, 3:] ** 2, torch.ones(3, 3, dtype=torch.float64))


def test_random_fourier_features_are_their_formula_and_their_kernel_is_gaussian():
    """Mean over k of cos(2 pi w_k (t - t')) = exp(-2 pi^2 scale^2 (t - t')^2) for w ~ N(0, scale^2)."""
    embed, t = RandomFourierEmbedding(4000, scale=2.0, seed=3).double(), torch.linspace(0, 0.2, 5, dtype=torch.float64)
    angles = 2 * torch.pi * t[:, None] * embed.frequencies.double()
    torch.testing.assert_close(embed(t), torch.cat([angles.sin(), angles.cos()], 1))
    kernel = embed(t) @ embed(t).T / 2000
    expected = torch.exp(-2 * torch.pi**2 * 4 * (t[:, None] - t) ** 2)
    assert float((kernel - expected).abs().max()) < 4 / 2000**0.5
    assert torch.equal(embed.float().frequencies, RandomFourierEmbedding(4000, scale=2.0, seed=3).frequencies)
    assert not torch.equal(embed.frequencies, RandomFourierEmbedding(4000, scale=2.0, seed=4).frequencies)
    assert "frequencies" in embed.state_dict()


def test_embedding_tells_times_apart():
    """With t in [0, 1] as it is, nearly all features are constant: the circulating mistake (scale=1)."""
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    right, circulating = (SinusoidalEmbedding(64, scale=s)(t) for s in (1000.0, 1.0))
    fourier = RandomFourierEmbedding(64)(t)

    def rank(features):
        values = torch.linalg.svdvals(features - features.mean(0))
        return int((values > 1e-2 * values[0]).sum())

    assert rank(right) > 25
    assert rank(fourier) > 25
    assert rank(circulating) < 6

    def nearest(features):
        return float((features[10:] - features[:-10]).norm(dim=1).min())  # t + 0.01 against t

    assert nearest(right) > 1.0
    assert nearest(fourier) > 1.0
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


def test_features_of_a_time_in_half_precision_and_of_an_index(generator):
    """A half-precision network keeps exact frequencies (up to 1000 radians); indices are numbers, not truncations."""
    t = torch.rand(50, generator=generator)
    exact = SinusoidalEmbedding(32)(t)
    for dtype, rounding in ((torch.bfloat16, 4e-3), (torch.float16, 5e-4)):
        torch.testing.assert_close(SinusoidalEmbedding(32).to(dtype)(t).float(), exact, rtol=0, atol=rounding)
    i = torch.tensor([0, 1, 2, 999])
    torch.testing.assert_close(SinusoidalEmbedding(8, scale=1.0)(i), SinusoidalEmbedding(8, scale=1.0)(i.float()))
    torch.testing.assert_close(RandomFourierEmbedding(8)(i), RandomFourierEmbedding(8)(i.float()))
