"""Networks of latents, transformers and text: what they are at the start, what reaches what, what is refused."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from coursework.data import load
from coursework.data.captions import CAPTIONS, DIGITS, N_DESCRIPTIONS, describe, ink, slant
from coursework.latents import patchify
from coursework.nn import Autoencoder, CaptionedUNet, ControlNet, DiT, TextEncoder, Tokenizer, UNet
from coursework.nn.controlnet import edges
from coursework.nn.dit import TransformerBlock, places
from coursework.nn.text import PADDING, START, UNKNOWN, CrossAttention

TEXTS = ("a thin one, tilted", "a thick seven")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """In float64, with random parameters where it starts at zero too."""
    network = network.double()
    stream = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    return network


def captioned(**options) -> CaptionedUNet:
    options = {"widths": (8, 16), "attention_at": (4,), "features": 16, "word_features": 8, **options}
    return CaptionedUNet(8, 1, captions=TEXTS, **options)


def unet() -> UNet:
    return UNet(8, 1, widths=(8, 16), attention_at=(), features=16, n_classes=3)


# -- autoencoder -------------------------------------------------------------------------------------------------------


def test_an_autoencoder_goes_to_its_latents_and_back():
    network = awake(Autoencoder(12, 2, widths=(8, 16), latent_channels=3))
    x, noise = normal(5, 2, 12, 12), normal(5, 3, 3, 3, seed=1)
    decoded, mean, log_variance = network(x, noise)
    assert network.latent_shape == mean.shape[1:] == log_variance.shape[1:] == (3, 3, 3)
    torch.testing.assert_close(decoded, network.decode(mean + log_variance.exp().sqrt() * noise))
    network.scale.copy_(torch.tensor([0.5, 2.0, 4.0]))
    z = network.to_latent(x)
    for i, scale in enumerate((0.5, 2.0, 4.0)):
        torch.testing.assert_close(z[:, i], scale * mean[:, i])
    torch.testing.assert_close(network.to_image(z), network.decode(mean))
    again = Autoencoder(**network.configuration).double()
    again.load_state_dict(network.state_dict())  # the scale too
    torch.testing.assert_close(again.to_latent(x), z)


@pytest.mark.parametrize(("size", "widths"), [(10, (8, 16)), (2, (8, 16)), (8, (12,)), (8, ())])
def test_an_autoencoder_that_cannot_be_is_refused(size, widths):
    with pytest.raises(ValueError, match=r"^(image_size|widths): expected"):
        Autoencoder(size, widths=widths)


# -- transformer -------------------------------------------------------------------------------------------------------


def test_a_block_is_the_identity_at_first_and_later_not():
    block = TransformerBlock(16, 4).double()
    h, condition = normal(5, 7, 16), normal(5, 16, seed=1)
    assert torch.equal(block(h, condition), h)
    assert not torch.allclose(awake(block)(h, condition), h)


def test_a_block_is_its_formula():
    block = awake(TransformerBlock(8, 2))
    h, condition = normal(5, 3, 8), normal(5, 8, seed=1)
    parts = block.modulation(F.silu(condition)).reshape(5, 6, 1, 8).unbind(1)
    norm = (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    q, k, v = block.query_key_value((1 + parts[0]) * norm + parts[1]).split(8, dim=-1)
    seen = torch.cat(
        [(q[..., i : i + 4] @ k[..., i : i + 4].transpose(1, 2) / 2).softmax(-1) @ v[..., i : i + 4] for i in (0, 4)],
        -1,
    )
    first = h + parts[2] * block.out(seen)
    norm = (first - first.mean(-1, keepdim=True)) / (first.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = first + parts[5] * block.mlp((1 + parts[3]) * norm + parts[4])
    torch.testing.assert_close(block(h, condition), expected)


def test_a_dit_answers_zero_at_first_and_has_about_a_million_parameters():
    network = DiT(7, 4, n_classes=10)
    assert not network(torch.randn(2, 4, 7, 7), torch.tensor(0.5)).any()
    assert 0.8e6 < sum(p.numel() for p in network.parameters()) < 1.5e6


def test_without_places_a_dit_does_not_know_where_patches_are():
    """Exchanging patches exchanges the answers: only the places tell one from another."""
    network = awake(DiT(4, 2, patch_size=2, features=16, depth=2, n_classes=3))
    x, t, label = normal(5, 2, 4, 4), torch.linspace(0.1, 0.9, 5).double(), torch.tensor([0, 1, 2, -1, 0])
    swapped = torch.cat([x[..., 2:], x[..., :2]], -1)
    order = [1, 0, 3, 2]
    told = patchify(network(swapped, t, label), 2)
    assert not torch.allclose(told[:, order], patchify(network(x, t, label), 2))
    network.places.zero_()
    told = patchify(network(swapped, t, label), 2)
    torch.testing.assert_close(told[:, order], patchify(network(x, t, label), 2))


def test_every_place_has_a_vector_of_its_own():
    vectors = places(7, 16)
    assert float(torch.cdist(vectors, vectors).add(torch.eye(49) * 9).min()) > 0.1
    assert torch.equal(vectors[:7, :8], vectors[:1, :8].expand(7, -1))  # the first row


def test_time_and_label_reach_a_dit():
    network = awake(DiT(4, 2, features=16, depth=1, n_classes=3))
    x, t = normal(1, 2, 4, 4), torch.tensor(0.5).double()
    answers = [network(x, t), network(x, t + 0.1), *(network(x, t, torch.tensor([i])) for i in range(3))]
    for i, one in enumerate(answers):
        assert all(not torch.allclose(one, other) for other in answers[:i])
    torch.testing.assert_close(network(x, t, torch.tensor([-1])), answers[0])
    with pytest.raises(ValueError, match=r"^label: expected -1 to 2"):
        network(x, t, torch.tensor([3]))


# -- text --------------------------------------------------------------------------------------------------------------


def test_tokens_are_words_and_go_back():
    tokenizer = Tokenizer(TEXTS)
    tokens = tokenizer.encode([*TEXTS, "", "a fat one"])
    assert tokens.shape == (4, 6)
    assert tokens[2].tolist() == [START, *[PADDING] * 5]
    assert int(tokens[3, 2]) == UNKNOWN
    assert tokenizer.decode(tokens) == ["a thin one , tilted", "a thick seven", "", "a <unknown> one"]
    with pytest.raises(ValueError, match="texts: expected at most 5 words"):
        tokenizer.encode(["a b c d e f"])
    with pytest.raises(TypeError, match="texts: expected a list"):
        tokenizer.encode("a thin one")


def test_padding_says_nothing():
    encoder = awake(TextEncoder(9, 6, 8, 2))
    tokens = torch.tensor([[START, 4, 5, PADDING, PADDING, PADDING]])
    before = encoder(tokens)[:, :3]
    with torch.no_grad():
        encoder.place[3:] += 1
        encoder.word.weight[PADDING] += 1
    torch.testing.assert_close(encoder(tokens)[:, :3], before)
    layer = awake(CrossAttention(8, 8, 2))
    h, words = normal(1, 8, 3, 3), normal(1, 6, 8, seed=1)
    value, weights = layer.look(h, words, tokens)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 9, dtype=torch.float64))
    assert not weights[..., 3:].any()
    words[:, 3:] += 1
    torch.testing.assert_close(layer.look(h, words, tokens)[0], value)


def test_cross_attention_is_its_formula_and_adds_nothing_at_first():
    layer = CrossAttention(8, 4, 2).double()
    h, words, tokens = normal(2, 8, 3, 2), normal(2, 5, 4, seed=1), torch.ones(2, 5, dtype=torch.long)
    assert torch.equal(layer(h, words, tokens), h)
    layer = awake(layer)
    q = layer.query(layer.norm(h)).flatten(2).transpose(1, 2)
    k, v = layer.key_value(words).split(8, dim=-1)
    parts = [
        (q[..., i : i + 4] @ k[..., i : i + 4].transpose(1, 2) / 2).softmax(-1) @ v[..., i : i + 4] for i in (0, 4)
    ]
    expected = h + layer.out(torch.cat(parts, -1).transpose(1, 2).reshape(h.shape))
    torch.testing.assert_close(layer(h, words, tokens), expected)


def test_a_caption_can_be_given_by_its_number_or_its_words():
    network = awake(captioned())
    x, t = normal(2, 1, 8, 8), torch.tensor(0.5).double()
    by_number = network(x, t, torch.tensor([1, -1]))
    torch.testing.assert_close(network(x, t, network.tokenizer.encode([TEXTS[1], ""])), by_number)
    torch.testing.assert_close(network(x, t)[1], by_number[1])
    assert not torch.allclose(network(x, t)[0], by_number[0])
    other = network(x, t, network.tokenizer.encode(["a thick one", ""]))
    assert not torch.allclose(other[0], by_number[0])
    for label in (torch.tensor([2, 0]), torch.tensor([[1, 2, 3], [1, 2, 3]]), torch.tensor([0, 0, 0])):
        with pytest.raises(ValueError, match=r"^label: expected"):
            network(x, t, label)


def test_a_captioned_unet_is_made_again_by_its_configuration():
    network = awake(captioned())
    again = CaptionedUNet(**network.configuration).double()
    again.load_state_dict(network.state_dict())
    x, t = normal(2, 1, 8, 8), torch.tensor(0.5).double()
    torch.testing.assert_close(again(x, t, torch.tensor([0, 1])), network(x, t, torch.tensor([0, 1])))
    with pytest.raises(ValueError, match=r"^n_classes: expected None"):
        captioned(n_classes=3)


# -- control -----------------------------------------------------------------------------------------------------------


def test_a_control_changes_nothing_at_first_and_the_hint_reaches_the_answer_later():
    network = awake(unet())
    control = ControlNet(network).double()
    x, t, label, hint = (
        normal(5, 1, 8, 8),
        torch.linspace(0.1, 0.9, 5).double(),
        torch.arange(5) % 3,
        normal(5, 1, 8, 8),
    )
    torch.testing.assert_close(control(x, t, label, hint=hint), network(x, t, label))
    stream = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in control.trained():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    value = control.told(hint)(x, t, label)
    assert not torch.allclose(value, control(x, t, label, hint=hint + 1))
    for mine, its in zip(control.network.parameters(), network.parameters(), strict=True):
        assert torch.equal(mine, its)
    with pytest.raises(ValueError, match=r"^hint: expected shape"):
        control(x, t, label, hint=hint[:3])


def test_only_the_copy_and_its_convolutions_are_trained():
    """After one step the gradients reach the zero convolutions, after another the copy, never the frozen network."""
    control = ControlNet(awake(unet())).double()
    x, hint, t = normal(5, 1, 8, 8), normal(5, 1, 8, 8, seed=1), torch.tensor(0.5).double()
    optimizer = torch.optim.SGD(control.trained(), lr=0.1)
    before = [p.clone() for p in control.network.parameters()]
    reached = []
    for _ in range(3):
        (control(x, t, hint=hint) - x).square().mean().backward()
        reached.append(bool(control.copy.stem.weight.grad.any()))
        optimizer.step()
        optimizer.zero_grad()
    assert reached == [False, True, True]
    assert all(map(torch.equal, before, control.network.parameters()))


def test_edges_of_a_ramp_are_its_slope():
    x = torch.arange(6.0).expand(1, 1, 6, 6)
    assert torch.equal(edges(3 * x)[..., 1:-1, 1:-1], torch.full((1, 1, 4, 4), 3.0))
    assert torch.equal(edges(x.mT)[..., 1:-1, 1:-1], torch.ones(1, 1, 4, 4))
    assert not edges(torch.ones(1, 1, 4, 4)).any()


# -- captions ----------------------------------------------------------------------------------------------------------


def test_slant_and_ink_are_moments():
    height, width = 8, 8
    image = -torch.ones(3, 1, height, width)
    for i in range(1, 7):
        image[0, 0, 7 - i, i] = 1.0  # up to the right: slope 1
        image[1, 0, i, i] = 1.0  # up to the left
        image[2, 0, i, 3] = 1.0  # upright
    torch.testing.assert_close(slant(image), torch.tensor([1.0, -1.0, 0.0]))
    torch.testing.assert_close(ink(image), torch.full((3,), 6 / 64))
    assert not slant(-torch.ones(2, 1, 8, 8)).any()


def test_captions_tell_the_digit_and_what_was_measured():
    data = load("digits")
    number = describe(data.images, data.labels)
    assert torch.equal(number // N_DESCRIPTIONS, data.labels)
    assert int(number.bincount(minlength=len(CAPTIONS)).min()) >= 5
    for i in (0, 500, 1000):
        assert DIGITS[int(data.labels[i])] in CAPTIONS[int(number[i])].replace(",", "").split()
    sevens = data.labels == 7
    for words, value in ((("backward", "straight", "tilted"), slant), (("thin", "medium", "thick"), ink)):
        measured = value(data.images[sevens])
        means = [
            float(measured[torch.tensor([word in CAPTIONS[i] for i in number[sevens].tolist()])].mean())
            for word in words
        ]
        assert means == sorted(means)
    assert torch.equal(describe(data.images[:7], data.labels[:7]), number[:7])


# -- devices -----------------------------------------------------------------------------------------------------------


@pytest.mark.needs("gpu")
def test_on_the_gpu():
    def on(device: str) -> list[Tensor]:
        torch.manual_seed(0)  # the networks' first weights
        given = normal(4, 1, 8, 8), torch.linspace(0.1, 0.9, 4).double(), torch.tensor([0, 1, 2, 0])
        x, t, label = (value.to(device) for value in given)
        control = awake(ControlNet(awake(unet()))).to(device)
        dit = awake(DiT(8, 1, patch_size=2, features=16, depth=2, n_classes=3)).to(device)
        parts = awake(Autoencoder(8, widths=(8, 16), latent_channels=2)).to(device)
        return [
            control(x, t, label, hint=edges(x)),
            dit(x, t, label),
            parts.to_image(parts.to_latent(x)),
            awake(captioned()).to(device)(x, t, label % len(TEXTS)),
        ]

    for here, there in zip(on("cpu"), on("cuda"), strict=True):
        assert there.device.type == "cuda"
        torch.testing.assert_close(there.cpu(), here, rtol=1e-8, atol=1e-8)
