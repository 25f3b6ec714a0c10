"""Somebody's own function as a denoiser: whatever it predicts, its answer is E[x_0 | x_t] on every
schedule.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.datasets import EightGaussians, Uniform
from diffusion.errors import WrongValue
from diffusion.models.own import OwnDenoiser
from diffusion.objectives.parametrizations import Circle, convert, parametrizations
from diffusion.schedules import EDM, Flow, VPCosine, VPLinear

TARGET = EightGaussians()


def exact(y: Tensor, sigma: Tensor) -> Tensor:
    """E[x_0 | x_0 + sigma eps = y]."""
    return TARGET.denoise(y, torch.ones_like(sigma), sigma)


def velocity(y: Tensor, sigma: Tensor) -> Tensor:
    r = torch.sqrt(1 + sigma**2)
    return (y - exact(y, sigma)) / (sigma * r) - sigma / r * exact(y, sigma)


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x0": exact,
    "epsilon": lambda y, sigma: (y - exact(y, sigma)) / sigma,
    "score": lambda y, sigma: TARGET.score(y, torch.ones_like(sigma), sigma),
    "v": velocity,
    "flow-velocity": lambda y, sigma: (y - exact(y, sigma)) / sigma - exact(y, sigma),
}


@pytest.mark.parametrize("schedule", [EDM(), VPLinear(), VPCosine(), Flow(t_min=0.01)], ids=lambda s: s.label())
@pytest.mark.parametrize("predicts", list(FUNCTIONS))
def test_whatever_a_function_predicts_the_denoiser_is_the_exact_one_on_every_schedule(
    predicts: Any, schedule: EDM | VPLinear | VPCosine | Flow
) -> None:
    own = OwnDenoiser(FUNCTIONS[predicts], predicts)
    times = torch.tensor([schedule.t_min, 0.3 * schedule.t_max, 0.9 * schedule.t_max], dtype=torch.float64)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    x = alpha[:, None, None] * torch.randn(3, 50, 2, dtype=torch.float64) + sigma[:, None, None]
    expected = TARGET.denoise(x, alpha[:, None], sigma[:, None])
    torch.testing.assert_close(own(x, alpha, sigma), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("predicts", list(FUNCTIONS))
def test_predictions_are_what_the_parametrizations_of_that_name_mean(predicts: str) -> None:
    y, sigma = torch.randn(20, 2, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    level = Circle.at(sigma.expand(20))
    z = y / torch.sqrt(1 + sigma**2)
    scaled = sigma if predicts == "score" else 1.0  # the parametrization predicts sigma times the score
    wanted = convert(exact(y, sigma), z, level, parametrizations.create("x0"), parametrizations.create(predicts), 1.0)
    torch.testing.assert_close(scaled * FUNCTIONS[predicts](y, sigma), wanted, rtol=1e-9, atol=1e-9)


class Net(torch.nn.Module):
    """Remembers what it was asked."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2, dtype=dtype)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.seen = x.dtype, sigma.dtype, sigma.shape, torch.is_grad_enabled(), self.training
        out: Tensor = self.dropout(self.linear(x))
        return out


LEVEL = torch.ones(1, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_module_is_asked_in_its_own_numbers_in_evaluation_mode_and_without_gradients(dtype: torch.dtype) -> None:
    net = Net(dtype).train()
    net.linear.eval()
    x = torch.randn(1, 7, 2, dtype=torch.float64)
    found = OwnDenoiser(net)(x, *LEVEL)
    assert net.seen == (dtype, dtype, torch.Size([]), False, False)
    assert found.dtype == torch.float64
    assert torch.equal(found, OwnDenoiser(net)(x, *LEVEL))  # no dropout
    assert (net.training, net.linear.training, net.dropout.training) == (True, False, True)
    place = x.clone().requires_grad_()
    OwnDenoiser(net)(place, *LEVEL).sum().backward()
    expected = net.linear.weight.sum(0).double().expand(1, 7, 2)
    torch.testing.assert_close(place.grad, expected)


def test_the_levels_of_rows_and_other_numbers_are_to_be_had() -> None:
    net = Net().eval()
    OwnDenoiser(net, sigma_shape="rows")(torch.zeros(1, 7, 2, dtype=torch.float64), *LEVEL)
    assert net.seen[2] == (7,)
    seen: list[torch.dtype] = []

    def remembering(x: Tensor, _: Tensor) -> Tensor:
        seen.append(x.dtype)
        return x

    OwnDenoiser(remembering, dtype=torch.float16)(torch.zeros(1, 7, 2).double(), *LEVEL)
    OwnDenoiser(remembering)(torch.zeros(1, 7, 2).double(), *LEVEL)
    assert seen == [torch.float16, torch.float64]
    with pytest.raises(RuntimeError) as error:
        OwnDenoiser(lambda x, _: net.linear(x))(torch.zeros(1, 7, 2).double(), *LEVEL)
    assert "dtype= changes the one" in error.value.__notes__[0]


def test_where_no_signal_is_left_a_function_is_asked_at_the_most_noise_and_members_each_at_their_own() -> None:
    seen: list[float] = []

    def remembering(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(float(sigma))
        return x / (1 + sigma**2)

    own = OwnDenoiser(remembering)
    alpha, sigma = torch.tensor([0.0, 0.6], dtype=torch.float64), torch.tensor([1.0, 0.8], dtype=torch.float64)
    found = own(torch.ones(2, 3, 1, dtype=torch.float64), alpha, sigma)
    assert seen == pytest.approx([1e6, 0.8 / 0.6])
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([0.0, 0.6], dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Uniform().denoise, "method of data set 'uniform', which takes alpha too; accepted: the data set itself"),
        (lambda x: x, r"a function of \(x\); accepted: one of x \[n, dim\] and sigma"),
        (lambda x, _a, _s: x, r"a function of \(x, _a, _s\)"),
        (torch.nn.Linear(1, 1), r"a function of \(input.*\)"),
        (Net, "the class Net"),
        ("edm", "str"),
        (None, "None"),
    ],
)
def test_what_is_no_denoiser_is_refused(function: Any, expected: str) -> None:
    with pytest.raises(WrongValue, match=expected):
        OwnDenoiser(function)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda x, _: x[:, 0], r"a tensor of float64 of shape \[7\] for x of shape \[7, 2\]"),
        (lambda x, _: x[:1], r"\[1, 2\] for x of shape \[7, 2\]"),
        (lambda x, _: x.mean(), r"shape \[\]"),
        (lambda x, _: x.long(), "int64"),
        (lambda x, _: x.numpy(), "ndarray"),
        (lambda x, _: (x, x), "tuple"),
        (lambda _x, _s: None, "None"),
    ],
)
def test_what_is_no_answer_is_refused(answer: Any, expected: str) -> None:
    with pytest.raises(WrongValue, match=expected):
        OwnDenoiser(answer)(torch.zeros(1, 7, 2, dtype=torch.float64), *LEVEL)


@pytest.mark.parametrize(
    "settings", [{"predicts": "eps"}, {"sigma_shape": "column"}, {"dtype": torch.int64}, {"dtype": "float32"}]
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(WrongValue, match=r"found .*; accepted: "):
        OwnDenoiser(exact, **settings)
