"""Exact laws of one-dimensional samplers' outputs, without random numbers: the noise is put in by hand.

Samplers draw their noise with `normal_like`; here a test hands them known values instead.
"""

import contextlib

import numpy as np
import torch
from scipy.interpolate import make_interp_spline

QUADRATURE = np.polynomial.hermite_e.hermegauss(16)  # nodes and weights for z ~ N(0, 1), weights not normalised


@contextlib.contextmanager
def noise(monkeypatch, module, draw):
    """`draw(i, x)` in the place of the i-th draw of standard normal noise in `module`."""
    count = iter(range(10**9))
    with monkeypatch.context() as patch:
        patch.setattr(module, "normal_like", lambda x, generator: draw(next(count), x))
        yield


def linear_moments(run, mean, variance, n_draws, monkeypatch, module):
    """Exact mean and variance of run(x) for scalar x of this mean and variance, where run is linear in x and its noise.

    Row 0 starts at 0 without noise, row 1 at 1 without noise, row 2 + i at 0 with 1 as its i-th draw.
    """

    def draw(i, x):
        z = torch.zeros_like(x)
        z[2 + i] = 1
        return z

    start = torch.zeros(2 + n_draws, 1, dtype=torch.float64)
    start[1] = 1
    with noise(monkeypatch, module, draw):
        out = run(start)[:, 0]
    offset = out[0]
    slope, responses = out[1] - offset, out[2:] - offset
    return float(offset + slope * mean), float(slope**2 * variance + (responses**2).sum())


def expectation(solver, sde, law, score, times, phi, monkeypatch, module):
    """E phi(X) for X from `solver` on `times`, started from the exact law at times[0]: by quadrature alone.

    phi: (n,) -> (n, m), m functions at once; the result is (m,). Backwards: u_n = phi, u_i(x) = E u_{i+1}(one step from
    x), with Gauss-Hermite nodes for the step's noise and a quintic spline for u on a grid that follows the law.
    """
    u = np.linspace(-8, 8, 401)
    nodes, weights = QUADRATURE

    def frame(t):
        at = law.diffuse(sde.alpha(t), sde.sigma(t))
        return float(at.mean), float(at.covariance) ** 0.5

    def draw(_, x):
        return torch.as_tensor(np.tile(nodes, len(u)))[:, None]

    values = None
    for t, t_next in zip(reversed(times[:-1]), reversed(times[1:]), strict=True):
        (centre, width), (centre_next, width_next) = frame(t), frame(t_next)
        x = torch.as_tensor(np.repeat(centre + width * u, len(nodes)))[:, None]
        with noise(monkeypatch, module, draw):
            after = solver(score, sde, x, torch.stack([t, t_next]), final_noise=True)[:, 0].numpy()
        after = phi(after) if values is None else values((after - centre_next) / width_next)
        means = np.einsum("unm,n->um", after.reshape(len(u), len(nodes), -1), weights / weights.sum())
        values = make_interp_spline(u, means, k=5)
    return _integral(law, sde, times[0], lambda x: values((x - centre) / width))


def exact_expectation(law, sde, t, phi):
    """E phi(X_t) under the exact law at t, for phi: (n,) -> (n, m)."""
    return _integral(law, sde, t, phi)


def _integral(law, sde, t, phi):
    at = law.diffuse(sde.alpha(t), sde.sigma(t))
    u = np.linspace(-8, 8, 8001)
    x = float(at.mean) + float(at.covariance) ** 0.5 * u
    density = at.log_prob(torch.as_tensor(x)[:, None]).exp().numpy()
    return density @ phi(x) * (x[1] - x[0])


def orders(errors):
    """log2 of the ratios of successive errors, for step counts that double."""
    errors = np.abs(np.asarray(errors))
    return np.log2(errors[:-1] / errors[1:])
