"""What is handed to data sets, schedules and samplers: one meaning is taken, what could only give
nonsense is refused.
"""

import contextlib
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.arguments import lost_rows
from diffusion.datasets import Dataset, EightGaussians, Gaussian, Uniform, datasets
from diffusion.errors import WrongValue
from diffusion.registry import Entry
from diffusion.samplers import (
    MALA,
    AnnealedLangevin,
    ForwardChain,
    ForwardSDE,
    GradientAscent,
    Heun,
    Langevin,
    NoiseStreams,
    levels_of,
)
from diffusion.schedules import EDM, Level, Schedule, VPLinear, schedules
from diffusion.schedules.grids import grids


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def levels(schedule: Schedule, steps: int = 4, members: int = 1) -> list[Level]:
    return levels_of([schedule] * members, [grids.create(schedule.own_grid)] * members, steps)


def noise(members: int, samples: int, dim: int) -> NoiseStreams:
    return NoiseStreams([("arguments",)] * members, samples, dim)


@pytest.mark.parametrize("target", [Uniform(), Gaussian(dim=2), EightGaussians()], ids=repr)
def test_a_denoiser_of_one_target_handed_to_a_sampler_of_two_members_is_refused(
    target: Uniform | Gaussian | EightGaussians,
) -> None:
    x = torch.randn(2, 2, target.dim, dtype=torch.float64)  # as many samples as members: broadcasting has two readings
    with pytest.raises(WrongValue, match=r"alpha has shape \[2\] and x \[2, 2, .\].*such as \[2, 1\]"):
        list(Heun().trajectory(target.denoise, x, levels(EDM(), members=2), noise(2, 2, target.dim)))


@pytest.mark.parametrize("ask", ["denoise", "score", "log_density", "posterior_variance"])
@pytest.mark.parametrize("entry", [e for e in datasets if e.has_defaults and e.cls().exact], ids=lambda e: e.name)
def test_members_have_their_own_levels_whatever_is_asked_and_plain_numbers_are_levels(
    entry: Entry[Dataset], ask: str
) -> None:
    target = entry.cls()
    x = torch.linspace(-1, 1, 4 * target.dim, dtype=torch.float64).reshape(2, 2, target.dim)
    alpha, sigma = tensor(0.9, 0.5), tensor(0.4, 0.8)
    stacked = getattr(target, ask)(x, alpha[:, None], sigma[:, None])
    alone = [getattr(target, ask)(x[m], float(alpha[m]), float(sigma[m])) for m in range(2)]
    assert torch.equal(stacked, torch.stack(alone))
    with pytest.raises(WrongValue, match="run along the samples"):
        getattr(target, ask)(x, alpha, sigma)


@pytest.mark.parametrize("ask", ["denoise", "score", "log_density", "posterior_variance"])
@pytest.mark.parametrize("entry", [e for e in datasets if e.has_defaults and e.cls().exact], ids=lambda e: e.name)
def test_points_without_noise_are_answered_where_the_density_is_smooth_and_refused_elsewhere(
    entry: Entry[Dataset], ask: str
) -> None:
    target = entry.cls()
    x = torch.full((3, target.dim), 0.3, dtype=torch.float64)
    for sigma in (0.0, -1.0, float("nan")):
        for alpha, level in ((1.0, sigma), (tensor(1.0), tensor(sigma))):
            with contextlib.suppress(WrongValue):
                found = getattr(target, ask)(x, alpha, level)
                assert target.smooth
                assert sigma == 0
                near = getattr(target, ask)(x, tensor(1.0), tensor(1e-5))
                torch.testing.assert_close(found, near, rtol=1e-3, atol=1e-3)
                continue
            with pytest.raises(WrongValue, match=r"sigma.*accepted: "):
                getattr(target, ask)(x, alpha, level)
            assert not (ask == "log_density" and target.smooth and sigma == 0)


def test_points_of_another_shape_are_refused_and_not_cut() -> None:
    for shape in ((5,), (5, 2), (0, 3)):
        with pytest.raises(WrongValue, match=r"x has shape .*; accepted: \[n, 1\]"):
            Uniform().score(torch.zeros(shape, dtype=torch.float64), tensor(1.0), tensor(0.5))
    target: Any = Uniform()  # takes more than its types say
    assert torch.equal(target.denoise([[0.2]], 1, np.float64(0.3)), target.denoise(tensor(0.2)[None], 1.0, 0.3))


def test_a_class_of_ones_own_is_checked_as_the_shipped_ones_and_still_travels() -> None:
    assert pickle.loads(pickle.dumps(Shifted())) == Shifted()  # noqa: S301 - our own bytes
    own: Any = Shifted()
    with pytest.raises(WrongValue, match="sigma = 0"):
        own.denoise(torch.zeros(1, 1), 1.0, 0.0)


class Shifted(Uniform):
    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return super().denoise(x, alpha, sigma) + 1


@pytest.mark.parametrize("entry", [e for e in schedules if e.has_defaults], ids=lambda e: e.name)
def test_a_schedule_takes_plain_numbers(entry: Entry[Schedule]) -> None:
    schedule: Any = entry.cls()  # takes more than its types say
    middle = schedule.t_max if schedule.max_steps else (schedule.t_min + schedule.t_max) / 2
    for name in ("alpha", "sigma", "alpha_dot", "sigma_dot", "nsr", "drift", "diffusion_squared"):
        function = getattr(schedule, name)
        found = function(middle)
        assert found.shape == ()
        assert torch.equal(found, function(tensor(middle))[0])
        assert torch.equal(function([middle, middle]), function(tensor(middle, middle)))
    nsr = float(schedule.nsr(schedule.t_min))
    assert torch.equal(schedule.time_of(nsr), schedule.time_of(tensor(nsr))[0])
    assert torch.equal(schedule.sigma(1), schedule.sigma(1.0))


@pytest.mark.parametrize("wrong", [-0.5, float("nan"), "half", None, True, [0.1, -0.1], 1j])
def test_what_is_no_time_is_refused(wrong: str | bool | list[float] | complex | None) -> None:
    with pytest.raises(WrongValue, match=r"vp-linear\.alpha: found .*; accepted: a number"):
        VPLinear().alpha(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sampler",
    [Langevin(), Langevin(denoise=True), GradientAscent(), Langevin(nsr=1.0), MALA(), AnnealedLangevin(denoise=False)],
    ids=lambda s: s.label(),
)
@pytest.mark.parametrize("steps", [1, 4])
def test_langevin_dynamics_whose_path_was_not_asked_are_refused(
    sampler: Langevin | GradientAscent | MALA | AnnealedLangevin, steps: int
) -> None:
    grid = levels(EDM(), steps)
    x = torch.zeros(1, 3, 1, dtype=torch.float64)
    exact = _Exact()
    with pytest.raises(WrongValue, match=r"accepted: the levels of sampler.path\(levels\)"):
        list(sampler.trajectory(exact, x, grid, noise(1, 3, 1)))
    assert len(list(sampler.trajectory(exact, x, sampler.path(grid), noise(1, 3, 1)))) == steps


@pytest.mark.parametrize("sampler", [ForwardChain(), ForwardSDE()], ids=repr)
def test_the_forward_process_is_refused_on_its_way_back(sampler: ForwardChain | ForwardSDE) -> None:
    grid = levels(VPLinear())
    x = torch.zeros(1, 3, 1, dtype=torch.float64)
    with pytest.raises(WrongValue, match=r"accepted: the levels of sampler.path\(levels\), which grow noisier"):
        list(sampler.trajectory(_Exact(), x, grid, noise(1, 3, 1)))
    for now, then in itertools.pairwise(sampler.path(grid)):
        x = sampler.step(_Exact(), x, now, then, noise(1, 3, 1))
    assert torch.isfinite(x).all()


class _Exact:
    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return Gaussian().denoise(x, alpha[:, None], sigma[:, None])

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return Gaussian().log_density(x, alpha[:, None], sigma[:, None])


@pytest.mark.parametrize(
    ("rows", "lost"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], 0),
        ([[1e308, 1e308], [1e308, 1e308]], 0),  # whose sum is infinite
        ([[1.0, math.inf], [-math.inf, 0.0], [0.0, 0.0]], 2),  # whose sum is not a number
        ([[1.0, math.nan], [math.nan, math.nan], [1e308, 1e308]], 2),
    ],
)
def test_rows_that_are_not_finite_are_counted_whatever_their_sum(rows: list[list[float]], lost: int) -> None:
    assert lost_rows(torch.tensor(rows, dtype=torch.float64)) == lost
