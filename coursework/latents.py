"""Latents: compress first, then diffuse; and what transformers and text need (lesson 19).

A linear autoencoder is probabilistic PCA and known in closed form; for Gaussian data, diffusion in its latent space is
the projected model. Attention is a weighted mean of values, with the training set as keys the empirical denoiser.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from coursework._arguments import (
    at_least,
    batch,
    expand,
    finite,
    flat_sum,
    floating,
    like,
    one_of,
    positive_number,
    some,
    truth,
    wide,
)
from coursework._loops import TimedScore, check_generator, normal_like, score_at, time_like
from coursework.sdes import SDE

Map = Callable[[Tensor], Tensor]


# The linear autoencoder


def principal_axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (D,), the largest first, and the axes (D, D), one a column. Raises ValueError for no covariance."""
    floating(covariance, "covariance")
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or not len(covariance):
        raise ValueError(f"covariance: expected shape (D, D), got {tuple(covariance.shape)}")
    finite(covariance, "covariance")
    matrix = covariance.double()
    size = max(float(matrix.abs().max()), 1e-300)
    tolerance = 100 * torch.finfo(covariance.dtype).eps * size
    if float((matrix - matrix.T).abs().max()) > tolerance:
        raise ValueError("covariance: expected a symmetric matrix, got one that is not")
    values, axes = torch.linalg.eigh((matrix + matrix.T) / 2)
    if float(values[0]) < -tolerance * len(matrix):
        raise ValueError(f"covariance: expected no negative eigenvalue, got {float(values[0]):g}")
    return values.flip(0).clamp(min=0).to(covariance.dtype), axes.flip(1).to(covariance.dtype)


def linear_vae(covariance: Tensor, q: int, *, noise_variance: float | None = None) -> tuple[Tensor, Tensor]:
    """The best linear autoencoder with q latents, x = m + W z + noise, z ~ N(0, I): loadings W and noise variance s^2.

    s^2 = mean of the D - q smallest eigenvalues (unless `noise_variance` says it),
    W = U_q diag(max(lambda_i - s^2, 0))^{1/2}: a mode with eigenvalue below s^2 collapses, its column is zero.
    It has the largest likelihood, and at the best encoder the bound is equal to it: probabilistic PCA.

    Shapes: covariance (D, D) -> (D, q), (). Raises ValueError unless 1 <= q < D (q <= D with a noise_variance), and if
    all discarded eigenvalues are 0. Source: Tipping & Bishop 1999, section 3.2; for the linear VAE Lucas et al. 2019.
    """
    values, axes = principal_axes(covariance)
    q = at_least(q, 1, "q")
    most = len(values) if noise_variance is not None else len(values) - 1
    if q > most:
        raise ValueError(f"q: expected at most {most}, got {q}")
    if noise_variance is None:
        variance = values[q:].mean()
        if not float(variance) > 0:
            raise ValueError("covariance: expected a positive eigenvalue among those left out, got zeros")
    else:
        variance = values.new_tensor(positive_number(noise_variance, "noise_variance"))
    return axes[:, :q] * (values[:q] - variance).clamp(min=0).sqrt(), variance


def linear_posterior(
    x: Tensor, mean: Tensor, loadings: Tensor, noise_variance: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The exact encoder of a linear autoencoder: p(z | x) = N(M^-1 W^T (x - m), s^2 M^-1), M = W^T W + s^2 I.

    Shapes: x (B, D), mean (D,), loadings (D, q) -> (B, q), (q, q). Source: Tipping & Bishop 1999, section 3.1.
    """
    batch(x, "x")
    floating(loadings, "loadings")
    finite(loadings, "loadings")
    if x.ndim != 2 or loadings.ndim != 2 or len(loadings) != x.shape[1]:
        raise ValueError(f"loadings: expected shape ({x.shape[1]}, q), got {tuple(loadings.shape)}")
    like(mean, x[0] if len(x) else x.new_zeros(x.shape[1]), "mean", "one x")
    variance = positive_number(noise_variance, "noise_variance")
    w = loadings.double()
    m = w.T @ w + variance * torch.eye(w.shape[1], dtype=torch.float64, device=w.device)
    z = torch.linalg.solve(m, w.T @ (x - mean).double().T).T
    return z.to(x.dtype), (variance * torch.linalg.inv(m)).to(x.dtype)


# The objective of a variational autoencoder


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_variance)) || N(0, I)) = 1/2 sum (mean^2 + e^lv - lv - 1), nats.

    Shapes: (B, *S), (B, *S) -> (B,). Source: Kingma & Welling 2014, appendix B.
    """
    batch(mean, "mean")
    like(log_variance, mean, "log_variance", "mean")
    finite(log_variance, "log_variance")
    m, lv = wide(mean), wide(log_variance)
    return 0.5 * flat_sum(m**2 + torch.expm1(lv) - lv)


def vae_loss(
    decoder: Map,
    x: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    *,
    kl_weight: float = 1.0,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """1/2 |x - D(z)|^2 + kl_weight KL(q(z | x) || N(0, I)) at z = mean + e^(log_variance/2) noise, a mean over x.

    With kl_weight = s^2 it is s^2 times the negative evidence bound of the decoder N(D(z), s^2 I), but for a constant:
    the weight of the KL term is the decoder's noise variance. One draw of the noise a point.

    Shapes: x (B, *S), mean, log_variance, noise (B, *Z), decoder (B, *Z) -> (B, *S); the loss is 0-d.
    Source: Kingma & Welling 2014, eq. 10; with a weight Higgins et al. 2017.
    """
    some(x, "x")
    batch(mean, "mean")
    like(log_variance, mean, "log_variance", "mean")
    check_generator(generator, x)
    if noise is None:
        noise = normal_like(mean, generator)
    else:
        like(noise, mean, "noise", "mean")
    value = decoder(mean + torch.exp(0.5 * log_variance) * noise)
    like(value, x, "decoder's value", "x")
    return vae_losses(value, x, mean, log_variance, kl_weight=kl_weight).mean()


def vae_losses(decoded: Tensor, x: Tensor, mean: Tensor, log_variance: Tensor, *, kl_weight: float = 1.0) -> Tensor:
    """1/2 |x - decoded|^2 + kl_weight KL, for each point. Shapes: decoded, x (B, *S), the others (B, *Z) -> (B,)."""
    batch(x, "x")
    like(decoded, x, "decoded", "x")
    finite(decoded, "decoded")
    weight, kl = positive_number(kl_weight, "kl_weight"), gaussian_kl(mean, log_variance)
    if len(kl) != len(x):
        raise ValueError(f"mean: expected {len(x)} points like x, got {len(kl)}")
    return 0.5 * flat_sum((x - decoded) ** 2) + weight * kl


# The scale of latents


def scale_factor(z: Tensor, *, per_channel: bool = False) -> Tensor:
    """1 / standard deviation of latents: scaled ones have unit variance, as the diffusion's schedule expects.

    Over all elements, or for each channel over the others. Shapes: z (N, C, *S) -> 0-d, or (C,). Raises ValueError for
    latents that do not vary. Source: Rombach et al. 2022, appendix G.
    """
    some(z, "z")
    rows = (wide(z).movedim(1, 0) if truth(per_channel, "per_channel") else wide(z)[None]).flatten(1)
    deviation = rows.std(1, correction=0)
    if not bool((deviation > 0).all()):
        raise ValueError("z: expected latents that vary, got some that are all the same")
    scale = (1 / deviation).to(z.dtype)
    return scale if per_channel else scale[0]


def encode(encoder: Map, x: Tensor, scale: float | Tensor) -> Tensor:
    """z = scale E(x): the latents that a diffusion model sees. Shapes: x (B, *S), scale a number, 0-d or (C,)."""
    batch(x, "x")
    value = encoder(x)
    batch(value, "encoder's value")
    return _factor(scale, value) * value


def decode(decoder: Map, z: Tensor, scale: float | Tensor) -> Tensor:
    """x = D(z / scale): the way back, with the same scale. Shapes: z (B, C, *S), scale a number, 0-d or (C,)."""
    batch(z, "z")
    return decoder(z / _factor(scale, z))


def _factor(scale: float | Tensor, z: Tensor) -> Tensor:
    """The scale as a tensor that broadcasts against z (B, C, *S)."""
    if not isinstance(scale, Tensor):
        return z.new_tensor(positive_number(scale, "scale"))
    floating(scale, "scale")
    if scale.shape not in ((), z.shape[1:2]):
        raise ValueError(f"scale: expected a number or shape ({z.shape[1]},), got {tuple(scale.shape)}")
    if not bool((scale > 0).all()) or not bool(torch.isfinite(scale).all()):
        raise ValueError("scale: expected finite values > 0")
    return scale.to(z).reshape(-1, *[1] * (z.ndim - 2)) if scale.ndim else scale.to(z)


# Diffusion in a subspace


def projected_score(score: TimedScore, sde: SDE, axes: Tensor, mean: Tensor) -> TimedScore:
    """The score of z_t = U^T (x_t - alpha m), read off the score of x_t: s_z(z, t) = U^T s_x(alpha m + U z, t).

    U has orthonormal columns. Exact where the coordinates in U and the others are independent: for Gaussian data whose
    principal axes they are. So diffusion in the PCA space is the projected model.
    Shapes: axes (D, q), mean (D,); the result takes z (B, q) and t 0-d or (B,).
    """
    floating(axes, "axes")
    if axes.ndim != 2 or not 1 <= axes.shape[1] <= len(axes):
        raise ValueError(f"axes: expected shape (D, q), q <= D, got {tuple(axes.shape)}")
    product = axes.double().T @ axes.double()
    off = (product - torch.eye(len(product), dtype=torch.float64, device=axes.device)).abs().max()
    if not float(off) < 1e3 * torch.finfo(axes.dtype).eps:
        raise ValueError("axes: expected orthonormal columns")
    like(mean, axes[:, 0], "mean", "a column of axes")
    finite(mean, "mean")

    def projected(z: Tensor, t: Tensor) -> Tensor:
        batch(z, "x")
        if z.shape[1:] != axes.shape[1:]:
            raise ValueError(f"x: expected shape (B, {axes.shape[1]}), got {tuple(z.shape)}")
        t = time_like(sde.time(t, noisy=True), z)
        u, m = axes.to(z), mean.to(z)
        return score_at(score, expand(sde.alpha(t), z, "t") * m + z @ u.T, t) @ u

    return projected


# Transformers


def patchify(x: Tensor, size: int) -> Tensor:
    """Images as rows of patches: token i is patch i, row by row, with its C size^2 numbers channel by channel.

    Shapes: (B, C, H, W) -> (B, H W / size^2, C size^2). Raises ValueError for a size that does not divide H and W.
    """
    floating(x, "x")
    size = at_least(size, 1, "size")
    if x.ndim != 4 or x.shape[2] % size or x.shape[3] % size:
        raise ValueError(f"x: expected shape (B, C, H, W) with H and W multiples of {size}, got {tuple(x.shape)}")
    b, c, height, width = x.shape
    parts = x.reshape(b, c, height // size, size, width // size, size)
    return parts.permute(0, 2, 4, 1, 3, 5).reshape(b, height // size * (width // size), c * size**2)


def unpatchify(tokens: Tensor, size: int, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `patchify`. Shapes: (B, H W / size^2, C size^2), shape = (C, H, W) -> (B, C, H, W)."""
    floating(tokens, "tokens")
    size = at_least(size, 1, "size")
    if len(shape) != 3 or shape[1] % size or shape[2] % size:
        raise ValueError(f"shape: expected (C, H, W) with H and W multiples of {size}, got {tuple(shape)}")
    c, height, width = shape
    rows, columns = height // size, width // size
    if tokens.shape[1:] != (rows * columns, c * size**2):
        raise ValueError(f"tokens: expected shape (B, {rows * columns}, {c * size**2}), got {tuple(tokens.shape)}")
    parts = tokens.reshape(len(tokens), rows, columns, c, size, size)
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), c, height, width)


def attention(query: Tensor, key: Tensor, value: Tensor, *, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(sum_j w_ij v_j, w), w_i = softmax over j of (q_i . k_j / sqrt(d) + bias_ij): weighted means of the values.

    Shapes: query (..., N, d), key (..., M, d), value (..., M, F), bias broadcasting to (..., N, M) -> (..., N, F),
    (..., N, M). Source: Vaswani et al. 2017, eq. 1.
    """
    for tensor, name in ((query, "query"), (key, "key"), (value, "value")):
        floating(tensor, name)
        if tensor.ndim < 2:
            raise ValueError(f"{name}: expected shape (..., N, d), got {tuple(tensor.shape)}")
        finite(tensor, name)
    if key.shape[-1] != query.shape[-1] or not key.shape[-1]:
        raise ValueError(f"key: expected {query.shape[-1]} numbers each like query, got {key.shape[-1]}")
    if value.shape[-2] != key.shape[-2] or not key.shape[-2]:
        raise ValueError(f"value: expected as many as keys, {key.shape[-2]}, from 1, got {value.shape[-2]}")
    logits = wide(query) @ wide(key).transpose(-1, -2) / math.sqrt(query.shape[-1])
    if bias is not None:
        floating(bias, "bias")
        logits = logits + bias.to(logits.dtype)
    weights = logits.softmax(-1)
    return (weights @ wide(value)).to(value.dtype), weights.to(value.dtype)


def empirical_denoiser(x_t: Tensor, train: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
    """E[x_0 | x_t] where x_0 is uniform on the training set: attention with that set as keys and as values.

    w_i ~ exp(-|x_t - alpha x_i|^2 / (2 s^2)), s = sigma: query sqrt(D) alpha x_t / s^2, bias -|alpha x_i|^2 / (2 s^2).
    Shapes: x_t (B, *S), train (N, *S); alpha, sigma numbers, 0-d or (B,), sigma > 0 -> (B, *S).
    """
    batch(x_t, "x_t")
    some(train, "train")
    if train.shape[1:] != x_t.shape[1:] or train.dtype != x_t.dtype or train.device != x_t.device:
        raise ValueError(
            f"train: expected points like x_t's, {tuple(x_t.shape[1:])} {x_t.dtype} on {x_t.device}, "
            f"got {tuple(train.shape[1:])} {train.dtype} on {train.device}"
        )
    points, keys = wide(x_t).flatten(1), wide(train).flatten(1)
    centre = keys.mean(0)  # the weights do not change when all points move, rounding does
    a, s = (expand(v, points, name) for v, name in ((alpha, "alpha"), (sigma, "sigma")))
    if not bool((s > 0).all()):
        raise ValueError("sigma: expected values > 0")
    query = math.sqrt(keys.shape[1]) * a * (points - a * centre) / s**2
    bias = -(a**2) * (keys - centre).square().sum(1) / (2 * s**2)
    value, _ = attention(query, keys - centre, keys, bias=bias)
    return value.reshape(x_t.shape).to(x_t.dtype)


# What a network of limited rank can predict


def best_of_rank(
    covariance: Tensor, alpha: float, sigma: float, rank: int, *, prediction: str
) -> tuple[Tensor, Tensor]:
    """The best linear map of limited rank from x_t to the data or the noise, and its error E|y - A x_t|^2.

    y = x_0 ("data") or the noise ("noise"), centred Gaussian data, x_t = alpha x_0 + sigma noise. In an axis of
    variance v the best factor is alpha v / S or sigma / S, S = alpha^2 v + sigma^2; it explains alpha^2 v^2 / S or
    sigma^2 / S of y's variance v or 1. Of rank r are left the r axes that explain most.
    On a plane of k dimensions the data need rank k, the noise needs all D.

    Shapes: covariance (D, D) -> (D, D), (). Raises ValueError unless 0 <= rank <= D and alpha, sigma > 0.
    Source: reduced-rank regression, Izenman 1975; for diffusion Li & He 2025.
    """
    values, axes = principal_axes(covariance)
    one_of(prediction, ("data", "noise"), "prediction")
    a, s = positive_number(alpha, "alpha"), positive_number(sigma, "sigma")
    rank = at_least(rank, 0, "rank")
    if rank > len(values):
        raise ValueError(f"rank: expected at most {len(values)}, got {rank}")
    total = a**2 * values + s**2
    factor = a * values / total if prediction == "data" else s / total
    variance = values if prediction == "data" else torch.ones_like(values)
    explained = factor**2 * total
    kept = torch.zeros_like(values)
    kept[explained.argsort(descending=True, stable=True)[:rank]] = 1.0
    return (axes * (kept * factor)) @ axes.T, (variance - kept * explained).sum()
