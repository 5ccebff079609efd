"""Errors of fast solvers at equal numbers of network calls: the course's beside those of other packages.

    python benchmarks/solvers.py [--seeds 5] [--points 2048] [--calls 10 20 40] [--fits 1]
    python benchmarks/solvers.py --check       (is every peer driven right? its error with many calls, and its order)

Two laws: 8 modes on a circle in 2-D, and 10 isotropic components in 64-D. The network is exact. All start at the last
step of DDPM's linear table, at the same points of the exact law there. The error is that to the exact flow's end at
the data: the root mean square over the 99% of points with the least error, since a point that ends on another mode
would decide everything alone; the mean over the seeds. Each seed is another law and other points. Calls are counted,
a last x0_hat among them; a solver of two calls a step makes half as many steps.

The peers (diffusers, k-diffusion, azula, smalldiffusion; one that is not installed is left out) run in their own
schedulers and samplers, and the network answers exactly for the noise level with which they compute, also where they
round its time label. Each has all time grids that its package documents, ending at sigma = 0 or at the least sigma
and an x0_hat; the best of them for each law and number of calls counts, and is named. `default_times` sees the SDE and
the number of calls; `fit_times` is fitted on 512 other points, and what that took is in the table.
"""

import argparse
import importlib
import inspect
import math
import warnings
from collections import defaultdict
from functools import partial

import torch
from tqdm import tqdm

from coursework.ddpm import DiscreteSchedule, linear_betas
from coursework.distributions import GaussianMixture, exact_score
from coursework.fast_solvers import default_times, dpm_solver, edm_heun, exponential_multistep, fit_times
from coursework.predictions import tweedie
from coursework.sdes import SDE

KEPT, PILOTS, FINE = 0.99, 512, 300  # the share of points that counts, points of a fit, steps of the exact flow
BEST = partial(exponential_multistep, order=3, corrector=True)


class Table(SDE):
    """DDPM's linear table: t = (index + 1) / 1000, log alpha_bar linear between, alpha_bar(0) = 1."""

    t_min = 1e-3

    def __init__(self):
        alpha_bar = DiscreteSchedule(linear_betas()).alpha_bar
        self.log_alpha_bar = torch.cat([torch.zeros(1, dtype=torch.float64), alpha_bar.log()])

    def _at(self, t):
        place = 1000 * t.double()
        k = place.floor().long().clamp(0, 999)
        low, high = self.log_alpha_bar[k], self.log_alpha_bar[k + 1]
        return (low + (place - k) * (high - low)).to(t.dtype)

    def alpha(self, t):
        """sqrt(alpha_bar)."""
        return torch.exp(0.5 * self._at(t))

    def sigma(self, t):
        """sqrt(1 - alpha_bar)."""
        return torch.sqrt(-torch.expm1(self._at(t)))


TABLE = Table()
ALPHA_BAR = TABLE.log_alpha_bar[1:].exp()
LEVELS = torch.sqrt((1 - ALPHA_BAR) / ALPHA_BAR)  # sigma / alpha of the table
LEAST, MOST = float(LEVELS[0]), float(LEVELS[-1])


def ring(generator):
    """8 modes on a circle of radius 1.4, standard deviation 0.15, random weights."""
    angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
    means = 1.4 * torch.stack([angles.cos(), angles.sin()], 1)
    weights = 0.1 + torch.rand(8, generator=generator, dtype=torch.float64)
    return GaussianMixture(means, torch.full((8,), 0.15**2, dtype=torch.float64), weights)


def cluster(generator):
    """10 components in 64-D, means N(0, I), standard deviations 0.1 to 0.4."""
    means = torch.randn(10, 64, generator=generator, dtype=torch.float64)
    return GaussianMixture(means, (0.1 + 0.3 * torch.rand(10, generator=generator, dtype=torch.float64)) ** 2)


LAWS = {"2-D": ring, "64-D": cluster}


def smooth(generator):
    """Three wide modes in 2-D, for orders: few steps are many here."""
    means = torch.tensor([[-1.2, 0.2], [0.9, 0.7], [0.3, -1.0]], dtype=torch.float64)
    return GaussianMixture(means, torch.full((3,), 0.25, dtype=torch.float64))


class Network:
    """The exact predictions for y = x / alpha at s = sigma / alpha, of a law of round modes. It counts its calls."""

    def __init__(self, law):
        self.n_calls, self.means = 0, law.means
        self.variances, self.log_weights = law.covariances[:, 0, 0], law.weights.log()

    def data(self, y, s):
        """E[x0 | y] = y + s^2 sum_k r_k (mu_k - y) / (v_k + s^2), r_k the posterior probability of mode k."""
        self.n_calls += 1
        y, wide = y.double(), self.variances + float(s) ** 2
        distances = y.square().sum(1, keepdim=True) - 2 * y @ self.means.T + self.means.square().sum(1)
        log_joint = self.log_weights - 0.5 * (distances / wide + y.shape[1] * wide.log())
        pulls = torch.softmax(log_joint, 1) / wide
        return y + float(s) ** 2 * (pulls @ self.means - pulls.sum(1, keepdim=True) * y)

    def noise(self, y, s):
        """(y - E[x0 | y]) / s."""
        return (y.double() - self.data(y, s)) / float(s)


class Problem:
    """A law, its points at T and where the flow takes them, in x; other points for a fit."""

    def __init__(self, make, seed, n_points):
        generator = torch.Generator().manual_seed(seed)
        self.law = make(generator)
        self.score = exact_score(self.law, TABLE)
        self.alpha, sigma = (f(torch.tensor(1.0, dtype=torch.float64)) for f in (TABLE.alpha, TABLE.sigma))
        at_the_end = self.law.diffuse(self.alpha, sigma)
        self.x, self.pilots = (at_the_end.sample(n, generator=generator) for n in (n_points, PILOTS))
        log_snr = torch.linspace(float(TABLE.log_snr(1.0)), -2 * math.log(1e-3), FINE + 1, dtype=torch.float64)
        fine = torch.cat([torch.ones(1, dtype=torch.float64), TABLE.time_of_log_snr(log_snr[1:])])
        self.exact = denoised(BEST, self.score, self.x, fine)

    def error(self, got):
        """Root mean square over the points that count; infinite where a solver left the numbers."""
        squares = (got - self.exact).square().mean(1).nan_to_num(math.inf).sort().values
        return float(squares[: math.ceil(KEPT * len(squares))].mean().sqrt())


def denoised(solver, score, x, times):
    """The solver's end, and x0_hat there."""
    x, t = solver(score, TABLE, x, times), times[-1]
    return tweedie(x, score(x, t), TABLE.alpha(t), TABLE.sigma(t))


# -- the course's ------------------------------------------------------------------------------------------------------

# solver, calls a step, one of them less for x0_hat
OURS = {
    "exponential_multistep, order 3, corrector": (BEST, 1),
    "exponential_multistep, order 2": (exponential_multistep, 1),
    "exponential_multistep, order 3": (partial(exponential_multistep, order=3), 1),
    "dpm_solver, order 2": (dpm_solver, 2),
    "dpm_solver, order 3": (partial(dpm_solver, order=3), 3),
    "edm_heun": (edm_heun, 2),
}


def ours(problem, solver, calls_a_step, n_calls):
    """The error on default_times."""
    made = 0

    def score(x, t):
        nonlocal made
        made += 1
        return problem.score(x, t)

    times = default_times(TABLE, (n_calls - 1) // calls_a_step)
    error = problem.error(denoised(solver, score, problem.x, times))
    assert made <= n_calls, f"{made} calls where {n_calls} were allowed"
    return error


def fitted(problem, n_calls):
    """The error on fit_times, and the calls that the fit made."""
    made = []
    times = fit_times(
        BEST, problem.score, TABLE, problem.pilots, n_calls - 1, on_round=lambda n, times, error: made.append(n)
    )
    return problem.error(denoised(BEST, problem.score, problem.x, times)), made[-1]


# -- peers -------------------------------------------------------------------------------------------------------------


class Peer:
    """A solver of a package, the order that it reaches, and for each grid run(network, y at T, n_calls) -> x0."""

    def __init__(self, package, name, order, runs):
        self.package, self.name, self.order, self.runs = package, name, order, runs

    def error(self, problem, grid, n_calls):
        """Of one run."""
        network = Network(problem.law)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            got = self.runs[grid](network, problem.x / problem.alpha, n_calls)
        assert network.n_calls <= n_calls, f"{self.name}: {network.n_calls} calls where {n_calls} were allowed"
        return problem.error(got)


def steps(n_calls, a_step, extra):
    """The most steps of a_step calls each, `extra` calls aside."""
    return max(1, (n_calls - extra) // a_step)


GRIDS = {
    "linspace": {"timestep_spacing": "linspace"},
    "leading": {"timestep_spacing": "leading"},
    "trailing": {"timestep_spacing": "trailing"},
    "Karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "lambda": {"use_lu_lambdas": True},
}


def diffusers_peers():
    """Schedulers of diffusers, with their default options but for those that clip the data."""
    import diffusers
    from diffusers import schedulers as of

    diffusers.utils.logging.set_verbosity_error()
    zero = {"final_sigmas_type": "zero"}
    least = {"final_sigmas_type": "sigma_min"}
    multistep, unipc, edm = (
        of.DPMSolverMultistepScheduler,
        of.UniPCMultistepScheduler,
        of.EDMDPMSolverMultistepScheduler,
    )
    exact = {"clip_sample": False, "set_alpha_to_one": True}
    noise = {"algorithm_type": "dpmsolver"}
    # solver: its class, order, options, calls a step, calls more than that
    solvers = {
        "DDIM": (of.DDIMScheduler, 1, exact, 1, 0),
        "PNDM (PLMS)": (of.PNDMScheduler, 2, {"set_alpha_to_one": True, "skip_prk_steps": True}, 1, 1),
        "Euler": (of.EulerDiscreteScheduler, 1, {}, 1, 0),
        "LMS": (of.LMSDiscreteScheduler, 4, {}, 1, 0),
        "Heun": (of.HeunDiscreteScheduler, 2, {}, 2, -1),
        "DPM2": (of.KDPM2DiscreteScheduler, 2, {}, 2, -1),
        "DPM-Solver++(2M)": (multistep, 2, {}, 1, 0),
        "DPM-Solver++(2M), Heun": (multistep, 2, {"solver_type": "heun"}, 1, 0),
        "DPM-Solver++(3M)": (multistep, 2, {"solver_order": 3}, 1, 0),
        "DPM-Solver(2M)": (multistep, 2, noise, 1, 0),
        "DPM-Solver(3M)": (multistep, 2, noise | {"solver_order": 3}, 1, 0),
        "DPM-Solver++(2S)": (of.DPMSolverSinglestepScheduler, 2, {}, 1, 0),
        "DPM-Solver++(3S)": (of.DPMSolverSinglestepScheduler, 3, {"solver_order": 3}, 1, 0),
        "UniPC-2": (unipc, 3, {}, 1, 0),
        "UniPC-2, bh1": (unipc, 3, {"solver_type": "bh1"}, 1, 0),
        "UniPC-3": (unipc, 3, {"solver_order": 3}, 1, 0),
        "DEIS-2": (of.DEISMultistepScheduler, 2, {}, 1, 0),
        "DEIS-3": (of.DEISMultistepScheduler, 3, {"solver_order": 3}, 1, 0),
        "SA-Solver, tau 0": (of.SASolverScheduler, 2, {"tau_func": lambda t: 0}, 1, 0),
        "EDM Euler": (of.EDMEulerScheduler, 1, {}, 1, 0),
        "EDM DPM-Solver++(2M)": (edm, 2, {}, 1, 0),
        "EDM DPM-Solver++(3M)": (edm, 2, {"solver_order": 3}, 1, 0),
    }
    for name, (make, order, options, a_step, extra) in solvers.items():
        known, runs = inspect.signature(make).parameters, {}
        if "sigma_schedule" in known:
            grids = {
                f"{grid} from {low:.3g}": {"sigma_schedule": grid, "sigma_min": low}
                for grid in ("karras", "exponential")
                for low in (LEAST, 0.03)
            }
            options = options | {"sigma_max": MOST, "sigma_data": 1.0}
        else:
            grids = {grid: chosen for grid, chosen in GRIDS.items() if all(key in known for key in chosen)}
            options = options | {"beta_start": 1e-4, "beta_end": 0.02}
        for grid, chosen in grids.items():
            if "final_sigmas_type" not in known:
                ends = {"": {}}
            elif options.get("algorithm_type") == "dpmsolver":
                ends = {", x0_hat": least}
            else:
                ends = {"": zero, ", x0_hat": least}
            for how, end in ends.items():
                runs[grid + how] = partial(by_diffusers, partial(make, **options, **chosen, **end), a_step, extra)
        yield Peer("diffusers", name, order, runs)


def by_diffusers(make, a_step, extra, network, y, n_calls):
    """A scheduler's loop as its pipelines have it; x0_hat where it ends with noise."""
    scheduler = make()
    edm = "sigma_schedule" in scheduler.config
    lifted = edm or "init_noise_sigma" in vars(type(scheduler))  # its x is y, otherwise y alpha
    ends_with_noise = scheduler.config.get("final_sigmas_type") == "sigma_min" or type(scheduler).__name__ in (
        "DEISMultistepScheduler",
        "SASolverScheduler",
    )
    n = steps(n_calls, a_step, extra + ends_with_noise)
    scheduler.set_timesteps(n)
    idle = ends_with_noise and bool(scheduler.sigmas[-1] == scheduler.sigmas[-2])  # its last step would do nothing
    scheduler.set_timesteps(n + idle)
    x = y / math.hypot(1, MOST)
    if lifted:
        x = x * math.hypot(1, float(scheduler.sigmas.max()))
    for t in scheduler.timesteps[: len(scheduler.timesteps) - idle]:
        x_in = scheduler.scale_model_input(x, t)
        s = level(scheduler, t)
        size = math.hypot(1, s)
        out = e = network.noise(x_in * size, s)
        if edm:
            out = s * x_in - size * e
        x = scheduler.step(out.to(x.dtype), t, x, return_dict=False)[0]
    if not ends_with_noise:
        return x
    s = float(scheduler.sigmas[-1])
    return network.data(x if lifted else x * math.hypot(1, s), s)


def level(scheduler, t):
    """sigma / alpha with which the scheduler computes now."""
    if not hasattr(scheduler, "sigmas"):
        return float(LEVELS[int(t)])
    inner = hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order
    return float((scheduler.sigmas_interpol if inner else scheduler.sigmas)[scheduler.step_index or 0])


def k_diffusion_peers():
    """Samplers of k-diffusion around its own wrapper of a DDPM network."""
    from k_diffusion import external, sampling

    def grid(make, low):
        return lambda wrapper, n: make(n, low, MOST).double()

    grids = {"its own": lambda wrapper, n: wrapper.get_sigmas(n).double()}
    for low in (LEAST, 0.03):
        grids[f"Karras from {low:.3g}"] = grid(sampling.get_sigmas_karras, low)
        grids[f"exponential from {low:.3g}"] = grid(sampling.get_sigmas_exponential, low)
    still = {"eta": 0.0, "noise_sampler": lambda *_: 0.0}
    solvers = {
        "Euler": (sampling.sample_euler, 1, {}, 1, 0),
        "Heun": (sampling.sample_heun, 2, {}, 2, -1),
        "DPM2": (sampling.sample_dpm_2, 2, {}, 2, -1),
        "LMS-2": (sampling.sample_lms, 2, {"order": 2}, 1, 0),
        "LMS-3": (sampling.sample_lms, 3, {"order": 3}, 1, 0),
        "LMS-4": (sampling.sample_lms, 4, {}, 1, 0),
        "DPM-Solver++(2S)": (sampling.sample_dpmpp_2s_ancestral, 2, still, 2, -1),
        "DPM-Solver++(2M)": (sampling.sample_dpmpp_2m, 2, {}, 1, 0),
        "DPM-Solver++(2M), Heun": (sampling.sample_dpmpp_2m_sde, 2, still | {"solver_type": "heun"}, 1, 0),
        "DPM-Solver++(3M)": (sampling.sample_dpmpp_3m_sde, 2, still, 1, 0),
    }

    def wrapped(network):
        def eps(x, t):
            s = wrapper.t_to_sigma(t[0])
            return network.noise(x * math.hypot(1, float(s)), s)

        wrapper = external.DiscreteEpsDDPMDenoiser(eps, ALPHA_BAR, quantize=False)
        return wrapper

    def run(sample, options, a_step, extra, sigmas, network, y, n_calls):
        wrapper = wrapped(network)
        return sample(wrapper, y, sigmas(wrapper, steps(n_calls, a_step, extra)), disable=True, **options)

    def fast(low, network, y, n_calls):
        x = sampling.sample_dpm_fast(wrapped(network), y, low, MOST, n_calls - 1, disable=True)
        return network.data(x, low)

    for name, (sample, order, options, a_step, extra) in solvers.items():
        runs = {grid: partial(run, sample, options, a_step, extra, sigmas) for grid, sigmas in grids.items()}
        yield Peer("k-diffusion", name, order, runs)
    runs = {f"lambda from {low:.3g}, x0_hat": partial(fast, low) for low in (LEAST, 0.03, 0.1)}
    yield Peer("k-diffusion", "DPM-Solver fast", 3, runs)


def azula_peers():
    """Samplers of azula on its own schedules, which are its grids, and on DDPM's table."""
    from azula import denoise, noise, sample

    class OfTheTable(noise.Schedule):
        def __call__(self, t):
            t = TABLE.t_min + (1 - TABLE.t_min) * t
            return TABLE.alpha(t), TABLE.sigma(t)

    class Exact(denoise.Denoiser):
        def __init__(self, network, schedule):
            super().__init__()
            self.network, self.schedule = network, schedule

        def forward(self, x_t, t, **kwargs):
            alpha, sigma = self.schedule(t)
            return denoise.DiracPosterior(mean=self.network.data(x_t / alpha, sigma / alpha))

    def run(make, options, a_step, schedule, network, y, n_calls):
        options = options | {"steps": steps(n_calls, a_step, 1), "silent": True, "dtype": torch.float64}
        first, last = (schedule(torch.tensor(t, dtype=torch.float64)) for t in (1.0, 0.0))
        x = make(Exact(network, schedule), **options)(y * first[0])
        return network.data(x / last[0], last[1] / last[0])

    schedules = {"uniform in t": OfTheTable()}
    for low in (1e-3, LEAST, 0.03):
        alpha = math.sqrt((1 + low**2) / (1 + MOST**2))
        schedules |= {
            f"VE from {low:.3g}": noise.VESchedule(low, MOST),
            f"VP from {low:.3g}": noise.VPSchedule(alpha, low),
            f"cosine from {low:.3g}": noise.CosineSchedule(alpha, low),
            f"rectified from {low:.3g}": noise.RectifiedSchedule(1 / MOST, low),
            f"decay from {low:.3g}": noise.DecaySchedule(1 / MOST, low),
        }
    solvers = {"DDIM": (sample.DDIMSampler, 1, {}, 1), "Heun": (sample.HeunSampler, 2, {}, 2)}
    for make in (sample.zABSampler, sample.vABSampler, sample.zEABSampler, sample.xEABSampler, sample.REABSampler):
        for order in (2, 3):  # REAB takes sigma_t for sigma_s in its last factor: order 1
            reached = 1 if make is sample.REABSampler else order
            solvers[f"{make.__name__.removesuffix('Sampler')}-{order}"] = (make, reached, {"order": order}, 1)
    for name, (make, order, options, a_step) in solvers.items():
        runs = {grid: partial(run, make, options, a_step, schedule) for grid, schedule in schedules.items()}
        yield Peer("azula", name, order, runs)


def smalldiffusion_peers():
    """smalldiffusion's sampler on its own schedules."""
    import smalldiffusion
    from accelerate import Accelerator

    class Exact(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def rand_input(self, n):
            return torch.zeros(())

        def predict_eps_cfg(self, x, sigma, cond, cfg_scale):
            return self.network.noise(x, sigma)

    def run(gam, schedule, network, y, n_calls):
        sigmas = schedule.sample_sigmas(n_calls - 1).double()
        *_, x = smalldiffusion.samples(Exact(network), sigmas, gam=gam, xt=y, accelerator=Accelerator(cpu=True))
        return network.data(x, sigmas[-1])

    schedules = {"trailing": smalldiffusion.ScheduleDDPM(1000)}
    for low in (LEAST, 0.02):
        schedules[f"log-linear from {low:.3g}"] = smalldiffusion.ScheduleLogLinear(1000, low, MOST)
    for name, gam in (("DDIM", 1.0), ("accelerated", 2.0)):
        yield Peer("smalldiffusion", name, 1, {grid: partial(run, gam, s) for grid, s in schedules.items()})


PACKAGES = {
    "diffusers": diffusers_peers,
    "k_diffusion": k_diffusion_peers,
    "azula": azula_peers,
    "smalldiffusion": smalldiffusion_peers,
}


def peers():
    """Those of the packages that are there; a line for each that is not."""
    found = []
    for package, make in PACKAGES.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(package)
                found += make()
        except ImportError as error:
            print(f"{package.replace('_', '-')} is left out: {error}", flush=True)
    return found


# -- tables ------------------------------------------------------------------------------------------------------------


def mean(values):
    """Of numbers."""
    values = list(values)
    return sum(values) / len(values)


def measure(make, seeds, n_points, all_calls, n_fits, found):
    """A law's rows: (solver, package, errors, remarks), each with one error and one remark for each number of calls."""
    problems = [Problem(make, seed, n_points) for seed in range(seeds)]
    screen = Problem(make, 0, 256)
    total = len(all_calls) * (len(OURS) + 1 + len(found))
    with tqdm(total=total, desc=make.__name__) as bar:

        def row(name, package, one):
            cells = []
            for n_calls in all_calls:
                cells.append(one(n_calls))
                bar.update()
            return name, package, *map(list, zip(*cells, strict=True))

        rows = []
        for name, (solver, a_step) in OURS.items():
            one = lambda n, s=solver, k=a_step: (mean(ours(p, s, k, n) for p in problems), "default_times")  # noqa: E731
            rows.append(row(name, "the course", one))

        def fit(n_calls):
            errors, made = zip(*(fitted(p, n_calls) for p in problems[:n_fits]), strict=True)
            return mean(errors), f"fit_times, {mean(made):,.0f} calls"

        rows.append(row(f"{next(iter(OURS))}, fitted", "the course", fit))
        for peer in found:

            def best(n_calls, peer=peer):
                grid = min(peer.runs, key=lambda grid: peer.error(screen, grid, n_calls))
                return mean(peer.error(p, grid, n_calls) for p in problems), grid

            rows.append(row(peer.name, peer.package, best))
    return rows


def table(law, rows, all_calls):
    """All rows in Markdown."""
    calls = " | ".join(f"{n} calls" for n in all_calls)
    yield f"| {law} | | {calls} | grids |"
    yield "|---|---|" + "---|" * (len(all_calls) + 1)
    for name, package, errors, remarks in rows:
        grids = remarks[0] if len(set(remarks)) == 1 else " / ".join(remarks)
        yield f"| {name} | {package} | {' | '.join(f'{e:.2g}' for e in errors)} | {grids} |"


def summary(laws, all_calls):
    """The course's best solver on both kinds of grid, and the best of each package for each number of calls."""
    calls = " | ".join(f"{law}, {n}" for law in laws for n in all_calls)
    yield f"| calls | {calls} |"
    yield "|---|" + "---|" * len(laws) * len(all_calls)
    groups = defaultdict(list)
    for law, rows in laws.items():
        for name, package, errors, _ in rows:
            if package != "the course":
                groups[f"the best of {package}"].append((law, errors))
            elif name.startswith(next(iter(OURS))):
                groups["`fit_times`" if name.endswith("fitted") else "`default_times`"].append((law, errors))
    for group, found in groups.items():
        cells = [min(errors[i] for of, errors in found if of == law) for law in laws for i in range(len(all_calls))]
        yield f"| {group} | {' | '.join(f'{e:.2g}' for e in cells)} |"


def check(found):
    """Each peer's errors with 20, 40 and 80 calls on even steps in lambda, and the order that they show."""
    problem, wrong = Problem(smooth, 100, 128), []
    for peer in found:
        even = [g for g in peer.runs if g.startswith(("exponential", "lambda", "VE", "log-linear"))] or list(peer.runs)
        errors = [[peer.error(problem, grid, n) for n in (20, 40, 80)] for grid in even[:2]]
        order = max(math.log2(max(a / b, b / c)) for a, b, c in errors if c < math.inf)
        least = min(c for *_, c in errors)
        right = order > peer.order - 0.5 and least < (0.03 if peer.order == 1 else 0.01)
        print(f"{peer.package:15} {peer.name:25} order {order:.1f} of {peer.order}, error {least:.1e}", flush=True)
        if not right:
            wrong.append(f"{peer.package} {peer.name}")
    return wrong


def main(seeds, n_points, all_calls, n_fits):
    """A table for each law, and a short one."""
    found, laws = peers(), {}
    n_left = n_points - math.ceil(KEPT * n_points)
    print(f"{seeds} seeds, {n_points} points, {n_left} of them left out of each error, {len(found)} peers\n")
    for law, make in LAWS.items():
        laws[law] = measure(make, seeds, n_points, all_calls, n_fits, found)
        print("\n".join(table(law, laws[law], all_calls)) + "\n", flush=True)
    print("\n".join(summary(laws, all_calls)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--points", type=int, default=2048)
    parser.add_argument("--calls", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--fits", type=int, default=1, help="seeds on which times are fitted")
    parser.add_argument("--check", action="store_true", help="measure every peer's order instead")
    options = parser.parse_args()
    if options.check:
        raise SystemExit("\n".join(f"{name} is driven wrong" for name in check(peers())))
    main(options.seeds, options.points, options.calls, options.fits)
