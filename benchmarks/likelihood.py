"""Log-likelihoods: this package beside a loop of scipy's RK45 over the same score, at equal error.

    python benchmarks/likelihood.py [--points 64]

The law is a mixture of five Gaussians with full covariances, the SDE VP, so the exact answer is known; both use the
exact law at T as the prior. The rival integrates state and log-density as one NumPy vector in t, with the exact
divergence by one backward pass a dimension (the usual way), its tolerance chosen so that its worst error over the
points is just below ours. "computed" hides the score's own divergence from our routine, "given" uses it.
"""

import argparse
import time

import numpy as np
import torch
from scipy.integrate import solve_ivp

from coursework.distributions import GaussianMixture, exact_score
from coursework.likelihood import log_likelihood
from coursework.sdes import VPSDE

SDE = VPSDE()


def mixture(n_dims):
    """Five components, full covariances."""
    stream = torch.Generator().manual_seed(n_dims)
    factors = torch.randn(5, n_dims, n_dims, generator=stream, dtype=torch.float64) / n_dims**0.5
    covariances = factors @ factors.mT + 0.2 * torch.eye(n_dims, dtype=torch.float64)
    return GaussianMixture(1.5 * torch.randn(5, n_dims, generator=stream, dtype=torch.float64), covariances)


def rival(score, x, prior_log_prob, tolerance):
    """log p of x by scipy's RK45, state and divergence through NumPy."""
    n, n_dims = x.shape

    def rate(t, state):
        y = torch.as_tensor(state[: n * n_dims].reshape(n, n_dims)).requires_grad_()
        time_ = torch.tensor(t, dtype=torch.float64)
        value = score(y, time_)
        trace = sum(torch.autograd.grad(value[:, i].sum(), y, retain_graph=True)[0][:, i] for i in range(n_dims))
        beta = float(SDE.beta(t))
        velocity = -0.5 * beta * (y.detach() + value.detach())
        divergence = -0.5 * beta * (n_dims + trace)
        return np.concatenate([velocity.numpy().ravel(), divergence.numpy()])

    start = np.concatenate([x.numpy().ravel(), np.zeros(n)])
    end = solve_ivp(rate, (SDE.t_min, SDE.T), start, method="RK45", rtol=tolerance, atol=tolerance).y[:, -1]
    return prior_log_prob(torch.as_tensor(end[: n * n_dims].reshape(n, n_dims))) + torch.as_tensor(end[n * n_dims :])


def timed(work, exact):
    """Seconds, and the worst error over the points."""
    start = time.perf_counter()
    value = work()
    return time.perf_counter() - start, float((value - exact).abs().max())


def row(n_dims, n):
    """Seconds and error of the rival, of ours with the divergence computed, and given."""
    law = mixture(n_dims)
    score = exact_score(law, SDE)
    noisy, last = (law.diffuse(SDE.alpha(t), SDE.sigma(t)) for t in (SDE.t_min, SDE.T))
    x = noisy.sample(n, generator=torch.Generator().manual_seed(0))
    exact, prior = noisy.log_prob(x), last.log_prob
    given, computed = (
        min(timed(lambda s=s: log_likelihood(s, SDE, x, prior_log_prob=prior), exact) for _ in range(2))
        for s in (score, lambda x, t: score(x, t))
    )
    tolerance, theirs = 1e-4, (0.0, float("inf"))
    while theirs[1] > computed[1] and tolerance > 1e-11:
        theirs = timed(lambda tolerance=tolerance: rival(score, x, prior, tolerance), exact)
        tolerance /= 4
    return theirs, computed, given


def main(n_points):
    """One line for each dimension."""
    for n_dims in (8, 64, 784):
        n = n_points if n_dims < 784 else max(2, n_points // 16)
        theirs, computed, given = row(n_dims, n)
        print(f"D = {n_dims}, {n} points: scipy {theirs[0]:.2f} s, worst error {theirs[1]:.1e}")
        for name, (spent, error) in (("computed", computed), ("given", given)):
            ratio = theirs[0] / spent
            print(f"  {name:8} {spent:.2f} s, worst error {error:.1e}: {ratio:.1f} times as fast", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=64)
    main(parser.parse_args().points)
