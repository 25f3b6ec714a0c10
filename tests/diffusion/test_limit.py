"""The flow without discretisation error: exact on normal data, and on U[0, 1] the reference's table
of what the prior costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from diffusion.analysis.flow_limit import FlowLost, flow_limit, flow_limits
from diffusion.datasets import Gaussian, GaussianMixture, Uniform
from diffusion.metrics import Wasserstein1
from diffusion.models import Denoiser, ExactDenoiser
from diffusion.schedules import EDM, IDDPM, DDPMLinear, Schedule, VELinear, VPLinear, schedules

SCHEDULES = {entry.name: entry.cls() for entry in schedules}


def denoiser_of(target: Gaussian | Uniform) -> Denoiser:
    def denoise(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return target.denoise(x, alpha[:, None], sigma[:, None])

    return denoise


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_normal_data_are_reached_by_the_closed_form(schedule: Schedule) -> None:
    """x - alpha m keeps its place in units of sqrt(alpha^2 s^2 + sigma^2); at the end the denoiser
    takes out what is left.
    """
    mean, s = 0.7, 0.5
    z = torch.linspace(-3, 3, 25, dtype=torch.float64)[None, :, None]
    ends = torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64)
    alpha, sigma = schedule.alpha(ends), schedule.sigma(ends)
    spread = torch.sqrt((alpha * s) ** 2 + sigma**2)
    start = alpha[0] * mean + spread[0] * z
    found = flow_limit(denoiser_of(Gaussian(mean, s)), start, schedule, s, tolerance=1e-8)
    expected = mean + alpha[1] * s**2 / spread[1] * z
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


COSTS: dict[Schedule, tuple[float, float, float, float]] = {
    EDM(): (0.00177, 2.61e-5, 2.63e-5, 2.71e-5),
    VELinear(): (0.00178, 0.000123, 0.000156, 5.83e-5),
    IDDPM(): (0.0018, 3.51e-5, 3.83e-5, 3e-5),
    VPLinear(): (0.00103, 5.17e-5, 6.07e-5, 3.37e-5),
    DDPMLinear(levels=1000): (0.00099, 4.93e-5, 5.75e-5, 3.29e-5),
    DDPMLinear(levels=100): (0.0016, 0.000272, 0.000355, 0.000107),
    DDPMLinear(levels=100, scaled=False): (0.0923, 0.0216, 0.0249, 0.0029),
}
_HALF = math.sqrt(3)  # of U with variance 1
INTERVALS = {
    "raw": Uniform(),
    "plus-minus-one": Uniform(-1.0, 1.0),
    "centred-half": Uniform(-_HALF / 2, _HALF / 2),
    "centred-one": Uniform(-_HALF, _HALF),
}


@pytest.mark.parametrize("column", range(4), ids=INTERVALS.keys())
@pytest.mark.parametrize("schedule", COSTS, ids=lambda schedule: schedule.label())
def test_what_the_prior_costs_on_an_interval_is_the_references(schedule: Schedule, column: int) -> None:
    """W1 of 10 000 quantile particles, in units of the interval, to the digits of the table: half a
    per cent.

    Centred data cost up to seventy times less than U[0, 1], whose mean is half a unit beside that
    of the start noise; 2.5e-5 is what 10 000 particles leave by themselves. A hundred unscaled
    betas, as the document has them, leave 0.09 and 0.02: the end is not noise.
    """
    target = list(INTERVALS.values())[column]
    n = 10_000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    start = (schedule.prior_std * torch.special.ndtri(u))[None, :, None]
    found = flow_limit(denoiser_of(target), start, schedule, target.std)[0]
    cost = Wasserstein1().evaluate(found, target) / (target.high - target.low)
    assert cost == pytest.approx(COSTS[schedule][column], rel=0.005)


def test_the_limit_does_not_depend_on_the_schedule_between_its_ends() -> None:
    """One circle serves all: two schedules with the same ends have the same flow."""
    ends = {"sigma_min": 0.01, "sigma_max": 50.0}
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[None, :, None]
    paths = [
        flow_limit(denoiser_of(Uniform()), 50.0 * z, schedule, Uniform().std)
        for schedule in (EDM(**ends), VELinear(**ends))
    ]
    assert math.isclose(float((paths[0] - paths[1]).abs().max()), 0, abs_tol=1e-9)


def stacked(target: Gaussian | Uniform, x: Tensor, schedules: Sequence[Schedule]) -> list[Tensor | None]:
    return flow_limits(ExactDenoiser([target] * len(x)), x, schedules, [target.std] * len(x))


def test_a_flow_in_a_stack_is_what_it_is_alone_to_the_last_bit() -> None:
    """Members of several schedules, whose steps are their own."""
    schedules = [EDM(), VPLinear(), IDDPM(), EDM(sigma_max=10.0), EDM()]
    noise = torch.randn(5, 7, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    start = noise * torch.tensor([s.prior_std for s in schedules], dtype=torch.float64)[:, None, None]
    together = stacked(Uniform(), start, schedules)
    for m, schedule in enumerate(schedules):
        (alone,) = stacked(Uniform(), start[m : m + 1], [schedule])
        found = together[m]
        assert found is not None
        assert alone is not None
        assert torch.equal(found, alone)


def test_a_flow_that_cannot_be_followed_costs_no_other_one() -> None:
    start = 80 * torch.linspace(-1, 1, 6, dtype=torch.float64).repeat(2, 1)[:, :, None]
    lost = start.clone()
    lost[1, 2] = torch.nan
    found, none = stacked(Uniform(), lost, [EDM(), EDM()])
    (alone,) = stacked(Uniform(), start[:1], [EDM()])
    assert none is None
    assert found is not None
    assert alone is not None
    assert torch.equal(found, alone)
    with pytest.raises(FlowLost):
        flow_limit(denoiser_of(Uniform()), lost[1:], EDM(), Uniform().std)


@pytest.mark.parametrize("target", [Uniform(), GaussianMixture()], ids=["uniform", "gaussian_mixture"])
def test_the_limit_is_within_ten_tolerances_of_one_with_many_more_steps(target: Uniform | GaussianMixture) -> None:
    """And the rule is scipy's, step for step."""
    scale = target.std
    x = 80 * torch.randn(1, 16, target.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = ExactDenoiser([target])
    coarse, fine = (flow_limit(exact, x, EDM(), scale, tolerance)[0] for tolerance in (1e-6, 1e-11))
    assert float((coarse - fine).square().mean().sqrt()) < 1e-5 * scale

    def slope(phi: float, flat: np.ndarray) -> np.ndarray:
        state = torch.as_tensor(flat).reshape(x.shape)
        level = torch.tensor([[math.cos(phi)], [math.sin(phi)]], dtype=torch.float64)
        found = exact(state, *level)
        return ((math.cos(phi) * state - found) / math.sin(phi)).numpy().ravel()

    first, last = math.atan(80.0), math.atan(0.002)
    z = (x / math.hypot(1.0, 80.0)).numpy().ravel()
    scipys = solve_ivp(slope, (first, last), z, method="DOP853", rtol=1e-6, atol=1e-6 * scale)
    end = torch.as_tensor(scipys.y[:, -1]).reshape(x.shape)
    level = torch.tensor([[math.cos(last)], [math.sin(last)]], dtype=torch.float64)
    torch.testing.assert_close(coarse[None], exact(end, *level), rtol=0, atol=1e-9 * scale)
