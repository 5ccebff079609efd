"""Latents: closed forms of the linear autoencoder, the scale, the projected model, patches, attention, ranks."""

import math

import pytest
import torch
from torch import Tensor

from coursework.distributions import GaussianMixture, exact_score
from coursework.latents import (
    attention,
    best_of_rank,
    decode,
    empirical_denoiser,
    encode,
    gaussian_kl,
    linear_posterior,
    linear_vae,
    patchify,
    principal_axes,
    projected_score,
    scale_factor,
    unpatchify,
    vae_loss,
    vae_losses,
)
from coursework.predictions import tweedie
from coursework.sdes import VESDE, VPSDE

EIGENVALUES = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25], dtype=torch.float64)
D = len(EIGENVALUES)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(n: int = D) -> Tensor:
    return torch.linalg.qr(normal(n, n, seed=5))[0]


@pytest.fixture
def covariance() -> Tensor:
    u = rotation()
    return (u * EIGENVALUES) @ u.T


# -- the linear autoencoder --------------------------------------------------------------------------------------------


def test_principal_axes_are_those_that_the_covariance_was_made_of(covariance):
    values, axes = principal_axes(covariance)
    torch.testing.assert_close(values, EIGENVALUES)
    torch.testing.assert_close((axes.T @ rotation()).abs(), torch.eye(D, dtype=torch.float64), atol=1e-12, rtol=0)


def test_the_noise_variance_is_the_mean_of_what_is_left_out(covariance):
    loadings, variance = linear_vae(covariance, 2)
    assert float(variance) == pytest.approx(7 / 12, rel=1e-12)
    lengths = loadings.square().sum(0)
    torch.testing.assert_close(lengths, torch.tensor([4 - 7 / 12, 2 - 7 / 12], dtype=torch.float64))
    assert float((loadings[:, 0] @ loadings[:, 1]).abs()) < 1e-12


def test_the_kept_directions_have_the_datas_variance(covariance):
    loadings, variance = linear_vae(covariance, 3)
    model = loadings @ loadings.T + variance * torch.eye(D, dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.eigvalsh(model).flip(0)[:3], EIGENVALUES[:3])
    assert float(model.trace()) == pytest.approx(float(EIGENVALUES.sum()))


def likelihood(covariance: Tensor, loadings: Tensor, variance: Tensor) -> Tensor:
    """E log N(x; 0, W W^T + s^2 I) over data of this covariance."""
    model = loadings @ loadings.T + variance * torch.eye(len(covariance), dtype=torch.float64)
    inside = torch.linalg.solve(model, covariance).trace()
    return -0.5 * (len(covariance) * math.log(2 * math.pi) + torch.logdet(model) + inside)


def test_no_other_loadings_and_noise_are_more_likely(covariance):
    loadings, variance = linear_vae(covariance, 2)
    w, log_s2 = loadings.clone().requires_grad_(), variance.log().clone().requires_grad_()
    value = likelihood(covariance, w, log_s2.exp())
    gradients = torch.autograd.grad(value, (w, log_s2))
    assert max(float(g.abs().max()) for g in gradients) < 1e-10
    for seed in range(20):
        moved = loadings + 0.1 * normal(D, 2, seed=seed), variance * (1 + 0.1 * float(normal(1, seed=50 + seed)))
        assert likelihood(covariance, *moved) < value


def test_modes_below_the_noise_collapse(covariance):
    loadings, variance = linear_vae(covariance, 5, noise_variance=7 / 12)
    expected = torch.tensor([4 - 7 / 12, 2 - 7 / 12, 1 - 7 / 12, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(loadings.square().sum(0), expected)
    # a collapsed latent is the prior's, whatever x is
    z, law = linear_posterior(normal(7, D), torch.zeros(D, dtype=torch.float64), loadings, variance)
    assert float(z[:, 3:].abs().max()) < 1e-12
    torch.testing.assert_close(law.diagonal()[3:], torch.ones(2, dtype=torch.float64))
    # and any other length of it is less likely
    value = likelihood(covariance, loadings, variance)
    _, axes = principal_axes(covariance)
    for length in (0.1, 0.3):
        other = torch.cat([loadings[:, :3], length * axes[:, 3:4]], 1)
        assert likelihood(covariance, other, variance) < value


def test_the_encoder_is_the_conditional_law_of_the_joint_gaussian(covariance):
    loadings, variance = linear_vae(covariance, 2)
    mean, x = normal(D, seed=8), normal(7, D)
    joint = loadings @ loadings.T + variance * torch.eye(D, dtype=torch.float64)  # of x; cov(z, x) = W^T
    gain = torch.linalg.solve(joint, loadings).T
    z, law = linear_posterior(x, mean, loadings, variance)
    torch.testing.assert_close(z, (x - mean) @ gain.T)
    torch.testing.assert_close(law, torch.eye(2, dtype=torch.float64) - gain @ loadings)


# -- the objective -----------------------------------------------------------------------------------------------------


def test_kl_is_torchs(covariance):
    mean, log_variance = normal(7, 3), normal(7, 3, seed=1)
    ours = torch.distributions.Normal(mean, log_variance.mul(0.5).exp())
    unit = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(gaussian_kl(mean, log_variance), torch.distributions.kl_divergence(ours, unit).sum(1))


def test_kl_of_nearly_the_prior_keeps_its_digits():
    tiny = torch.full((2, 1), 1e-6)
    torch.testing.assert_close(gaussian_kl(0 * tiny, tiny), torch.full((2,), 0.25e-12), rtol=0.2, atol=0)


def test_the_loss_is_its_formula_on_the_same_noise():
    x, mean, log_variance, noise = normal(7, 2, 3), normal(7, 4, seed=1), normal(7, 4, seed=2), normal(7, 4, seed=3)
    matrix = normal(4, 6, seed=4)
    loss = vae_loss(lambda z: (z @ matrix).reshape(-1, 2, 3), x, mean, log_variance, kl_weight=0.3, noise=noise)
    expected = 0.0
    for i in range(7):
        z = mean[i] + log_variance[i].exp().sqrt() * noise[i]
        kl = sum(0.5 * (m**2 + v.exp() - 1 - v) for m, v in zip(mean[i], log_variance[i], strict=True))
        expected += 0.5 * ((z @ matrix) - x[i].flatten()).square().sum() + 0.3 * kl
    torch.testing.assert_close(loss, expected / 7)
    decoded = ((mean + log_variance.exp().sqrt() * noise) @ matrix).reshape(-1, 2, 3)
    torch.testing.assert_close(vae_losses(decoded, x, mean, log_variance, kl_weight=0.3).mean(), loss)


def test_at_the_best_encoder_the_loss_is_the_evidence(covariance):
    """With the weight s^2, loss / s^2 + D/2 log(2 pi s^2) = -log p(x) on average, and p's encoder has no gap."""
    loadings, variance = linear_vae(covariance, 2)
    n, s2 = 40_000, float(variance)
    x = GaussianMixture(torch.zeros(1, D, dtype=torch.float64), covariance[None]).sample(
        n, generator=torch.Generator().manual_seed(1)
    )
    z, law = linear_posterior(x, torch.zeros(D, dtype=torch.float64), loadings, variance)
    assert float((law - law.diag().diag()).abs().max()) < 1e-12  # the columns of W are orthogonal
    log_variance = law.diagonal().log().expand(n, -1)
    noise = normal(n, 2, seed=2)
    value = z + log_variance.mul(0.5).exp() * noise
    bound = vae_losses(value @ loadings.T, x, z, log_variance, kl_weight=s2) / s2 + D / 2 * math.log(2 * math.pi * s2)
    difference = bound + GaussianMixture(
        torch.zeros(1, D, dtype=torch.float64), (loadings @ loadings.T + variance * torch.eye(D))[None]
    ).log_prob(x)
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / math.sqrt(n)
    assert float(difference.std()) / math.sqrt(n) < 0.02


# -- the scale ---------------------------------------------------------------------------------------------------------


def test_scaled_latents_have_unit_variance_and_come_back():
    z = torch.tensor([3.0, 0.2], dtype=torch.float64)[:, None, None] * normal(50, 2, 3, 3) + 4
    one, each = scale_factor(z), scale_factor(z, per_channel=True)
    assert one.shape == ()
    assert each.shape == (2,)
    assert float((one * z).std(correction=0)) == pytest.approx(1)
    torch.testing.assert_close(
        (each[:, None, None] * z).movedim(1, 0).flatten(1).std(1, correction=0), torch.ones(2, dtype=torch.float64)
    )
    matrix = rotation(9)
    for scale in (one, each, 0.18215):
        seen = encode(lambda x: (x.flatten(2) @ matrix).reshape(x.shape), z, scale)
        back = decode(lambda y: (y.flatten(2) @ matrix.T).reshape(y.shape), seen, scale)
        torch.testing.assert_close(back, z)
    torch.testing.assert_close(encode(lambda x: x, z, each)[:, 1], each[1] * z[:, 1])


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, torch.ones(3), torch.tensor([1.0, 0.0])])
def test_a_scale_that_is_none_is_refused(scale):
    for function in (encode, decode):
        with pytest.raises(ValueError, match=r"^scale: "):
            function(lambda x: x, normal(5, 2, 3, 3), scale)


def test_latents_that_do_not_vary_have_no_scale():
    z = normal(5, 2, 3, 3)
    z[:, 1] = 2.0
    assert float(scale_factor(z)) > 0
    with pytest.raises(ValueError, match=r"^z: expected latents that vary"):
        scale_factor(z, per_channel=True)


# -- a subspace --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()])
def test_diffusion_in_the_pca_space_is_the_projected_model(covariance, sde):
    mean = normal(D, seed=8)
    data = GaussianMixture(mean[None], covariance[None])
    _, axes = principal_axes(covariance)
    u = axes[:, :2]
    projected = GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), torch.diag(EIGENVALUES[:2])[None])

    def score(x: Tensor, t: Tensor) -> Tensor:
        return data.diffuse(sde.alpha(t), sde.sigma(t)).score(x)

    z = normal(7, 2, seed=9)
    for t in (0.1, 0.9):
        time = torch.tensor(t, dtype=torch.float64)
        expected = projected.diffuse(sde.alpha(time), sde.sigma(time)).score(z)
        torch.testing.assert_close(projected_score(score, sde, u, mean)(z, time), expected)


def test_axes_that_are_not_orthonormal_are_refused():
    for axes in (2 * rotation()[:, :2], normal(D, 2), rotation()[0]):
        with pytest.raises(ValueError, match=r"^axes: expected"):
            projected_score(lambda x, t: x, VPSDE(), axes, torch.zeros(D, dtype=torch.float64))


# -- transformers ------------------------------------------------------------------------------------------------------


def test_patches_stand_row_by_row_and_go_back():
    x = normal(5, 3, 4, 6)
    tokens = patchify(x, 2)
    assert tokens.shape == (5, 6, 12)
    for row in range(2):
        for column in range(3):
            patch = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(tokens[:, 3 * row + column], patch.flatten(1))
    assert torch.equal(unpatchify(tokens, 2, (3, 4, 6)), x)
    assert torch.equal(patchify(x, 1), x.flatten(2).transpose(1, 2))


def test_attention_is_its_sum():
    q, k, v, bias = normal(2, 3, 4), normal(2, 5, 4, seed=1), normal(2, 5, 6, seed=2), normal(3, 5, seed=3)
    value, weights = attention(q, k, v, bias=bias)
    for b in range(2):
        for i in range(3):
            e = torch.stack([(q[b, i] @ k[b, j] / 2 + bias[i, j]).exp() for j in range(5)])
            torch.testing.assert_close(weights[b, i], e / e.sum())
            torch.testing.assert_close(value[b, i], sum(e[j] / e.sum() * v[b, j] for j in range(5)))
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attention(q, k, v)[0], plain)


def test_the_training_set_as_keys_is_the_empirical_denoiser():
    """Against the exact score of points diffused, by Tweedie's formula, and against the sum over points."""
    train, x_t = normal(6, 3), normal(7, 3, seed=1)
    alpha, sigma = torch.linspace(0.3, 1.5, 7, dtype=torch.float64), torch.linspace(0.1, 2.0, 7, dtype=torch.float64)
    value = empirical_denoiser(x_t, train, alpha, sigma)
    for i in range(7):
        points = GaussianMixture(alpha[i] * train, (sigma[i] ** 2).expand(6))
        expected = tweedie(x_t[i : i + 1], points.score(x_t[i : i + 1]), alpha[i], sigma[i])
        torch.testing.assert_close(value[i : i + 1], expected)


def test_points_far_from_the_origin_keep_their_weights():
    train, x_t = normal(6, 1, 2, 2).float(), normal(7, 1, 2, 2, seed=1).float()
    near = empirical_denoiser(x_t, train, 1.0, 0.5)
    far = empirical_denoiser(x_t + 1000, train + 1000, 1.0, 0.5)
    torch.testing.assert_close(far - 1000, near, atol=2e-3, rtol=0)


# -- ranks -------------------------------------------------------------------------------------------------------------


def plane(k: int = 2) -> Tensor:
    """Variances 4 and 2 on a plane, none off it."""
    u = rotation()[:, :k]
    return (u * EIGENVALUES[:k]) @ u.T


@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_at_full_rank_it_is_the_regression_and_its_error_the_posteriors(covariance, prediction):
    alpha, sigma = 0.8, 0.6
    matrix, error = best_of_rank(covariance, alpha, sigma, D, prediction=prediction)
    eye = torch.eye(D, dtype=torch.float64)
    noisy = alpha**2 * covariance + sigma**2 * eye
    crossed = alpha * covariance if prediction == "data" else sigma * eye
    torch.testing.assert_close(matrix, torch.linalg.solve(noisy, crossed.T).T)
    target = covariance if prediction == "data" else eye
    assert float(error) == pytest.approx(float((target - crossed @ torch.linalg.solve(noisy, crossed.T)).trace()))


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_no_other_map_of_its_rank_does_better(covariance, prediction, rank):
    """Against the general solution, P_r C_yx C_xx^-1 with P_r the top axes of C_yx C_xx^-1 C_xy, and random maps."""
    alpha, sigma = 0.8, 0.6
    eye = torch.eye(D, dtype=torch.float64)
    noisy = alpha**2 * covariance + sigma**2 * eye
    crossed = alpha * covariance if prediction == "data" else sigma * eye
    target = covariance if prediction == "data" else eye

    def error_of(a: Tensor) -> float:
        return float((target - 2 * a @ crossed.T + a @ noisy @ a.T).trace())

    matrix, error = best_of_rank(covariance, alpha, sigma, rank, prediction=prediction)
    full = torch.linalg.solve(noisy, crossed.T).T
    _, axes = torch.linalg.eigh(full @ crossed.T)
    top = axes.flip(1)[:, :rank]
    torch.testing.assert_close(matrix, top @ top.T @ full, atol=1e-10, rtol=0)
    assert error_of(matrix) == pytest.approx(float(error))
    assert torch.linalg.matrix_rank(matrix) == rank
    for seed in range(20 if rank else 0):
        left, right = normal(D, rank, seed=seed), normal(rank, D, seed=100 + seed)
        assert error_of(left @ right) > float(error)


def test_on_a_plane_the_data_need_its_rank_and_the_noise_all():
    alpha, sigma = 0.8, 0.6

    def error(rank: int, prediction: str) -> float:
        return float(best_of_rank(plane(), alpha, sigma, rank, prediction=prediction)[1])

    assert error(2, "data") == pytest.approx(error(D, "data"))
    assert error(1, "data") > error(2, "data") + 0.1
    for rank in range(D - 2):  # off the plane x_t is nothing but noise: each missing rank costs 1
        assert error(rank, "noise") - error(rank + 1, "noise") == pytest.approx(1)
    assert error(D - 1, "noise") > error(D, "noise") + 0.1


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: principal_axes(normal(3, 2)), "covariance: expected shape"),
        (lambda: principal_axes(normal(3, 3)), "covariance: expected a symmetric"),
        (lambda: principal_axes(-torch.eye(3)), "covariance: expected no negative"),
        (lambda: linear_vae(torch.eye(3), 3), "q: expected at most 2"),
        (lambda: linear_vae(torch.diag(torch.tensor([1.0, 0.0])), 1), "covariance: expected a positive"),
        (lambda: linear_vae(torch.eye(3), 2, noise_variance=0.0), "noise_variance: expected values > 0"),
        (lambda: patchify(normal(2, 1, 5, 4), 2), "x: expected shape"),
        (lambda: unpatchify(normal(2, 4, 3), 2, (1, 4, 4)), "tokens: expected shape"),
        (lambda: unpatchify(normal(2, 4, 4), 2, (1, 5, 4)), "shape: expected"),
        (lambda: attention(normal(2, 3), normal(4, 5), normal(4, 2)), "key: expected 3 numbers"),
        (lambda: attention(normal(2, 3), normal(4, 3), normal(5, 2)), "value: expected as many"),
        (lambda: empirical_denoiser(normal(2, 3), normal(4, 2), 1.0, 1.0), "train: expected points like"),
        (lambda: empirical_denoiser(normal(2, 3), normal(4, 3), 1.0, 0.0), "sigma: expected values > 0"),
        (lambda: best_of_rank(torch.eye(3), 1.0, 1.0, 4, prediction="data"), "rank: expected at most 3"),
        (lambda: best_of_rank(torch.eye(3), 1.0, 1.0, 2, prediction="score"), "prediction: expected one of"),
        (lambda: vae_losses(normal(5, 3), normal(5, 3), normal(4, 2), normal(4, 2)), "mean: expected 5 points"),
        (lambda: linear_posterior(normal(5, 3), normal(3), normal(4, 2), 1.0), "loadings: expected shape"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        call()


# -- devices -----------------------------------------------------------------------------------------------------------


@pytest.mark.needs("gpu")
def test_on_the_gpu(covariance):
    def on(device: str) -> list[Tensor]:
        c, x, z = covariance.to(device), normal(6, D, seed=1).to(device), normal(8, 3, 2, 2, seed=2).to(device)
        sde, axes = VPSDE(), principal_axes(c)[1][:, :2]
        law = GaussianMixture(torch.zeros(1, D, dtype=torch.float64, device=device), c[None])
        score = projected_score(exact_score(law, sde), sde, axes, torch.zeros(D, dtype=torch.float64, device=device))
        loadings, variance = linear_vae(c, 2)
        return [
            loadings @ loadings.T,  # the axes' signs are free
            variance,
            score(x @ axes, torch.tensor(0.5, dtype=torch.float64, device=device)) @ axes.T,
            scale_factor(z, per_channel=True),
            vae_losses(x, 2 * x, x[:, :2], x[:, 2:4], kl_weight=0.5),
            empirical_denoiser(x, normal(20, D, seed=3).to(device), 0.8, 0.6),
            unpatchify(patchify(z, 2), 2, (3, 2, 2)),
            *best_of_rank(c, 0.8, 0.6, 2, prediction="data"),
        ]

    for here, there in zip(on("cpu"), on("cuda"), strict=True):
        assert there.device.type == "cuda"
        torch.testing.assert_close(there.cpu(), here, rtol=1e-9, atol=1e-10)
