"""The four predictions against their definitions, exact posteriors, and through a network's wrapper."""

import itertools
import math

import pytest
import torch
from torch import nn

from coursework.distributions import exact_score
from coursework.predictions import PREDICTIONS, ScoreModel, convert, tweedie
from coursework.probability_flow import heun
from coursework.sdes import VESDE, VPSDE, SubVPSDE, uniform_times
from tests.helpers.laws import points, random_mixture

pytestmark = pytest.mark.usefixtures("one_thread")
PAIRS = list(itertools.product(PREDICTIONS, PREDICTIONS))
SDES = (VPSDE(), VESDE(), SubVPSDE())
LEVELS = {
    "vp": (0.6, 0.8),
    "ve": (1.0, 3.0),
    "neither": (0.5, 2.0),
    "negative alpha": (-0.5, 2.0),
    "0-d": (torch.tensor(0.9), torch.tensor(0.1).double()),
}


def known(shape, alpha, sigma):
    """x_t and its four predictions from their definitions. alpha, sigma must broadcast against `shape`."""
    x0, noise = points(math.prod(shape), 2).T.reshape(2, *shape)
    values = {"score": -noise / sigma, "noise": noise, "data": x0, "velocity": alpha * noise - sigma * x0}
    return alpha * x0 + sigma * noise, values


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("level", LEVELS)
def test_conversions_follow_the_definitions(source, target, level):
    alpha, sigma = LEVELS[level]
    x_t, values = known((5, 3), float(alpha), float(sigma))
    result = convert(values[source], x_t, alpha, sigma, source=source, target=target)
    torch.testing.assert_close(result, values[target], rtol=1e-11, atol=1e-11)
    assert source != target or torch.equal(result, values[source])  # nothing is rounded on the way to itself


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("shape", [(5, 3), (3, 3), (4, 2, 3, 3)])
def test_conversions_take_a_level_for_each_point(source, target, shape):
    alpha, sigma = torch.linspace(0.3, 1, shape[0]).double(), torch.linspace(2, 0.5, shape[0]).double()
    column = (-1, *[1] * (len(shape) - 1))
    x_t, values = known(shape, alpha.reshape(column), sigma.reshape(column))
    result = convert(values[source], x_t, alpha, sigma, source=source, target=target)
    torch.testing.assert_close(result, values[target], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_conversions_of_any_value_go_there_and_back(source, target):
    x_t, value = points(7, 3), points(7, 3, seed=5)
    there = convert(value, x_t, 0.7, 1.3, source=source, target=target)
    back = convert(there, x_t, 0.7, 1.3, source=target, target=source)
    torch.testing.assert_close(back, value, rtol=1e-11, atol=1e-11)


def test_noise_score_and_velocity_exist_where_no_data_is_left():
    x_t, values = known((5, 3), 0.0, 2.0)
    for source, target in itertools.product(("score", "noise"), ("score", "noise")):
        result = convert(values[source], x_t, 0.0, 2.0, source=source, target=target)
        torch.testing.assert_close(result, values[target])
    result = convert(values["velocity"], x_t, 0.0, 2.0, source="velocity", target="data")
    torch.testing.assert_close(result, values["data"])


@pytest.mark.parametrize("kind", ["full", "isotropic"])
@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_tweedie_is_the_exact_posterior_mean(kind, sde):
    mixture, x = random_mixture(kind), points(4, 4)  # B == D
    t = torch.linspace(0.1, 0.6, 4).double()
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    result = tweedie(x, exact_score(mixture, sde)(x, t), alpha, sigma)
    torch.testing.assert_close(result, mixture.posterior(x, alpha, sigma).mean, rtol=1e-9, atol=1e-9)


# -- networks ------------------------------------------------------------------------------------------------------


class ExactNetwork(nn.Module):
    """A network that has learned its prediction perfectly, and remembers what it was asked."""

    def __init__(self, mixture, sde, prediction):
        super().__init__()
        self.score, self.sde, self.prediction = exact_score(mixture, sde), sde, prediction
        self.asked = []

    def forward(self, x, t, *label):
        self.asked.append((t, label))
        alpha, sigma = (c.to(x.dtype).reshape(-1, 1) for c in (self.sde.alpha(t), self.sde.sigma(t)))
        score = self.score(x, t)
        data = (x + sigma**2 * score) / alpha
        noise = (x - alpha * data) / sigma
        return {"score": score, "noise": noise, "data": data, "velocity": alpha * noise - sigma * data}[self.prediction]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("n", [3, 5])
def test_a_model_turns_every_prediction_into_every_other(prediction, sde, n):
    mixture, x = random_mixture("full", n_dims=3), points(n, 3)
    for t in (torch.tensor(0.3).double(), torch.linspace(0.1, 0.6, n).double()):
        model = ScoreModel(ExactNetwork(mixture, sde, prediction), sde, prediction)
        torch.testing.assert_close(model(x, t), exact_score(mixture, sde)(x, t), rtol=1e-9, atol=1e-9)
        for target in PREDICTIONS:
            expected = ExactNetwork(mixture, sde, target)(x, t)
            torch.testing.assert_close(model.predict(x, t, target), expected, rtol=1e-9, atol=1e-9)


def test_a_network_predicts_noise_unless_told_otherwise():
    x, t = points(5, 3), torch.linspace(0.2, 1, 5).double()
    model = ScoreModel(Constant(), VPSDE())
    torch.testing.assert_close(model(x, t), (-1 / VPSDE().sigma(t))[:, None].expand(5, 3))


class Constant(nn.Module):
    """Answers 1 everywhere, in the dtype that it is told."""

    def __init__(self, dtype=None):
        super().__init__()
        self.dtype = dtype

    def forward(self, x, t):
        return torch.ones_like(x, dtype=self.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "t", [0.4, torch.tensor(0.4).double(), torch.full((5,), 0.4).double()], ids=["number", "0-d", "(B,)"]
)
def test_networks_receive_t_in_the_dtype_of_x(dtype, t):
    network = ExactNetwork(random_mixture("full", n_dims=3), VPSDE(), "noise")
    result = ScoreModel(network, VPSDE())(points(5, 3, dtype=dtype), t)
    received = network.asked[0][0]
    assert received.dtype == result.dtype == dtype
    assert received.shape == torch.as_tensor(t).shape
    torch.testing.assert_close(received, torch.as_tensor(t).to(dtype))


def test_labels_are_handed_on_only_where_given():
    network = ExactNetwork(random_mixture("full", n_dims=3), VPSDE(), "noise")
    model, x, label = ScoreModel(network, VPSDE()), points(5, 3), torch.tensor([0, 1, -1, 2, 1])
    model(x, 0.5)
    model(x, 0.5, label)
    model.predict(x, 0.5, "data", label)
    assert [given for _, given in network.asked] == [(), (label,), (label,)]


def test_a_network_under_autocast_may_answer_in_bfloat16():
    result = ScoreModel(Constant(torch.bfloat16), VPSDE())(points(5, 3, dtype=torch.float32), 0.5)
    torch.testing.assert_close(result, torch.full((5, 3), -1 / float(VPSDE().sigma(0.5))))


def test_gradients_reach_the_networks_parameters():
    network = nn.Linear(3, 3).double()
    model = ScoreModel(Ignoring(network), VPSDE())
    x = points(5, 3)
    model(x, 0.5).sum().backward()
    expected = -x.sum(0).expand(3, 3) / VPSDE().sigma(0.5)
    torch.testing.assert_close(network.weight.grad, expected)
    assert set(dict(model.named_parameters())) == {"network.inner.weight", "network.inner.bias"}


class Ignoring(nn.Module):
    """A network that looks at x alone."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, t):
        return self.inner(x)


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"source": "epsilon"}, ValueError, r"^source: expected one of 'score', 'noise', 'data', 'velocity', got 'eps"),
        ({"target": "x0"}, ValueError, r"^target: expected one of"),
        ({"value": torch.zeros(5, 1)}, ValueError, r"^value: expected shape \(5, 3\) like x_t, got \(5, 1\)"),
        ({"value": torch.zeros(5, 3).double()}, ValueError, r"^value: expected dtype torch.float32"),
        ({"x_t": torch.zeros(3)}, ValueError, r"^x_t: expected a batch"),
        ({"x_t": torch.full((5, 3), math.nan)}, ValueError, r"^x_t: has NaN"),
        ({"x_t": torch.zeros(5, 3).long()}, TypeError, r"^x_t: expected a floating-point"),
        ({"sigma": 0.0}, ValueError, r"^sigma: expected values > 0, got 0"),
        ({"sigma": torch.tensor([1.0, 1, 1, -1, 1])}, ValueError, r"^sigma: expected values > 0, got -1"),
        ({"sigma": torch.ones(3)}, ValueError, r"^sigma: expected a number or shape \(5,\) like the batch, got \(3,\)"),
        ({"alpha": torch.ones(5, 1)}, ValueError, r"^alpha: expected a number or shape \(5,\)"),
        ({"alpha": math.inf}, ValueError, r"^alpha: has NaN or infinite"),
        ({"alpha": 0.0}, ValueError, r"^alpha: expected values other than 0 to turn noise into data, got 0"),
    ],
)
def test_convert_refuses(changes, error, message):
    good = {"value": torch.zeros(5, 3), "x_t": torch.zeros(5, 3), "alpha": 1.0, "sigma": 1.0}
    with pytest.raises(error, match=message):
        convert(**good | {"source": "noise", "target": "data"} | changes)


def test_a_model_refuses():
    x = torch.zeros(5, 3)
    with pytest.raises(ValueError, match=r"^prediction: expected one of .* got 'epsilon'"):
        ScoreModel(Constant(), VPSDE(), "epsilon")
    model = ScoreModel(Constant(), VPSDE(), "score")
    with pytest.raises(ValueError, match=r"^target: expected one of"):
        model.predict(x, 0.5, "x0")
    with pytest.raises(ValueError, match=r"^t: expected a number or shape \(5,\) like the batch, got \(3,\)"):
        model(x, torch.ones(3))
    with pytest.raises(TypeError, match=r"^x: expected a floating-point tensor, got torch.int64"):
        model(x.long(), 0.5)
    narrow = ScoreModel(Ignoring(nn.Linear(3, 1)), VPSDE())
    with pytest.raises(ValueError, match=r"^network's value: expected shape \(5, 3\) like x, got \(5, 1\)"):
        narrow(x, 0.5)


def test_a_model_refuses_times_that_its_sde_does_not_have():
    """The habit of 0 ... 999, a time without noise, and NaN."""
    model, x = ScoreModel(Ones(), VPSDE()), torch.ones(2, 3)
    for wrong in (500.0, -0.1, math.nan, torch.tensor([0.5, 999.0])):
        with pytest.raises(ValueError, match=r"^t: expected values in \[0, 1.0\], got"):
            model(x, wrong)
    with pytest.raises(ValueError, match=r"^t: the score is asked where sigma is 0; stop at a later time, say 0.001"):
        model(x, 0.0)
    with pytest.raises(TypeError, match=r"^t: expected a floating-point tensor, got torch.int64"):
        model(x, torch.tensor([1, 1]))


def test_a_wrong_time_is_refused_in_every_step_of_a_solver():
    model, calls = ScoreModel(Ones(), VPSDE()), []

    def score(x, t):
        calls.append(t)
        return model(x, t * (1 if len(calls) < 3 else 1000))

    with pytest.raises(ValueError, match=r"^t: expected values in \[0, 1.0\], got"):
        heun(score, VPSDE(), torch.ones(2, 3), uniform_times(VPSDE(), 4))
    assert len(calls) == 3


def test_times_on_another_device_are_refused_by_their_own_name():
    with pytest.raises(ValueError, match=r"^t: expected device cpu like the batch, got meta"):
        ScoreModel(Ones(), VPSDE())(torch.ones(2, 3), torch.full((2,), 0.5, device="meta"))


class Ones(torch.nn.Module):
    """A network that answers 1."""

    def forward(self, x, t):
        return torch.ones_like(x)
