"""What a solver's loop costs beside the network calls that it makes: seconds of both in one run, as a ratio.

    python benchmarks/solver_loops.py [--calls 24] [--rounds 10] [--device auto]

Bare: the same network, called as often on the same batch, and nothing else. Both are timed in turn, in alternating
order. The table shows the median of the ratios within a round, and "alone": the same loop around a network that costs
nothing, over the bare calls, from the fastest rounds. The first one has the noise of the machine in it, a few per cent;
the second one leaves out what the two do to each other's caches. The network is the denoiser of lesson 04 on 64 images
of 28x28; the small perceptron on 512 points shows what a cheap network makes of the same overhead.
"""

import argparse
import functools
import statistics

import torch
from timing import seconds

from coursework.devices import pick_device
from coursework.fast_solvers import dpm_solver, edm_heun, exponential_multistep
from coursework.langevin import langevin
from coursework.nn import Denoiser, TimeMLP
from coursework.predictions import ScoreModel
from coursework.probability_flow import euler, heun, rk4
from coursework.reverse_sde import (
    ancestral,
    euler_maruyama,
    predictor_corrector,
    reverse_diffusion,
    stochastic_heun,
)
from coursework.sdes import VPSDE, uniform_times

CALLS_A_STEP = {
    euler_maruyama: 1,
    reverse_diffusion: 1,
    ancestral: 1,
    stochastic_heun: 2,
    predictor_corrector: 2,
    euler: 1,
    heun: 2,
    rk4: 4,
    exponential_multistep: 1,
    functools.partial(exponential_multistep, order=3, corrector=True): 1,
    dpm_solver: 2,
    functools.partial(dpm_solver, order=3): 3,
    edm_heun: 2,
}


class Free(torch.nn.Module):
    """A network that answers at once, always the same."""

    def __init__(self, x):
        super().__init__()
        self.answer = 0.1 * x

    def forward(self, x, t):
        """The answer, whatever was asked."""
        return self.answer


def in_turn(loop, bare, rounds, device):
    """Pairs (seconds(loop), seconds(bare)) in alternating order, after a round that warms up."""
    pairs = []
    for i in range(rounds + 1):
        times = {work: seconds(work, device) for work in ((loop, bare) if i % 2 else (bare, loop))}
        pairs.append((times[loop], times[bare]))
    return pairs[1:]


@torch.no_grad()
def compare(network, x, calls, rounds):
    """One row for each solver."""
    sde, t = VPSDE(), torch.tensor(0.5, device=x.device)
    model, free = ScoreModel(network, sde), ScoreModel(Free(x), sde)

    def bare():
        for _ in range(calls):
            network(x, t)

    def measure(name, loop):
        pairs = in_turn(functools.partial(loop, model), bare, rounds, x.device)
        alone = min(seconds(functools.partial(loop, free), x.device) for _ in range(rounds))
        report(name, pairs, alone)

    for solver, calls_a_step in CALLS_A_STEP.items():
        times = uniform_times(sde, calls // calls_a_step)
        measure(label(solver), lambda model, solver=solver, times=times: solver(model, sde, x, times))
    measure("langevin", lambda model: langevin(lambda x: model(x, t), x, 1e-3, calls))


def label(solver):
    """A solver's name, with its options."""
    if isinstance(solver, functools.partial):
        options = ", ".join(f"{key} {value}" for key, value in solver.keywords.items())
        return f"{solver.func.__name__}, {options}"
    return solver.__name__


def report(name, pairs, alone):
    """One row."""
    median = statistics.median(loop / bare for loop, bare in pairs)
    share = alone / min(bare for _, bare in pairs)
    print(f"  {name:46s} {median:.3f}   alone {share:.3f}", flush=True)


def main(calls, rounds, device):
    """Both tables."""
    device = pick_device(device)
    print(f"{calls} network calls on {device}, {rounds} rounds; loop / bare calls")
    print("denoiser, 64 x 1 x 28 x 28")
    compare(Denoiser().to(device), torch.randn(64, 1, 28, 28, device=device), calls, rounds)
    print("perceptron, 512 x 2")
    compare(TimeMLP(2).to(device), torch.randn(512, 2, device=device), calls, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="auto")
    main(**vars(parser.parse_args()))
