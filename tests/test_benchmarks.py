"""The benchmarks run with tiny sizes, and drive the solvers of other packages right."""

from functools import partial

import pytest
import torch

from coursework.distributions import exact_score
from tests.helpers.benchmarks import script

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # diffusers still asks NumPy 2 in its old ways
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of its own options
]


@pytest.fixture
def solvers(monkeypatch):
    module = script("solvers")
    monkeypatch.setattr(module, "FINE", 80)
    monkeypatch.setattr(module, "PILOTS", 32)
    return module


@pytest.fixture
def alone(solvers, monkeypatch):
    """One small package of peers, and one that is not there."""

    def two():
        return [peer for peer in solvers.diffusers_peers() if peer.name in ("DDIM", "Heun")]

    monkeypatch.setattr(solvers, "PACKAGES", {"diffusers": two, "no_such_package": two})


def test_the_network_is_exact(solvers):
    for make in (solvers.ring, solvers.cluster):
        problem, t = solvers.Problem(make, 0, 16), torch.tensor(0.3, dtype=torch.float64)
        alpha, sigma = solvers.TABLE.alpha(t), solvers.TABLE.sigma(t)
        x = problem.law.diffuse(alpha, sigma).sample(16, generator=torch.Generator().manual_seed(1))
        network = solvers.Network(problem.law)
        expected = -sigma * exact_score(problem.law, solvers.TABLE)(x, t)
        torch.testing.assert_close(network.noise(x / alpha, sigma / alpha), expected, rtol=1e-9, atol=1e-9)
        assert network.n_calls == 1


def test_the_tables(solvers, alone, capsys, monkeypatch):
    monkeypatch.setattr(solvers, "fit_times", partial(solvers.fit_times, n_rounds=1))
    solvers.main(seeds=1, n_points=200, all_calls=[4], n_fits=1)
    out = capsys.readouterr().out
    assert "no-such-package is left out: No module named 'no_such_package'" in out
    assert "1 seeds, 200 points, 2 of them left out of each error, 2 peers" in out
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("| ")]
    for law in solvers.LAWS:
        assert [law, "| 4 calls", "grids"] in rows
    short = {name: [float(e) for e in errors] for name, *errors in rows[-3:]}
    assert list(short) == ["`default_times`", "`fit_times`", "the best of diffusers"]
    for fitted, default in zip(short["`fit_times`"], short["`default_times`"], strict=True):
        assert 0 < fitted < 1.5 * default
    per_solver = [row for row in rows if row[1] == "diffusers"]
    assert len(per_solver) == 4
    assert float(per_solver[0][2]) >= short["the best of diffusers"][0]


@pytest.mark.parametrize("package", ["diffusers", "k_diffusion", "azula", "smalldiffusion"])
def test_peers_converge_at_their_order(solvers, package, capsys):
    pytest.importorskip(package)
    assert solvers.check(list(solvers.PACKAGES[package]())[::3]) == []


def test_a_peer_that_is_driven_wrong_is_found(solvers, monkeypatch):
    """A network that answers for another level than it is asked for."""
    right = solvers.Network.data
    monkeypatch.setattr(solvers.Network, "data", lambda self, y, s: right(self, y, 1.05 * float(s)))
    peers = [peer for peer in solvers.diffusers_peers() if peer.name in ("DPM-Solver++(2M)", "LMS")]
    assert solvers.check(peers) == ["diffusers LMS", "diffusers DPM-Solver++(2M)"]


def test_calls_are_counted(solvers):
    def runs_on(network, y, n_calls):
        for _ in range(n_calls + 1):
            y = network.data(y, 1.0)
        return y

    problem, greedy = solvers.Problem(solvers.smooth, 0, 8), solvers.Peer("none", "greedy", 1, {"": runs_on})
    with pytest.raises(AssertionError, match=r"^greedy: 4 calls where 3 were allowed"):
        greedy.error(problem, "", 3)


def test_the_loops(capsys):
    loops = script("solver_loops")
    network = torch.nn.Module()
    network.forward = lambda x, t: -x
    loops.compare(network, torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), calls=12, rounds=1)
    out = capsys.readouterr().out
    for name in (
        "euler",
        "exponential_multistep, order 3, corrector True",
        "dpm_solver, order 3",
        "edm_heun",
        "langevin",
    ):
        assert f"\n  {name} " in out
