"""`score-error` is the Fisher divergence of a denoiser from the exact one, level by level, on every
schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.datasets import Dataset, Gaussian, Torus, Uniform, datasets
from diffusion.metrics import ScoreError
from diffusion.models import Denoiser
from diffusion.schedules import EDM, Schedule, schedules

SCHEDULES: dict[str, Schedule] = {entry.name: entry.cls() for entry in schedules}
EXACT: dict[str, Dataset] = {
    entry.name: target for entry in datasets if entry.has_defaults and (target := entry.cls()).exact
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
METRIC = ScoreError(count=6, batch=100)


def exact(target: Dataset, bias: float = 0.0) -> Denoiser:
    def denoiser(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        assert x.ndim == 3
        assert x.shape[0] == 1
        assert alpha.shape == sigma.shape == (1,)
        return target.denoise(x, alpha[:, None], sigma[:, None]) + bias

    return denoiser


@pytest.mark.parametrize("target", EXACT.values(), ids=EXACT.keys())
def test_the_exact_denoiser_has_no_error_and_a_biased_one_that_of_its_bias(target: Dataset) -> None:
    schedule, bias = EDM(), 0.3 * target.std
    assert METRIC.profile(exact(target), target, schedule).tolist() == [0.0] * 6
    assert METRIC.evaluate(exact(target), target, schedule) == METRIC.floor(target, schedule) == 0
    expected = (bias / METRIC.levels(schedule)) ** 2  # alpha b / sigma in each of dim coordinates
    found = METRIC.profile(exact(target, bias), target, schedule)
    assert found.dtype == torch.float64
    assert found.numpy() == pytest.approx(expected.numpy(), rel=1e-9)
    assert METRIC.evaluate(exact(target, bias), target, schedule) == pytest.approx(float(expected.mean()))


@every_schedule
def test_the_error_of_a_wrong_mean_has_its_closed_form_on_every_schedule(schedule: Schedule) -> None:
    """For N(m, s^2) the denoiser is off by ``sigma^2 / (alpha^2 s^2 + sigma^2)`` of the error in m."""
    target, wrong = Gaussian(0.5, 2.0, 3), Gaussian(0.75, 2.0, 3)
    nsr = METRIC.levels(schedule)
    found = METRIC.profile(exact(wrong), target, schedule)
    assert found.numpy() == pytest.approx(((0.25 * nsr / (4 + nsr**2)) ** 2).numpy(), rel=1e-6)


@every_schedule
def test_levels_run_from_the_least_noise_to_the_most_evenly_in_the_logarithm(schedule: Schedule) -> None:
    metric = ScoreError()
    levels = metric.levels(schedule)
    ends = schedule.nsr(torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)).tolist()
    first, last = ends[0], min(ends[1], 1000.0)
    assert levels.dtype == torch.float64
    assert (levels.diff() > 0).all()
    assert levels[0] == pytest.approx(first, rel=1e-9)
    if schedule.max_steps is None:
        assert len(levels) == 16
        assert levels.numpy() == pytest.approx(np.geomspace(first, last, 16), rel=1e-6)
    else:
        own = schedule.nsr(schedule.level_times)
        assert len(levels) <= 16
        assert all((own == level).any() for level in levels)
        assert abs(math.log(levels[-1] / last)) == float((own / last).log().abs().min())


def test_levels_stop_at_the_largest_ratio_asked_for() -> None:
    assert ScoreError(largest=10.0).levels(EDM())[-1] == pytest.approx(10.0, rel=1e-12)
    assert ScoreError().levels(SCHEDULES["flow"])[-1] <= 1000.0 * (1 + 1e-9)
    assert ScoreError(count=1).levels(EDM()).shape == (1,)


def test_draws_are_fixed_by_the_dataset_alone() -> None:
    """Two denoisers that are compared, on whatever schedule, see the same x_0 and noise."""
    seen: dict[str, list[Tensor]] = {}

    def recorder(name: str) -> Denoiser:
        def denoiser(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            seen.setdefault(name, []).append((x - alpha * 0.5) / sigma if name == "ve" else x)
            return x

        return denoiser

    target = Uniform()
    METRIC.profile(recorder("first"), target, EDM())
    torch.manual_seed(3)
    METRIC.profile(recorder("second"), target, EDM())
    assert all(torch.equal(a, b) for a, b in zip(seen["first"], seen["second"], strict=True))
    METRIC.profile(recorder("edm"), target, EDM())
    METRIC.profile(recorder("cut"), target, EDM(sigma_max=40.0))
    levels = METRIC.levels(EDM())
    clean = (seen["edm"][0] - levels[0] * (seen["edm"][1] - seen["edm"][0]) / (levels[1] - levels[0]))[0]
    assert ((clean >= -1e-9) & (clean <= 1 + 1e-9)).all()  # x = x_0 + sigma eps: two levels give both
    assert torch.allclose(seen["edm"][0], seen["cut"][0], rtol=0, atol=1e-9)


def test_what_is_no_denoiser_is_refused_and_datasets_without_an_exact_answer_with_a_reason() -> None:
    @dataclass(frozen=True)
    class Unknown(Uniform):
        registered_name = "unknown"
        exact = False

    with pytest.raises(ValueError, match="asks a model for the clean data behind a noisy point, and Tensor gives none"):
        METRIC.evaluate(torch.zeros(3, 1), Uniform(), EDM())
    assert "exact denoiser" in str(METRIC.refuses(Unknown()))
    with pytest.raises(ValueError, match="'unknown' is refused"):
        METRIC.profile(exact(Uniform()), Unknown(), EDM())
    assert METRIC.refuses(Torus()) is None


def test_denoisers_that_give_no_numbers_or_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="not a finite number at 6 of 6 noise levels"):
        METRIC.profile(exact(Uniform(), math.nan), Uniform(), EDM())
    with pytest.raises(ValueError, match=r"gave shape \[1, 100\]; needed: \[1, 100, 1\]"):
        METRIC.profile(lambda x, alpha, sigma: x[..., 0], Uniform(), EDM())  # noqa: ARG005
