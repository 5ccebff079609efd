"""Plausible answers that are wrong and must not pass, by exercise: shortcuts, and formulas for a special case."""

from itertools import pairwise

import torch

from coursework.exercises.lesson_13.answers import deblurred


def central_differences(fn, x, v, h):
    """(fn(x + h v) - fn(x - h v)) / (2 h)."""
    return (fn(x + h * v) - fn(x - h * v)) / (2 * h)


def energy_by_differences(energy, x, h):
    basis = torch.eye(x.shape[1], dtype=x.dtype)
    return -torch.stack([central_differences(energy, x, e, h) for e in basis], 1)


def merging_of_well_separated_modes(offset, std):
    """sqrt(a^2 - b^2) is near a - b^2 / (2 a) for a small b."""
    return offset - std**2 / (2 * offset)


def trace_by_differences(fn, x, h):
    return sum(central_differences(fn, x, e, h) @ e for e in torch.eye(x.shape[1], dtype=x.dtype))


def implicit_by_differences(score, x, h):
    return (trace_by_differences(score, x, h) + 0.5 * (score(x) ** 2).sum(1)).mean()


def form_by_differences(score, x, v, h):
    return (central_differences(score, x, v, h) * v).sum(1)


def ssm_by_differences(score, x, v, h):
    return (form_by_differences(score, x, v, h) + 0.5 * (score(x) * v).sum(1) ** 2).mean()


def vr_by_differences(score, x, v, h):
    forms = torch.stack([form_by_differences(score, x, w, h) for w in v])
    return forms.mean() + 0.5 * (score(x) ** 2).sum(1).mean()


def slopes_for_dimension(n_dims):
    return lambda covariance, radius: torch.stack([-n_dims / covariance.trace(), -(radius**2) / covariance.trace()])


def wiener_on_the_cpu(x_t, mean, covariance, alpha, sigma):
    noisy = alpha**2 * covariance + sigma**2 * torch.eye(len(mean), dtype=mean.dtype)
    return mean + alpha * torch.linalg.solve(noisy, (x_t - alpha * mean).T).T @ covariance


def vp_velocity(score, sde, x, t):
    return -0.5 * sde.beta(t) * (x + score(x, t))


def vp_euler(score, sde, x, t, t_next):
    return x + (t_next - t) * vp_velocity(score, sde, x, t)


def vp_heun(score, sde, x, t, t_next):
    end = vp_euler(score, sde, x, t, t_next)
    return x + 0.5 * (t_next - t) * (vp_velocity(score, sde, x, t) + vp_velocity(score, sde, end, t_next))


def karras_between(first, last):
    """The grid from one time to another, whatever the SDE says."""

    def grid(sde, n_steps, rho):
        t = torch.tensor([first or sde.T, sde.t_min if last is None else last], dtype=torch.float64)
        start, end = ((sde.sigma(t) / sde.alpha(t)) ** (1 / rho)).tolist()
        return sde.time_of_log_snr(-2 * (torch.linspace(start, end, n_steps + 1, dtype=torch.float64) ** rho).log())

    return grid


def variance_between(first, last):
    """The flow's variance between two times, whatever the SDE says."""

    def formula(variance, sde, strength):
        t = torch.tensor([sde.t_min if last is None else last, first or sde.T], dtype=torch.float64)
        alpha = sde.alpha(t)
        y, y_start = variance + sde.sigma(t) ** 2 / alpha**2
        return alpha[0] ** 2 * y_start * (y / y_start) ** strength

    return formula


def vp_rates(score, trace, sde, x, t):
    half = -0.5 * sde.beta(t)
    return half * (x + score(x, t)), half * (x.shape[1] + trace(x, t))


def vp_likelihood(score, trace, sde, x, times):
    total = 0.0
    for t, later in pairwise(times):
        v, divergence = vp_rates(score, trace, sde, x, t)
        x, total = x + (later - t) * v, total + (later - t) * divergence
    return sde.prior_log_prob(x) + total


def divergence_by_differences(velocity, x, probes, h):
    return torch.stack([form_by_differences(velocity, x, v, h) for v in probes]).mean(0)


def guided_by_differences(score, log_prob_label, label, scale, x, t, h):
    rows, basis = torch.arange(len(x)), torch.eye(x.shape[1], dtype=x.dtype)
    chosen = [central_differences(lambda y: log_prob_label(y, t)[rows, label], x, e, h) for e in basis]
    return score(x, t) + scale * torch.stack(chosen, 1)


def pseudoinverse_on_the_cpu(score, sde, operator, y, noise_std, x, t):
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    leaf = x.detach().requires_grad_()
    value = score(leaf, t)
    gap = y - (leaf + sigma**2 * value) / alpha @ operator.T
    r2 = sigma**2 / (alpha**2 + sigma**2)
    variance = r2 * operator @ operator.T + noise_std**2 * torch.eye(len(operator), dtype=x.dtype)
    log_likelihood = -0.5 * (gap * torch.linalg.solve(variance, gap.T).T).sum()
    return value.detach() + torch.autograd.grad(log_likelihood, leaf)[0]


def refusing(error, on_the_cpu):
    """An answer that is right on the CPU only, and raises an error of its own elsewhere."""

    def answer(*args):
        if any(getattr(value, "is_meta", False) for value in args):
            raise error
        return on_the_cpu(*args)

    return answer


NO_VALUES = "Cannot copy out of meta tensor; no data!"  # torch's own words, from somebody else
ERRORS = (ValueError("not here"), AssertionError(), RuntimeError(NO_VALUES), NotImplementedError(NO_VALUES))


def free_guided_with_the_label_after_the_last(conditional_score, label, scale, x, t):
    labels = torch.cat([label, torch.full_like(label, int(label.max()) + 1)])
    with_label, without = conditional_score(torch.cat([x, x]), torch.cat([t, t]), labels).chunk(2)
    return without + scale * (with_label - without)


def deblurred_by_a_kernel_of_sum_one(y, kernel, mean, spectrum, noise_std):
    return deblurred(y, kernel / kernel.sum(), mean, spectrum, noise_std)


def two_m_with_r_between(low, high):
    """r = h_before / h is neither below 1 nor above it in general."""

    def step(x, x0_hat, x0_before, h_before, alpha, sigma, alpha_next, sigma_next):
        h = (alpha_next / sigma_next).log() - (alpha / sigma).log()
        middle = x0_hat + (x0_hat - x0_before) / (2 * (h_before / h).clamp(low, high))
        return sigma_next / sigma * x - alpha_next * torch.expm1(-h) * middle

    return step


# Steps of differences: too long, best and too short.
STEPS = (1e-3, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7, 1e-8)

WRONG_ANSWERS = {
    "0.1": [lambda x: x[:, 0] ** 2 + x[:, 1] ** 2 + x[:, 2] ** 2, lambda x: 3 * (x**2).mean(1)],
    "1.3": [lambda energy, x, h=h: energy_by_differences(energy, x, h) for h in STEPS],
    "1.4": [
        lambda score, x: (x.norm(dim=1) < 1).long(),
        lambda score, x: (score(x).norm(dim=1) < 1).long(),
        lambda score, x: torch.ones(len(x), dtype=torch.long),
        lambda score, x: torch.tensor([x.shape[1]]).expand(len(x)),
    ],
    "1.6": [merging_of_well_separated_modes],
    "2.3": [lambda fn, x, h=h: trace_by_differences(fn, x, h) for h in STEPS],
    "2.4": [lambda score, x, h=h: implicit_by_differences(score, x, h) for h in STEPS],
    "3.1": [lambda score, x, v, h=h: form_by_differences(score, x, v, h) for h in STEPS],
    "3.4": [lambda score, x, v, h=h: ssm_by_differences(score, x, v, h) for h in STEPS],
    "3.5": [lambda score, x, v, h=h: vr_by_differences(score, x, v, h) for h in STEPS],
    "3.6": [slopes_for_dimension(n) for n in (2, 3, 4, 5)],
    "4.6": [wiener_on_the_cpu, *(refusing(error, wiener_on_the_cpu) for error in ERRORS)],
    "7.1": [
        lambda sde, x, t, h, noise: x - 0.5 * sde.beta(t) * h * x + (sde.beta(t) * h).sqrt() * noise,
        lambda sde, x, t, h, noise: x + h * sde.drift(x, t) + (-2 * h * sde.drift_coefficient(t)).sqrt() * noise,
    ],
    "9.1": [vp_euler],
    "9.2": [vp_heun],
    "9.4": [karras_between(1.0, None), karras_between(None, 1e-3), karras_between(None, 0.0)],
    "9.5": [variance_between(1.0, None), variance_between(None, 1e-3), variance_between(None, 0.0)],
    "10.1": [vp_rates],
    "10.2": [lambda velocity, x, probes, h=h: divergence_by_differences(velocity, x, probes, h) for h in STEPS],
    "10.4": [vp_likelihood],
    "10.7": [
        lambda noise_hat, noise, sde, t: (
            0.5 * sde.beta(t) / sde.sigma(t) ** 2 * (noise_hat - noise).square().sum((1, 2))
        )
    ],
    "11.1": [lambda *args, h=h: guided_by_differences(*args, h) for h in STEPS],
    "11.2": [free_guided_with_the_label_after_the_last],
    "13.2": [pseudoinverse_on_the_cpu, refusing(ValueError("not here"), pseudoinverse_on_the_cpu)],
    "13.5": [deblurred_by_a_kernel_of_sum_one],
    "14.2": [two_m_with_r_between(None, 1), two_m_with_r_between(1, None)],
    "2.5": [lambda x, trace_weight: -trace_weight * 3 / (x**2).sum(1).mean()],
}
