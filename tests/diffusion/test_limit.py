"""The flow without discretisation error: exact on normal data, and on U[0, 1] the reference's table
of what the prior costs.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffusion.analysis.flow_limit import flow_limit
from diffusion.datasets import Gaussian, Uniform
from diffusion.metrics import Wasserstein1
from diffusion.models import Denoiser
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
