"""Exercises of lesson 01, the score function."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from coursework.distributions import GaussianMixture
from coursework.exercises.draws import count, covariances, normal, points_near, sizes, uniform
from coursework.exercises.engine import Exercise, Misconception

# -- 1.1 the score of a Gaussian ---------------------------------------------------------------------------------------


def gaussian_score(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """-covariance^{-1} (x - mean). Shapes: (B, D), (D,), (D, D) -> (B, D)."""
    return -torch.linalg.solve(covariance, (x - mean).T).T


def _draw_gaussian(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    b, d = sizes(generator)
    mean = normal(generator, d)
    return mean + normal(generator, b, d), mean, covariances(generator, 1, d)[0]


def _by_standard_deviation(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    return -torch.linalg.solve(torch.linalg.cholesky(covariance), (x - mean).T).T


def _times_density(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    law = GaussianMixture(mean[None], covariance[None])
    return law.log_prob(x).exp()[:, None] * law.score(x)


GAUSSIAN = Exercise(
    id="1.1",
    title="the score of a Gaussian",
    reference=gaussian_score,
    draw=_draw_gaussian,
    misconceptions=(
        Misconception(
            "the sign is turned: your score points away from the mean. log p falls as x leaves the mean, so its "
            "gradient points back, towards mean - x.",
            lambda x, mean, covariance: -gaussian_score(x, mean, covariance),
        ),
        Misconception(
            "you multiply by the covariance where its inverse belongs: a narrow Gaussian pulls hard, a wide one gently.",
            lambda x, mean, covariance: -(x - mean) @ covariance,
        ),
        Misconception(
            "you divide once by a standard deviation (a Cholesky factor); the exponent has the inverse covariance, "
            "which is two such factors.",
            _by_standard_deviation,
        ),
        Misconception(
            "you use only the diagonal of the covariance: the correlations between coordinates are lost.",
            lambda x, mean, covariance: -(x - mean) / covariance.diagonal(),
        ),
        Misconception("you forgot to subtract the mean.", lambda x, mean, covariance: gaussian_score(x, 0, covariance)),
        Misconception("this is the gradient of p, not of log p: divide by p.", _times_density),
    ),
    hints=(
        "Write log p(x) for one x first. Which term depends on x? The normaliser does not.",
        "The gradient of 1/2 (x - mean)^T A (x - mean) with symmetric A is A (x - mean). Mind the minus in the exponent.",
        "x has the points in its rows: `torch.linalg.solve(covariance, (x - mean).T).T` applies the inverse to each row.",
    ),
)

# -- 1.2 the score of a mixture ----------------------------------------------------------------------------------------


def mixture_score(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    """sum_k r_k(x) s_k(x). Shapes: (B, D), (K, D), (K, D, D), (K,) -> (B, D)."""
    scores = torch.stack([gaussian_score(x, m, c) for m, c in zip(means, covariances, strict=True)], 1)
    exponents = 0.5 * (scores * (x[:, None] - means)).sum(2)
    responsibilities = torch.softmax(weights.log() + exponents - 0.5 * torch.logdet(covariances), 1)
    return _combine(responsibilities, scores)


def _components(x: Tensor, means: Tensor, covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Log-densities (B, K) and scores (B, K, D) of the components."""
    laws = [GaussianMixture(m[None], c[None]) for m, c in zip(means, covariances, strict=True)]
    return torch.stack([p.log_prob(x) for p in laws], 1), torch.stack([p.score(x) for p in laws], 1)


def _combine(responsibilities: Tensor, scores: Tensor) -> Tensor:
    return (responsibilities[..., None] * scores).sum(1)


def _weights_only(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    return _combine(weights.expand(len(x), -1), _components(x, means, covariances)[1])


def _without_weights(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    log_probs, scores = _components(x, means, covariances)
    return _combine(torch.softmax(log_probs, 1), scores)


def _density_gradient(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    log_probs, scores = _components(x, means, covariances)
    return _combine(weights * log_probs.exp(), scores)


def _without_determinants(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    log_probs, scores = _components(x, means, covariances)
    return _combine(torch.softmax(weights.log() + log_probs + 0.5 * torch.logdet(covariances), 1), scores)


def _nearest_only(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    log_probs, scores = _components(x, means, covariances)
    return scores[torch.arange(len(x)), (weights.log() + log_probs).argmax(1)]


def _over_points(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    log_probs, scores = _components(x, means, covariances)
    return _combine(torch.softmax(weights.log() + log_probs, 0), scores)


def _plain_weights(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    log_probs, scores = _components(x, means, covariances)
    return _combine(torch.softmax(weights + log_probs, 1), scores)


def _underflow(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    log_probs, scores = _components(x, means, covariances)
    densities = weights * log_probs.exp()
    return _combine(densities / densities.sum(1, keepdim=True), scores)


def _guarded(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    log_probs, scores = _components(x, means, covariances)
    densities = weights * log_probs.exp()
    return _combine(densities / (densities.sum(1, keepdim=True) + 1e-12), scores)


def _near_and_far(attempt: Callable[..., Tensor], args: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Near the modes, and 200 away from all of them, where every density underflows."""
    x, *law = args
    far = 200 * torch.nn.functional.normalize(x, dim=1)
    return {"result": attempt(x, *law), "score far from all modes": attempt(far, *law)}


def _draw_mixture(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (b, d), k = sizes(generator), count(generator, 2, 5)
    means, weights = 1.5 * normal(generator, k, d), uniform(generator, k, low=0.2, high=1.0)
    return points_near(generator, b, means), means, covariances(generator, k, d), weights / weights.sum()


MIXTURE = Exercise(
    id="1.2",
    title="the score of a mixture",
    reference=mixture_score,
    draw=_draw_mixture,
    misconceptions=(
        Misconception(
            "you weight the component scores with the mixture weights w_k. The weights that belong there depend on x: the "
            "responsibilities r_k(x) = w_k N_k(x) / p(x).",
            _weights_only,
        ),
        Misconception(
            "your responsibilities leave out the mixture weights w_k: r_k is proportional to w_k N_k(x).",
            _without_weights,
        ),
        Misconception(
            "this is the gradient of p, not of log p: it is not divided by p(x).",
            _density_gradient,
        ),
        Misconception(
            "your component densities lack the factor det(Sigma_k)^(-1/2). It cancels for one Gaussian, but not between "
            "components of different size.",
            _without_determinants,
        ),
        Misconception(
            "you take the score of the most responsible component alone. Between components the score is a soft blend.",
            _nearest_only,
        ),
        Misconception(
            "far from all modes every density underflows to zero, and your responsibilities are 0/0. Stay in the log "
            "domain: a softmax over log w_k + log N_k.",
            _underflow,
        ),
        Misconception(
            "a small number beside p(x) hides the division 0/0, it does not mend it: far from all modes your score is 0, "
            "where it should be longest. Stay in the log domain: a softmax over log w_k + log N_k.",
            _guarded,
        ),
        Misconception(
            "your softmax runs over the points of the batch; the responsibilities of each point sum to 1 over the "
            "components, dim=1.",
            _over_points,
        ),
        Misconception(
            "you add the weights w_k to the log-densities: in the log domain it is log w_k that is added.",
            _plain_weights,
        ),
    ),
    observe=_near_and_far,
    hints=(
        "Start from p = sum_k w_k N_k. The gradient of log p is the gradient of p, divided by p.",
        "The gradient of N_k is N_k times its score s_k (exercise 1.1). Collect the factors w_k N_k(x) / p(x): call them "
        "r_k(x). They are positive and sum to 1.",
        "Compute log w_k + log N_k(x) as a (B, K) tensor and take `torch.softmax(..., dim=1)`: that is r, and it cannot "
        "overflow. `torch.logdet` gives log-determinants.",
    ),
)

# -- 1.3 the score of an energy ----------------------------------------------------------------------------------------


def energy_score(energy: "Energy", x: Tensor) -> Tensor:
    """-grad E(x). Shapes: energy (B, D) -> (B,); x (B, D) -> (B, D)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x).sum(), x)
    return -gradient


class Energy:
    """E(x) = 1/2 x^T A x + c sum cos(20 x) + level, an energy whose normaliser nobody knows.

    The ripple is so fine that differences of E are not near enough to its derivatives.
    """

    def __init__(self, matrix: Tensor, ripple: Tensor, level: float) -> None:
        self.matrix, self.ripple, self.level = matrix, ripple, level

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B,)."""
        return 0.5 * ((x @ self.matrix) * x).sum(1) + self.ripple * torch.cos(20 * x).sum(1) + self.level


def _draw_energy(generator: Generator) -> tuple[Energy, Tensor]:
    """In half of the cases, and for points that lie far out, exp(-E) is too small for a number."""
    b, d = sizes(generator)
    level = 1000.0 * count(generator, 0, 1)
    energy = Energy(covariances(generator, 1, d)[0], uniform(generator, low=0.05, high=0.1), level)
    far = uniform(generator, b, 1, low=0.0, high=1.0) < 0.25
    return energy, torch.where(far, 40.0, 1.0) * normal(generator, b, d)


def _of_mean(energy: Energy, x: Tensor) -> Tensor:
    return energy_score(energy, x) / len(x)


def _by_differences(energy: Energy, x: Tensor, h: float) -> Tensor:
    steps = h * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.stack([energy(x - step) - energy(x + step) for step in steps], 1) / (2 * h)


ENERGY = Exercise(
    id="1.3",
    title="the score of an energy",
    reference=energy_score,
    draw=_draw_energy,
    rtol=1e-11,
    misconceptions=(
        Misconception(
            "the sign is turned: p is proportional to exp(-E), so the score is minus the gradient of the energy, and "
            "points downhill in E.",
            lambda energy, x: -energy_score(energy, x),
        ),
        Misconception(
            "you differentiate the mean of the energies over the batch, so every score is divided by the batch size. "
            "Each point's score depends on that point alone: differentiate the sum.",
            _of_mean,
        ),
        Misconception(
            "this is the gradient of exp(-E), not of its logarithm.",
            lambda energy, x: torch.exp(-energy(x))[:, None] * energy_score(energy, x),
        ),
        Misconception(
            "you normalise the energies over the batch (a softmax): the constant Z is an integral over all of space, and "
            "the score does not need it.",
            lambda energy, x: energy_score(energy, x) * (1 - torch.softmax(-energy(x), 0))[:, None],
        ),
        Misconception(
            "you take the logarithm of exp(-E). At an energy of 1000 the exponential is 0 and its logarithm minus infinity: "
            "write -E, the two cancel.",
            lambda energy, x: energy_score(lambda y: -torch.exp(-energy(y)).log(), x),
        ),
        Misconception(
            "you take quotients of differences. They are near the derivatives, not equal to them; `torch.autograd.grad` is "
            "exact.",
            lambda energy, x: _by_differences(energy, x, 1e-4),
        ),
    ),
    hints=(
        "Write log p(x) = -E(x) - log Z. What does Z contribute to the gradient with respect to x?",
        "`torch.autograd.grad(y, x)` wants a scalar y. The energies of different points do not depend on each other.",
        "Make a copy that can be differentiated, `x = x.detach().requires_grad_()`, then differentiate `energy(x).sum()`.",
    ),
)

# -- 1.4 zeros of the score --------------------------------------------------------------------------------------------


def ascending_directions(score: "MixtureScore", x: Tensor) -> Tensor:
    """Number of positive eigenvalues of the score's Jacobian. Shapes: x (B, D) -> (B,) long."""
    return (torch.linalg.eigvalsh(_jacobian(score, x)) > 0).sum(1)


def _jacobian(score: "MixtureScore", x: Tensor) -> Tensor:
    jacobian = torch.func.vmap(torch.func.jacrev(lambda point: score(point[None])[0]))(x.detach())
    return 0.5 * (jacobian + jacobian.mT)


class MixtureScore:
    """The score of a mixture as a plain function (B, D) -> (B, D)."""

    def __init__(self, mixture: GaussianMixture) -> None:
        self.mixture = mixture

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes: (B, D) -> (B, D)."""
        return self.mixture.score(x)


def _draw_zeros(generator: Generator) -> tuple[MixtureScore, Tensor]:
    """Modes at the corners of a box with random axes, far from the origin: points near its corners, edges, faces, middle.

    Half-way between two corners log p rises along that axis, if they lie further apart than two standard deviations.
    """
    b, d = count(generator, 1, 12), count(generator, 3, 8)
    m = count(generator, 2, 3)
    std, centre, axes = uniform(generator, low=0.4, high=0.8), 3 * normal(generator, d), _axes(generator, m, d)
    box = std * uniform(generator, m, 1, low=1.1, high=2.4) * axes
    box[0] = torch.where(uniform(generator, low=0.0, high=1.0) < 0.2, 0.5, 1.0) * box[0]  # at times the modes merge
    signs = torch.cartesian_prod(*m * [torch.tensor([-1.0, 1.0], dtype=box.dtype)]).reshape(-1, m)
    mixture = GaussianMixture(centre + signs @ box, (std**2).expand(len(signs)))
    places = torch.randint(-1, 2, (b, m), generator=generator) * (torch.rand(b, m, generator=generator) < 0.5)
    return MixtureScore(mixture), centre + places.double() @ box + 0.1 * std * normal(generator, b, d)


def _axes(generator: Generator, m: int, d: int) -> Tensor:
    """m random directions at right angles to each other, (m, d)."""
    return torch.linalg.qr(normal(generator, d, d))[0][:m]


ZEROS = Exercise(
    id="1.4",
    title="zeros of the score",
    reference=ascending_directions,
    draw=_draw_zeros,
    misconceptions=(
        Misconception(
            "you count the negative eigenvalues: those are directions in which x is a maximum.",
            lambda score, x: (torch.linalg.eigvalsh(_jacobian(score, x)) < 0).sum(1),
        ),
        Misconception(
            "you call every zero of the score a maximum (the circulating statement itself).",
            lambda score, x: torch.zeros(len(x), dtype=torch.long),
        ),
        Misconception(
            "you look at the diagonal of the Jacobian only: the signs that matter are those of its eigenvalues, which do "
            "not depend on the choice of axes.",
            lambda score, x: (_jacobian(score, x).diagonal(dim1=1, dim2=2) > 0).sum(1),
        ),
        Misconception(
            "you count singular values, which are never negative: take eigenvalues.",
            lambda score, x: (torch.linalg.svdvals(_jacobian(score, x)) > 0).sum(1),
        ),
        Misconception(
            "you say whether there is a direction in which log p rises. There can be several: count them.",
            lambda score, x: (torch.linalg.eigvalsh(_jacobian(score, x)) > 0).any(1).long(),
        ),
        Misconception(
            "you look at the sign of the trace. It is the sum of the eigenvalues and does not tell how many are positive.",
            lambda score, x: (_jacobian(score, x).diagonal(dim1=1, dim2=2).sum(1) > 0).long(),
        ),
    ),
    hints=(
        "The Jacobian of the score is the Hessian of log p. What tells a maximum, a saddle and a minimum apart?",
        "At a maximum every eigenvalue of the Hessian is negative. Each positive one is a direction in which log p rises.",
        "`torch.linalg.eigvalsh(jacobian(score, x))` gives the eigenvalues, (B, D): count the positive ones of each point.",
    ),
)

# -- 1.5 the score of noisy data ---------------------------------------------------------------------------------------


def noisy_score(x: Tensor, mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Score of alpha X + sigma noise for Gaussian X. Shapes: (B, D), (D,), (D, D), (), () -> (B, D)."""
    return gaussian_score(x, alpha * mean, alpha**2 * covariance + sigma**2 * torch.eye(len(mean), dtype=x.dtype))


def _noisy(a_mean: int, a_covariance: int, s_power: int) -> Callable[..., Tensor]:
    def wrong(x: Tensor, mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        eye = torch.eye(len(mean), dtype=x.dtype)
        return gaussian_score(x, alpha**a_mean * mean, alpha**a_covariance * covariance + sigma**s_power * eye)

    return wrong


def _noise_everywhere(x: Tensor, mean: Tensor, covariance: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return gaussian_score(x, alpha * mean, alpha**2 * covariance + sigma**2)


def _draw_noisy(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x, mean, covariance = _draw_gaussian(generator)
    return x, mean, covariance, uniform(generator, low=0.3, high=0.9), uniform(generator, low=0.3, high=0.8)


NOISY = Exercise(
    id="1.5",
    title="the score of noisy data",
    reference=noisy_score,
    draw=_draw_noisy,
    misconceptions=(
        Misconception(
            "you add sigma where its square belongs: variances add, standard deviations do not.",
            _noisy(a_mean=1, a_covariance=2, s_power=1),
        ),
        Misconception(
            "you scale the covariance with alpha: scaling X by alpha scales its covariance by alpha squared.",
            _noisy(a_mean=1, a_covariance=1, s_power=2),
        ),
        Misconception(
            "you left the mean where it was: alpha scales it too.", _noisy(a_mean=0, a_covariance=2, s_power=2)
        ),
        Misconception(
            "you left the data's covariance unscaled: it shrinks with alpha squared.",
            _noisy(a_mean=1, a_covariance=0, s_power=2),
        ),
        Misconception(
            "you use the score of the clean law at the noisy point: noise changes the law, and its score.",
            lambda x, mean, covariance, alpha, sigma: gaussian_score(x, mean, covariance),
        ),
        Misconception(
            "this is the circulating formula itself, with all three mistakes. Work out the mean and the covariance of "
            "alpha X + sigma noise first.",
            _noisy(a_mean=0, a_covariance=1, s_power=1),
        ),
        Misconception(
            "the mean is repaired, the covariance is not: Cov[alpha X] and Cov[sigma noise] have squares in them.",
            _noisy(a_mean=1, a_covariance=1, s_power=1),
        ),
        Misconception(
            "one square is right, the other is not, and the mean is not scaled by alpha.",
            _noisy(a_mean=0, a_covariance=2, s_power=1),
        ),
        Misconception(
            "you add sigma^2 to every entry of the covariance. Independent noise adds it to the diagonal only: multiply by "
            "torch.eye.",
            _noise_everywhere,
        ),
    ),
    hints=(
        "alpha X + sigma noise is Gaussian again: a linear map of Gaussians. Only its mean and covariance are needed.",
        "E[alpha X + sigma noise] = alpha E[X]. Noise and X are independent, so their covariances add.",
        "Cov[alpha X] = alpha^2 Cov[X] and Cov[sigma noise] = sigma^2 I. Then call your function of exercise 1.1.",
    ),
)

# -- 1.6 when two modes merge ------------------------------------------------------------------------------------------


def merging_noise(offset: Tensor, std: Tensor) -> Tensor:
    """Noise at which 1/2 N(-offset, std^2) + 1/2 N(offset, std^2) becomes unimodal. Shapes: (), () -> ()."""
    return torch.sqrt(offset**2 - std**2)


def _draw_merging(generator: Generator) -> tuple[Tensor, Tensor]:
    offset = uniform(generator, low=0.3, high=4.0)
    return offset, offset * uniform(generator, low=0.05, high=0.45)


MERGING = Exercise(
    id="1.6",
    title="when two modes merge",
    reference=merging_noise,
    draw=_draw_merging,
    misconceptions=(
        Misconception(
            "you forgot that the data is already spread by std: the total variance std^2 + sigma^2 has to reach "
            "offset^2.",
            lambda offset, std: 1 * offset,
        ),
        Misconception(
            "you subtract standard deviations: it is their squares that add up.",
            lambda offset, std: offset - std,
        ),
        Misconception(
            "this is the variance of the noise; sigma is its square root.", lambda offset, std: offset**2 - std**2
        ),
        Misconception(
            "you ask for the total standard deviation to reach the distance between the modes, 2 offset; the slope at the "
            "midpoint changes its sign at half of that.",
            lambda offset, std: torch.sqrt(4 * offset**2 - std**2),
        ),
        Misconception(
            "you halve the offset: it is already the distance from the midpoint to a mode.",
            lambda offset, std: torch.sqrt(offset**2 / 4 - std**2),
        ),
    ),
    hints=(
        "At the midpoint x = 0 the score is zero by symmetry. The modes have merged when x = 0 has become a maximum.",
        "With v = std^2 + sigma^2 the score is (-x + m tanh(m x / v)) / v, m = offset. Expand it around x = 0.",
        "The slope at 0 is (-1 + m^2 / v) / v. It changes sign at v = m^2.",
    ),
)

EXERCISES = (GAUSSIAN, MIXTURE, ENERGY, ZEROS, NOISY, MERGING)
