"""Answers that the package itself would give: right at home, not attempted in grading.

For each exercise sources of its cell, each with the part of the package's name that is reached first.
"""

from coursework.exercises.exercise import find

LANGEVIN = find("5.1").reference.__module__
MIXTURE = "coursework.distributions.GaussianMixture.__init__"
WITHOUT_INIT = """
from coursework.distributions import GaussianMixture
def mixture_without_init(means, covariances, weights):
    law = object.__new__(GaussianMixture)
    law._eigenvalues, vectors = torch.linalg.eigh(covariances)
    law._eigenvectors = vectors.transpose(0, 1).contiguous()
    law._means, law._log_weights = means, weights.log()
    law._rotated_means = torch.einsum("dke,kd->ke", law._eigenvectors, means)
    law._alpha, law._sigma, law.dtype, law.device = means.new_tensor(1.0), means.new_tensor(0.0), means.dtype, means.device
    return law
"""

ANSWERS: dict[str, list[tuple[str, str]]] = {
    "1.1": [
        (
            """
from coursework.distributions import GaussianMixture
def gaussian_score(x, mean, covariance):
    return GaussianMixture(mean[None], covariance[None]).score(x)
""",
            MIXTURE,
        ),
        (
            WITHOUT_INIT
            + """
def gaussian_score(x, mean, covariance):
    return mixture_without_init(mean[None], covariance[None], torch.ones(1, dtype=x.dtype)).score(x)
""",
            "coursework.distributions.GaussianMixture.score",
        ),
    ],
    "1.2": [
        (
            """
from coursework.distributions import GaussianMixture
def mixture_score(x, means, covariances, weights):
    return GaussianMixture(means, covariances, weights).score(x)
""",
            MIXTURE,
        ),
    ],
    "1.5": [
        (
            """
from coursework.distributions import GaussianMixture
def noisy_score(x, mean, covariance, alpha, sigma):
    return GaussianMixture(mean[None], covariance[None]).diffuse(alpha, sigma).score(x)
""",
            MIXTURE,
        ),
    ],
    "2.3": [
        (
            """
from coursework import score_matching
def jacobian_trace(fn, x):
    x = x.detach().requires_grad_()
    return score_matching._exact_trace(fn(x), x, fn, True)
""",
            "coursework.score_matching._exact_trace",
        ),
    ],
    "2.4": [
        (
            "from coursework.score_matching import implicit_score_matching as implicit_loss",
            "coursework.score_matching.implicit_score_matching",
        ),
    ],
    "3.1": [
        (
            """
from coursework import score_matching
def quadratic_form(score, x, v):
    x = x.detach().requires_grad_()
    return score_matching._quadratic_form(score(x), x, v, score, "score", True)
""",
            "coursework.score_matching._quadratic_form",
        ),
    ],
    "3.4": [
        (
            """
from coursework import score_matching
def ssm_loss(score, x, v):
    score_matching.draw_probe = lambda *a: v
    return score_matching.sliced_score_matching(score, x, variance_reduced=False)
""",
            "coursework.score_matching.sliced_score_matching",
        ),
    ],
    "4.1": [
        (
            """
from coursework import score_matching
def dsm_loss(score, x, sigma, noise):
    score_matching.normal_like = lambda *a: noise
    return score_matching.denoising_score_matching(score, x, sigma)
""",
            "coursework.score_matching.denoising_score_matching",
        ),
    ],
    "4.5": [
        (
            """
from coursework import predictions
def from_score(s, x_t, alpha, sigma):
    to = lambda target: predictions.convert(s, x_t, alpha, sigma, source="score", target=target)
    return to("noise"), to("data"), to("velocity")
""",
            "coursework.predictions.convert",
        ),
    ],
    "4.6": [
        (
            """
from coursework.predictions import tweedie
def wiener(x_t, mean, covariance, alpha, sigma):
    noisy = alpha**2 * covariance + sigma**2 * torch.eye(len(mean)).to(mean)
    return tweedie(x_t, -torch.linalg.solve(noisy, (x_t - alpha * mean).T).T, alpha, sigma)
""",
            "coursework.predictions.tweedie",
        ),
        (
            """
from coursework.distributions import GaussianMixture
def wiener(x_t, mean, covariance, alpha, sigma):
    return GaussianMixture(mean[None], covariance[None]).posterior(x_t, alpha, sigma).mean
""",
            MIXTURE,
        ),
    ],
    "5.1": [
        (
            """
from coursework import langevin
def langevin_step(score, x, step_size, z):
    langevin.normal_like = lambda *a, **k: z
    return langevin.langevin(score, x, step_size, 1)
""",
            "coursework.langevin.langevin",
        ),
        (f"from {LANGEVIN} import langevin_step", f"{LANGEVIN}.langevin_step"),
    ],
    "6.1": [
        (
            "from coursework.ncsn import geometric_noise_levels as ladder",
            "coursework.ncsn.geometric_noise_levels",
        ),
        (
            """
from coursework.sdes import VESDE
def ladder(sigma_max, sigma_min, n):
    return VESDE(sigma_min, sigma_max).sigma(torch.linspace(1, 0, n, dtype=torch.float64))
""",
            "coursework.sdes.VESDE.__init__",
        ),
        (
            """
from coursework.sdes import VESDE
def ladder(sigma_max, sigma_min, n):
    sde = object.__new__(VESDE)
    sde.sigma_min, sde.sigma_max = sigma_min, sigma_max
    return sde.sigma(torch.linspace(1, 0, n, dtype=torch.float64))
""",
            "coursework.sdes.VESDE.sigma",
        ),
    ],
    "6.2": [
        (
            """
from coursework.ncsn import level_overlap
def overlap(ratio, n_dims):
    return torch.tensor([level_overlap(float(r), n_dims) for r in ratio], dtype=ratio.dtype)
""",
            "coursework.ncsn.level_overlap",
        ),
    ],
    "6.4": [
        (
            f"""
from {LANGEVIN} import langevin_step
def ladder_step(score, x, sigma, sigma_last, step, z):
    alpha = step * (sigma / sigma_last) ** 2
    return langevin_step(lambda x: score(x, sigma), x, alpha, z)
""",
            f"{LANGEVIN}.langevin_step",
        ),
    ],
    "7.3": [
        (
            """
from coursework.sdes import SubVPSDE
def sub_vp_diffusion(beta, integrated_beta):
    sde = object.__new__(SubVPSDE)
    sde.beta, sde.integrated_beta = lambda t: beta, lambda t: integrated_beta
    return sde.diffusion(0)
""",
            "coursework.sdes.SubVPSDE.diffusion",
        ),
    ],
    "9.1": [
        (
            """
from coursework.probability_flow import euler
def euler_step(score, sde, x, t, t_next):
    return euler(score, sde, x, torch.stack([t, t_next]))
""",
            "coursework.probability_flow.euler",
        ),
        (
            """
def euler_step(score, sde, x, t, t_next):
    return x + (t_next - t) * sde.probability_flow(x, t, score(x, t))
""",
            "coursework.sdes.SDE.probability_flow",
        ),
        (
            """
def euler_step(score, sde, x, t, t_next):
    return x + (t_next - t) * (sde.drift(x, t) + sde.reverse_drift(x, t, score(x, t))) / 2
""",
            "coursework.sdes.SDE.reverse_drift",
        ),
    ],
    "9.2": [
        (
            """
from coursework import probability_flow as p
def heun_step(score, sde, x, t, t_next):
    return p.heun(score, sde, x, torch.stack([t, t_next]))
""",
            "coursework.probability_flow.heun",
        ),
    ],
    "9.4": [
        (
            """
from coursework.sdes import karras_times
def karras_grid(sde, n_steps, rho):
    return karras_times(sde, n_steps, rho=rho)
""",
            "coursework.sdes.karras_times",
        ),
    ],
    "9.6": [
        (
            """
from coursework import probability_flow
def great_circle(z_a, z_b, w):
    return probability_flow._great_circle(z_a, z_b, w[:, None])
""",
            "coursework.probability_flow._great_circle",
        ),
    ],
    "10.2": [
        (
            """
from coursework import likelihood
def hutchinson_divergence(velocity, x, probes):
    t = torch.zeros((), dtype=x.dtype)
    return likelihood._score_and_divergence(lambda x, t: velocity(x), x, t, list(probes))[1]
""",
            "coursework.likelihood._score_and_divergence",
        ),
    ],
    "10.5": [
        (
            """
from coursework.likelihood import bits_per_dim
def bits(log_prob, n_dims, n_levels, low, high):
    return bits_per_dim(log_prob, n_dims, n_levels=n_levels, low=low, high=high)
""",
            "coursework.likelihood.bits_per_dim",
        ),
    ],
    "11.1": [
        (
            """
from coursework.guidance import classifier_guidance
def classifier_guided(score, log_prob_label, label, scale, x, t):
    return classifier_guidance(score, log_prob_label, label, scale)(x, t)
""",
            "coursework.guidance.classifier_guidance",
        ),
    ],
    "11.2": [
        (
            """
from coursework.guidance import classifier_free_guidance
def free_guided(conditional_score, label, scale, x, t):
    return classifier_free_guidance(conditional_score, label, scale)(x, t)
""",
            "coursework.guidance.classifier_free_guidance",
        ),
    ],
    "12.1": [
        (
            """
from coursework.ddpm import DiscreteSchedule
def jump(betas, x0, t, noise):
    return DiscreteSchedule(betas).perturb(x0, t, noise)
""",
            "coursework.ddpm.DiscreteSchedule.__init__",
        ),
    ],
    "13.1": [
        (
            """
from coursework.inverse_problems import GaussianMixture, condition
def gaussian_posterior_score(x, alpha, sigma, mean, covariance, operator, y, std):
    law = condition(GaussianMixture(mean[None], covariance[None]), operator, y, float(std))
    return law.diffuse(alpha, sigma).score(x)
""",
            MIXTURE,
        ),
    ],
    "13.2": [
        (
            """
from coursework.inverse_problems import posterior_score
def pseudoinverse_guided(score, sde, operator, y, noise_std, x, t):
    return posterior_score(score, sde, operator, y, float(noise_std))(x, t)
""",
            "coursework.inverse_problems.posterior_score",
        ),
    ],
}
