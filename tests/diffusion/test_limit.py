"""The flow without discretisation error: exact on normal data, and on U[0, 1] the reference's table of what the prior costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffusion.datasets import Gaussian, Uniform
from diffusion.limit import flow_limit
from diffusion.metrics import Wasserstein1
from diffusion.schedules import EDM, IDDPM, DDPMLinear, Schedule, VELinear, VPLinear, schedules

SCHEDULES = {entry.name: entry.cls() for entry in schedules}


def denoiser_of(target: Gaussian | Uniform):
    def denoise(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return target.denoise(x, alpha[:, None], sigma[:, None])

    return denoise


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_normal_data_are_reached_by_the_closed_form(schedule: Schedule) -> None:
    """x - alpha m keeps its place in units of sqrt(alpha^2 s^2 + sigma^2); at the end the denoiser takes out what is left."""
    mean, s = 0.7, 0.5
    z = torch.linspace(-3, 3, 25, dtype=torch.float64)[None, :, None]
    ends = torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64)
    alpha, sigma = schedule.alpha(ends), schedule.sigma(ends)
    spread = torch.sqrt((alpha * s) ** 2 + sigma**2)
    start = alpha[0] * mean + spread[0] * z
    found = flow_limit(denoiser_of(Gaussian(mean, s)), start, schedule, s, tolerance=1e-8)
    expected = mean + alpha[1] * s**2 / spread[1] * z
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("schedule", "cost"),
    [
        (EDM(), 0.00177),
        (VELinear(), 0.00178),
        (IDDPM(), 0.0018),
        (VPLinear(), 0.00103),
        (DDPMLinear(levels=1000), 0.00099),
        (DDPMLinear(levels=100), 0.0016),
        (DDPMLinear(levels=100, scaled=False), 0.0923),
    ],
    ids=lambda value: value.label() if isinstance(value, Schedule) else "",
)
def test_what_the_prior_costs_on_the_unit_interval_is_the_references(schedule: Schedule, cost: float) -> None:
    """W1 of 10 000 quantile particles. A hundred unscaled betas, as the seed has them, leave 0.09: the end is not noise."""
    n = 10_000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    start = (schedule.prior_std * torch.special.ndtri(u))[None, :, None]
    found = flow_limit(denoiser_of(Uniform()), start, schedule, Uniform().std)[0]
    assert Wasserstein1().evaluate(found, Uniform()) == pytest.approx(cost, rel=0.02 if cost > 0.0011 else 0.04)


def test_the_limit_does_not_depend_on_the_schedule_between_its_ends() -> None:
    """One circle serves all: two schedules with the same ends have the same flow."""
    ends = {"sigma_min": 0.01, "sigma_max": 50.0}
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[None, :, None]
    paths = [
        flow_limit(denoiser_of(Uniform()), 50.0 * z, schedule, Uniform().std)
        for schedule in (EDM(**ends), VELinear(**ends))
    ]
    assert math.isclose(float((paths[0] - paths[1]).abs().max()), 0, abs_tol=1e-9)
