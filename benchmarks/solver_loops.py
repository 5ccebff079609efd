"""What a solver's loop costs beside the network calls that it makes: seconds of both in one run, as a ratio.

    python benchmarks/solver_loops.py [--calls 24] [--rounds 10] [--device auto]

Bare: the same network, called as often on the same batch, and nothing else. Both are timed in turn, in alternating
order. The table shows the ratio of the fastest rounds (other work on the machine only ever adds time) and, in brackets,
the median of the ratios within a round. The network is the denoiser of lesson 04 on 64 images of 28x28; the small
multilayer perceptron on 512 points shows what a cheap network makes of the same overhead.
"""

import argparse
import functools
import statistics
import time

import torch

from coursework.environment import pick_device
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
}


def seconds(work, device):
    """Wall-clock time of work(), the device's queue emptied before and after."""
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


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
    model = ScoreModel(network, sde)

    def bare():
        for _ in range(calls):
            network(x, t)

    for solver, calls_a_step in CALLS_A_STEP.items():
        times = uniform_times(sde, calls // calls_a_step)
        report(solver.__name__, in_turn(functools.partial(solver, model, sde, x, times), bare, rounds, x.device))
    chain = functools.partial(langevin, lambda x: model(x, t), x, 1e-3, calls)
    report("langevin", in_turn(chain, bare, rounds, x.device))


def report(name, pairs):
    """One row."""
    fastest = min(loop for loop, _ in pairs) / min(bare for _, bare in pairs)
    median = statistics.median(loop / bare for loop, bare in pairs)
    print(f"  {name:20s} {fastest:.3f} ({median:.3f})", flush=True)


def main(calls, rounds, device):
    """Both tables."""
    device = pick_device(device)
    print(f"{calls} network calls on {device}, {rounds} rounds; loop / bare calls: of the fastest rounds (median)")
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
