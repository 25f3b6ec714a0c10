"""Every registered sampler has the order it declares, costs what it declares and draws noise only if it says so.

The exact answers: for data ``N(m, s^2)`` the probability-flow ODE is solved by
``x_t = alpha m + sqrt(alpha^2 s^2 + sigma^2) z`` with z constant. For any data on the line the flow keeps quantiles, so
that ``F_t(x_t)`` is constant; for a mixture of two normal laws F_t is known.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.datasets import Uniform
from diffusion.grids import Grid, grids
from diffusion.randomness import stream
from diffusion.samplers import DDIM, Ancestral, CountingDenoiser, Denoiser, Euler, Heun, Sampler, levels_of, samplers
from diffusion.schedules import EDM, IDDPM, DDPMLinear, Level, Schedule, VELinear, VPLinear, schedules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SAMPLERS: dict[str, Sampler] = {
    **{entry.name: entry.cls() for entry in samplers},
    "ddim, eta 0.5": DDIM(0.5),
    "ddim, eta 1": DDIM(1.0),
    "ancestral, transition": Ancestral("transition"),
}
SCHEDULES: dict[str, Schedule] = {
    **{entry.name: entry.cls() for entry in schedules},
    "ddpm-linear, 1000 levels": DDPMLinear(levels=1000),
}
SERVED = {
    f"{sampler}, {schedule}": (SAMPLERS[sampler], SCHEDULES[schedule])
    for sampler, schedule in itertools.product(SAMPLERS, SCHEDULES)
    if SAMPLERS[sampler].refuses(SCHEDULES[schedule]) is None
}
DETERMINISTIC = {name: pair for name, pair in SERVED.items() if not pair[0].stochastic}

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
every_pair = pytest.mark.parametrize(("sampler", "schedule"), SERVED.values(), ids=SERVED.keys())
every_deterministic_pair = pytest.mark.parametrize(
    ("sampler", "schedule"), DETERMINISTIC.values(), ids=DETERMINISTIC.keys()
)


def number(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


@dataclass(frozen=True)
class Mixture:
    """A denoiser, distribution function and density for data that are a mixture of normal laws."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def _parts(self, alpha: Tensor, sigma: Tensor) -> list[tuple[float, Tensor, Tensor, float]]:
        return [
            (w, alpha * m, torch.sqrt(alpha**2 * s * s + sigma**2), s)
            for w, m, s in zip(self.weights, self.means, self.stds, strict=True)
        ]

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        alpha, sigma = alpha[:, None, None], sigma[:, None, None]
        parts = self._parts(alpha, sigma)
        logs = torch.stack([math.log(w) - torch.log(total) - 0.5 * ((x - m) / total) ** 2 for w, m, total, _ in parts])
        shares = torch.softmax(logs, 0)
        means = [
            mean + alpha * s * s * (x - m) / total**2 for (_, m, total, s), mean in zip(parts, self.means, strict=True)
        ]
        return (shares * torch.stack(means)).sum(0)

    def cdf(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        parts = self._parts(alpha, sigma)
        return torch.stack([w * torch.special.ndtr((x - m) / total) for w, m, total, _ in parts]).sum(0)


def gaussian(mean: float = 0.0, std: float = 1.0) -> Mixture:
    return Mixture((1.0,), (mean,), (std,))


@dataclass(frozen=True)
class Smooth(Grid):
    """Equal steps of log nsr over a moderate range, the end of which does not depend on N, on every schedule.

    Convergence is measured on all but the last of its levels. The step to sigma = 0, which is Euler's and infinitely
    long in log nsr, would hide the order; and the schedules' own range, up to eight decades, would need very many steps
    to show it.
    """

    first: float = 15.0
    last: float = 0.1

    def refuses(self, schedule: Schedule) -> str | None:  # noqa: ARG002 - interpolated schedules are smooth, too
        return None

    def noisy_times(self, schedule: Schedule, steps: int) -> Tensor:
        ratio = torch.linspace(math.log(self.first), math.log(self.last), steps, dtype=torch.float64)
        return schedule.time_of(ratio.exp())

    def times(self, schedule: Schedule, steps: int) -> Tensor:  # also between the levels, and more of them
        return torch.cat([self.noisy_times(schedule, steps), torch.zeros(1, dtype=torch.float64)])


def silence() -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def run(
    sampler: Sampler, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Callable[[], Tensor] = silence
) -> Tensor:
    return list(sampler.trajectory(denoiser, x, levels, noise))[-1]


def own_levels(schedule: Schedule, steps: int) -> list[Level]:
    return levels_of([schedule], [grids.create(schedule.own_grid)], steps)


def noise_of(shape: tuple[int, ...], *name: object) -> Callable[[], Tensor]:
    generator = stream("test-samplers", *name)
    return lambda: torch.randn(shape, generator=generator, dtype=torch.float64)


# --- the order of convergence -----------------------------------------------------------------------------------------

_STEPS = (64, 128, 256, 512)


def measured_order(errors: Sequence[float]) -> float:
    """Slope of log error against log N by least squares."""
    return -float(np.polyfit(np.log(_STEPS), np.log(errors), 1)[0])


def smooth_levels(schedule: Schedule, steps: int) -> list[Level]:
    return levels_of([schedule], [Smooth()], steps + 1)[:-1]


@every_deterministic_pair
def test_error_on_gaussian_data_falls_with_the_declared_order(sampler: Sampler, schedule: Schedule) -> None:
    mean, std = 0.7, 0.5
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[None, :, None]
    errors = []
    for steps in _STEPS:
        levels = smooth_levels(schedule, steps)
        start, end = (
            level.alpha * mean + torch.sqrt(level.alpha**2 * std**2 + level.sigma**2) * z
            for level in (levels[0], levels[-1])
        )
        errors.append(float((run(sampler, gaussian(mean, std), start, levels) - end).abs().max()))
    assert measured_order(errors) == pytest.approx(sampler.order, abs=0.08)


@every_deterministic_pair
def test_error_on_a_two_component_mixture_falls_with_the_declared_order(sampler: Sampler, schedule: Schedule) -> None:
    """Against the exact flow: the quantile of every particle stays what it was."""
    target = Mixture((0.3, 0.7), (-1.0, 1.0), (0.5, 0.4))
    z = torch.linspace(-2, 2, 41, dtype=torch.float64)[None, :, None]
    errors = []
    for steps in _STEPS:
        levels = smooth_levels(schedule, steps)
        start = z * torch.sqrt(levels[0].sigma ** 2 + levels[0].alpha ** 2)
        u = target.cdf(start, levels[0].alpha, levels[0].sigma)
        end = run(sampler, target, start, levels)
        errors.append(float((target.cdf(end, levels[-1].alpha, levels[-1].sigma) - u).abs().max()))
    assert measured_order(errors) == pytest.approx(sampler.order, abs=0.15)


@pytest.mark.parametrize("schedule", [EDM(), VELinear(), VPLinear()], ids=lambda s: s.registered_name)
@pytest.mark.parametrize("sampler", [s for s in SAMPLERS.values() if not s.stochastic], ids=lambda s: s.label())
def test_more_steps_on_the_schedules_own_grid_come_closer_to_the_flow(sampler: Sampler, schedule: Schedule) -> None:
    mean, std = 0.2, 0.5
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[None, :, None]
    errors = []
    for steps in (64, 512):
        levels = own_levels(schedule, steps)[:-1]
        start, end = (
            level.alpha * mean + torch.sqrt(level.alpha**2 * std**2 + level.sigma**2) * z
            for level in (levels[0], levels[-1])
        )
        errors.append(float((run(sampler, gaussian(mean, std), start, levels) - end).abs().max()))
    assert errors[1] <= errors[0] / 8 ** (sampler.order - 0.3)


def test_field_of_the_flow_has_the_value_of_the_closed_form() -> None:
    """U[0, 1] on vp at x = 0.7, t = 0.3, where f x - g^2/2 score is -0.291136248; ddim's field is the same one."""
    schedule, x = VPLinear(), torch.full((1, 1, 1), 0.7, dtype=torch.float64)
    t, h = number(0.3), 1e-3
    now, then = (
        Level(u, schedule.alpha(u), schedule.sigma(u), schedule.alpha_dot(u), schedule.sigma_dot(u)) for u in (t, t - h)
    )
    by_step = (run(Euler(), uniform, x, [now, then]) - x) / -h
    assert float(by_step) == pytest.approx(-0.291136248, abs=1e-9)
    score = Uniform().score(x, now.alpha[:, None], now.sigma[:, None])
    by_score = schedule.drift(t) * x - 0.5 * schedule.diffusion_squared(t) * score
    assert float(by_score) == pytest.approx(-0.291136248, abs=1e-9)
    # the ODE of Karras et al.: (sigma'/sigma + s'/s) x - sigma' s / sigma D(x / s; sigma), sigma = nsr and s = alpha
    rate = float(schedule.diffusion_squared(t) / (2 * schedule.sigma(t) ** 2))  # sigma'/sigma
    denoised = float(uniform(x / now.alpha, torch.ones_like(t), schedule.nsr(t)))
    by_edm = (rate + float(schedule.drift(t))) * 0.7 - rate * float(now.alpha) * denoised
    assert by_edm == pytest.approx(-0.291136248, abs=1e-9)
    for h in (1e-5,):
        u = t - h
        then = Level(u, schedule.alpha(u), schedule.sigma(u), schedule.alpha_dot(u), schedule.sigma_dot(u))
        assert float((run(DDIM(), uniform, x, [now, then]) - x) / -h) == pytest.approx(-0.291136, abs=1e-3)


def uniform(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return Uniform().denoise(x, alpha[:, None], sigma[:, None])


# --- evaluations ------------------------------------------------------------------------------------------------------

NFE: dict[str, Callable[[int], int]] = {
    "euler": lambda n: n,
    "heun": lambda n: 2 * n - 1,
    "ddim": lambda n: n,
    "ancestral": lambda n: n,
}


@every_pair
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_network_evaluations_are_as_many_as_promised(sampler: Sampler, schedule: Schedule, steps: int) -> None:
    counting = CountingDenoiser(gaussian(0.5, 0.3))
    x = torch.ones(1, 4, 1, dtype=torch.float64)
    run(sampler, counting, x, own_levels(schedule, steps), noise_of((1, 4, 1), "nfe"))
    promised = NFE.get(sampler.registered_name)
    assert counting.nfe == promised(steps) if promised else steps <= counting.nfe <= sampler.order * steps + 1


@every_pair
def test_a_trajectory_has_one_state_per_step_and_ends_with_what_the_last_step_gives(
    sampler: Sampler, schedule: Schedule
) -> None:
    x = torch.ones(1, 4, 1, dtype=torch.float64)
    levels = own_levels(schedule, 5)
    path = list(sampler.trajectory(gaussian(0.5, 0.3), x, levels, noise_of((1, 4, 1), "path")))
    assert len(path) == 5
    assert torch.equal(path[-1], run(sampler, gaussian(0.5, 0.3), x, levels, noise_of((1, 4, 1), "path")))
    assert torch.equal(x, torch.ones(1, 4, 1, dtype=torch.float64))  # the start is left alone


# --- noise ------------------------------------------------------------------------------------------------------------


@every_pair
def test_noise_is_drawn_if_and_only_if_the_sampler_calls_itself_stochastic(
    sampler: Sampler, schedule: Schedule
) -> None:
    drawn = 0

    def noise() -> Tensor:
        nonlocal drawn
        drawn += 1
        return torch.zeros(1, 3, 1, dtype=torch.float64)

    run(sampler, uniform, torch.ones(1, 3, 1, dtype=torch.float64), own_levels(schedule, 6), noise)
    assert (drawn > 0) is sampler.stochastic


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS.values() if s.stochastic], ids=lambda s: s.label())
def test_no_noise_is_added_in_the_last_step(sampler: Sampler) -> None:
    x = torch.ones(1, 3, 1, dtype=torch.float64)
    assert torch.isfinite(run(sampler, uniform, x, own_levels(VPLinear(), 1), silence)).all()


def gains(sampler: Sampler, denoiser: Denoiser, now: Level, then: Level) -> tuple[float, float]:
    """For a linear denoiser a step is x -> k x + w z: the two factors."""
    one, zero = torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, dtype=torch.float64)
    return float(sampler.step(denoiser, one, now, then, lambda: zero)), float(
        sampler.step(denoiser, zero, now, then, lambda: one)
    )


def chain_variances(chain: DDPMLinear, s: float, kind: str) -> list[float]:
    """The recursion in the chain's own terms: mean of the posterior with D = c x, variance as in the two choices."""
    square = np.concatenate([[1.0], np.cumprod(1 - chain.betas)])
    v, found = 1 - square[-1], []
    for k in range(chain.levels, 0, -1):
        beta = chain.betas[k - 1]
        c = math.sqrt(square[k]) * s * s / (square[k] * s * s + 1 - square[k])
        gain = (
            math.sqrt(1 - beta) * (1 - square[k - 1]) / (1 - square[k])
            + math.sqrt(square[k - 1]) * beta / (1 - square[k]) * c
        )
        added = beta if kind == "transition" else beta * (1 - square[k - 1]) / (1 - square[k])
        v = gain * gain * v + (added if k > 1 else 0)
        found.append(float(v))
    return found


@pytest.mark.parametrize("s", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(
    ("sampler", "kind"),
    [(Ancestral(), "posterior"), (Ancestral("transition"), "transition"), (DDIM(1.0), "posterior")],
    ids=["ancestral posterior", "ancestral transition", "ddim eta 1"],
)
def test_variance_on_gaussian_data_follows_the_closed_recursion(sampler: Sampler, kind: str, s: float) -> None:
    chain = DDPMLinear()
    levels = own_levels(chain, 100)
    v, found = float(levels[0].sigma) ** 2, []
    for now, then in itertools.pairwise(levels):
        if float(then.sigma) == 0:  # the last step draws nothing
            k = float(sampler.step(gaussian(0, s), torch.ones(1, 1, 1, dtype=torch.float64), now, then, silence))
            w = 0.0
        else:
            k, w = gains(sampler, gaussian(0, s), now, then)
        v = k * k * v + w * w
        found.append(v)
    assert found == pytest.approx(chain_variances(chain, s, kind), rel=1e-11)


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [(Ancestral(), "posterior"), (Ancestral("transition"), "transition")],
    ids=["posterior", "transition"],
)
def test_variance_of_samples_is_that_of_the_recursion(sampler: Sampler, kind: str) -> None:
    """40 000 samples, 4.5 standard errors sqrt(2/n) at four levels of the path: false alarms 3e-5 in all."""
    n, s, chain = 40_000, 0.5, DDPMLinear()
    x = noise_of((1, n, 1), "start", kind)() * chain.sigma(number(100.0))
    path = list(sampler.trajectory(gaussian(0, s), x, own_levels(chain, 100), noise_of((1, n, 1), "variance", kind)))
    expected = chain_variances(chain, s, kind)
    for i in (30, 60, 90, 99):
        assert float(path[i].var()) / expected[i] == pytest.approx(1, abs=4.5 * math.sqrt(2 / n))


@pytest.mark.parametrize("schedule", [VPLinear(), DDPMLinear(), DDPMLinear(levels=1000)], ids=lambda s: s.label())
@pytest.mark.parametrize("steps", [2, 7, 50, 100])
def test_transition_variance_keeps_unit_variance_exactly_at_every_level(schedule: Schedule, steps: int) -> None:
    """Data N(0, 1) on a variance-preserving chain: k^2 + w^2 = 1 whatever the pair of levels."""
    for now, then in itertools.pairwise(own_levels(schedule, steps)[:-1]):
        k, w = gains(Ancestral("transition"), gaussian(), now, then)
        assert k * k + w * w == pytest.approx(1, abs=1e-12)


@every_schedule
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_keeps_the_noise_level_for_data_at_one_point(schedule: Schedule, eta: float) -> None:
    """x_s given x_0 has mean alpha_s x_0 and standard deviation sigma_s for every eta; D is then x_0, whatever x."""
    sampler, point = DDIM(eta), 0.4

    def atom(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG001
        return torch.full_like(x, point)

    for now, then in itertools.pairwise(own_levels(schedule, 9)[:-1]):
        centre = (now.alpha * point)[:, None, None]
        one, zero = (functools.partial(torch.full_like, centre, value) for value in (1.0, 0.0))
        mean = sampler.step(atom, centre, now, then, zero)
        assert float(mean) == pytest.approx(float(then.alpha) * point, rel=1e-12)
        k = float(sampler.step(atom, centre + 1, now, then, zero) - mean)
        w = float(sampler.step(atom, centre, now, then, one) - mean)
        assert k * k * float(now.sigma) ** 2 + w * w == pytest.approx(float(then.sigma) ** 2, rel=1e-9)


def test_noise_of_ddim_is_that_of_the_paper() -> None:
    """Song et al. 2021, eq. 16: c^2 = eta^2 (1 - a_s)/(1 - a_t) (1 - a_t/a_s), a the squared amplitudes."""
    chain = DDPMLinear()
    square = np.cumprod(1 - chain.betas)
    for eta in (0.5, 1.0):
        for now, then in itertools.pairwise(own_levels(chain, 20)[:-1]):
            a_t, a_s = (square[int(level.time) - 1] for level in (now, then))
            c = eta * math.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))
            assert gains(DDIM(eta), gaussian(), now, then)[1] == pytest.approx(c, rel=1e-10)


# --- identities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [EDM(), IDDPM()], ids=lambda s: s.registered_name)
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_ddim_is_euler_where_noise_is_time(schedule: Schedule, steps: int) -> None:
    x = noise_of((1, 200, 1), "identity")() * schedule.t_max
    levels = own_levels(schedule, steps)
    torch.testing.assert_close(
        run(DDIM(), uniform, x, levels), run(Euler(), uniform, x, levels), rtol=1e-12, atol=1e-12 * schedule.t_max
    )


@every_schedule
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_ancestral_is_ddim_with_eta_one(schedule: Schedule, steps: int) -> None:
    levels = own_levels(schedule, steps)
    x = noise_of((1, 200, 1), "start")() * levels[0].sigma
    one, other = (
        list(sampler.trajectory(uniform, x, levels, noise_of((1, 200, 1), "same noise")))
        for sampler in (Ancestral(), DDIM(1.0))
    )
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12 * max(1.0, float(levels[0].sigma)))


@every_schedule
def test_ddim_is_exact_for_data_at_one_point_in_a_single_step(schedule: Schedule) -> None:
    x = noise_of((1, 50, 1), "atom")() * schedule.sigma(number(schedule.t_max))
    end = run(DDIM(), lambda x, _a, _s: torch.full_like(x, 0.4), x, own_levels(schedule, 1))
    torch.testing.assert_close(end, torch.full_like(end, 0.4), rtol=1e-12, atol=0)


def test_heun_is_karras_algorithm_1() -> None:
    """Written out once more for alpha = 1, sigma = t."""
    x = noise_of((1, 50, 1), "heun")() * 80
    levels = own_levels(EDM(), 18)
    t = [float(level.time) for level in levels]
    y = x.clone()
    for i in range(18):
        d = (y - uniform(y, number(1.0), number(t[i]))) / t[i]
        moved = y + (t[i + 1] - t[i]) * d
        if t[i + 1] != 0:
            later = (moved - uniform(moved, number(1.0), number(t[i + 1]))) / t[i + 1]
            moved = y + (t[i + 1] - t[i]) * (d / 2 + later / 2)
        y = moved
    torch.testing.assert_close(run(Heun(), uniform, x, levels), y, rtol=0, atol=1e-12)


# --- robustness -------------------------------------------------------------------------------------------------------


@every_pair
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_very_few_steps_give_finite_samples(sampler: Sampler, schedule: Schedule, steps: int) -> None:
    levels = own_levels(schedule, steps)
    x = noise_of((1, 500, 1), "few")() * levels[0].sigma
    path = list(sampler.trajectory(uniform, x, levels, noise_of((1, 500, 1), "few, noise")))
    assert len(path) == steps
    assert all(torch.isfinite(state).all() for state in path)


@every_pair
def test_nothing_is_clamped(sampler: Sampler, schedule: Schedule) -> None:
    """With a linear denoiser every rule is linear: a million-fold start gives a million-fold end, to the last bit."""
    levels, big = own_levels(schedule, 12), 2.0**20
    x = noise_of((1, 100, 1), "linear")() * levels[0].sigma
    draw = noise_of((1, 100, 1), "linear, noise")
    noises = [draw() for _ in range(40)]
    small, large = (
        run(sampler, gaussian(0, 0.5), factor * x, levels, iter([factor * noise for noise in noises]).__next__)
        for factor in (1.0, big)
    )
    assert torch.equal(large, big * small)


@every_sampler
def test_a_stack_of_schedules_gives_each_member_what_it_gets_alone(sampler: Sampler) -> None:
    chosen = [s for s in SCHEDULES.values() if sampler.refuses(s) is None]
    own = [grids.create(s.own_grid) for s in chosen]
    levels = levels_of(chosen, own, 9)
    members = len(chosen)
    x = noise_of((members, 30, 1), "stack")() * levels[0].sigma[:, None, None]
    together = run(sampler, uniform, x, levels, noise_of((members, 30, 1), "stack, noise"))
    draw = noise_of((members, 30, 1), "stack, noise")
    noises = [draw() for _ in range(30)]
    for m in range(members):
        alone = levels_of(chosen[m : m + 1], own[m : m + 1], 9)
        mine = iter([noise[m : m + 1] for noise in noises])
        one = run(sampler, uniform, x[m : m + 1], alone, mine.__next__)
        assert torch.equal(one[0], together[m])


def test_refusals_say_why_and_what_to_do_instead() -> None:
    schedule: Schedule
    for schedule in (VELinear(), EDM(), IDDPM()):
        reason = Ancestral("transition").refuses(schedule)
        assert reason is not None
        assert schedule.registered_name in reason
        assert "use variance: posterior" in reason
    for schedule in (VPLinear(), DDPMLinear()):
        assert Ancestral("transition").refuses(schedule) is None
    for eta in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="eta must lie between 0"):
            DDIM(eta)
