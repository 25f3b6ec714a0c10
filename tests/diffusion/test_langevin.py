"""Langevin dynamics keep the law that theory says: affine recursions, quadrature of the moves'
kernel, detailed balance.

A move is a Gaussian kernel, so that on the line the law after any number of moves is found on a
grid without Monte Carlo. Statistical checks are at 4.5 standard errors, a false-alarm rate of 7e-6
each, unless another is stated; seeds are fixed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Literal

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from diffusion.datasets import Dataset, FourPoints, Gaussian, GaussianMixture, Noised, Uniform, noised_distribution
from diffusion.formulations import Denoising, DenoisingScoreMatching
from diffusion.metrics import KolmogorovSmirnov, Wasserstein1
from diffusion.models import Denoiser, DensityModel, counted
from diffusion.objectives import LogUniform, SingleLevel
from diffusion.randomness import stream
from diffusion.samplers import (
    MALA,
    AnnealedLangevin,
    AtOneLevel,
    GradientAscent,
    Langevin,
    NoiseStreams,
    OwnStart,
    Sampler,
    SamplingStart,
)
from diffusion.samplers.langevin import score_at
from diffusion.schedules import EDM, IDDPM, Flow, Schedule, VELinear, VPLinear
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import Level, levels_of
from diffusion.training import Member, TrainedStack, Training, train
from tests.diffusion import sampler_kit as kit

standard, number = kit.standard, kit.number

BUMPS = GaussianMixture()  # 0.3 N(-2, 0.2^2) + 0.7 N(2, 1)
MAXIMA, MINIMUM = (-1.999975, 2.000000), -1.213288
CLEAN = EDM(sigma_min=2e-4)  # hardly any noise is left at its last level
ATOMS = FourPoints("text")
BASINS = (0.1875, 0.25, 0.234375, 0.328125)  # of -15, -5, 1, 10 in (-16, 16): divided at -10, -2 and 5.5
FALSE_ALARM = 4.5  # standard errors

every_sampler_at_one_level = pytest.mark.parametrize(
    "sampler", [GradientAscent(), Langevin(), MALA()], ids=lambda s: s.registered_name
)


def levels_for(sampler: Sampler, steps: int, chosen: Sequence[Schedule] = (EDM(),)) -> Sequence[Level]:
    """The levels that a sampler passes in N steps of the schedules' own grids."""
    return sampler.path(kit.own_stack(chosen, steps))


def begin(levels: Sequence[Level], datasets: tuple[Dataset, ...], n: int, *name: object) -> SamplingStart:
    shape = (len(datasets), n, datasets[0].dim)

    def clean() -> Tensor:
        return torch.stack([d.sample(n, stream("test-langevin", m, *name)) for m, d in enumerate(datasets)])

    return SamplingStart(standard(shape, "begin", *name), levels[0].sigma, levels, datasets, clean)


def ends(
    sampler: AtOneLevel, dataset: Dataset, steps: int, n: int, *name: object, schedule: Schedule | None = None
) -> Tensor:
    """`n` samples after N moves from where the sampler begins, ``[n]``."""
    grid = kit.own_stack((schedule or EDM(),), steps)
    x = sampler.start(begin(grid, (dataset,), n, *name))
    assert x is not None
    noise = NoiseStreams([("langevin", *name)], n, 1)
    return kit.run(sampler, kit.Known(dataset), x, grid, noise)[0, :, 0]


def kept_variance(sampler: Langevin, std: float, schedule: Schedule | None = None) -> tuple[float, float, float]:
    """Of data N(0, std^2): variance V at the level, tau in units of x squared, and the variance
    that the moves keep.
    """
    level = levels_for(sampler, 1, (schedule or EDM(),))[0]
    found = kit.affine(sampler, kit.gaussian(0, std), [level, level])
    k, w = float(found.gain), float(found.weights.sum())
    v = float(kit.marginal(level, 0, std)[1])
    return v, float(sampler.length(level)), w * w / (1 - k * k)


def within(found: float, expected: float, error: float) -> bool:
    return abs(found - expected) < FALSE_ALARM * error


# --- the law that the moves keep ------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [EDM(), VPLinear(), Flow()], ids=lambda s: s.registered_name)
@pytest.mark.parametrize(
    ("sampler", "std"),
    [
        (Langevin(tau=0.05, unit="data"), 0.5),
        (Langevin(tau=0.4, unit="data"), 0.5),
        (Langevin(nsr=0.3, tau=0.5), 0.5),
        (Langevin(nsr=2.0, tau=1.9), 0.1),
    ],
    ids=["short", "long", "noise", "nearly unstable"],
)
def test_the_kept_variance_is_too_wide_by_the_known_factor(sampler: Langevin, std: float, schedule: Schedule) -> None:
    """A37, S1-12: V / (1 - tau/2V), which is s^2 / (1 - eps/4s^2) with eps = 2 tau."""
    v, tau, kept = kept_variance(sampler, std, schedule)
    assert kept == pytest.approx(v / (1 - tau / (2 * v)), rel=1e-8)
    assert kept == pytest.approx(v / (1 - 2 * tau / (4 * v)), rel=1e-8)


def test_both_conventions_of_the_literature_are_one_step() -> None:
    """Conflict 2: eps/2 and sqrt(eps) of the score-matching notes, tau and sqrt(2 tau) of the
    tutorial, with eps = 2 tau.
    """
    eps = 0.1
    sampler = Langevin(tau=eps / 2, unit="data")
    level = levels_for(sampler, 1)[0]
    x, z = standard((1, 50, 1), "conventions"), standard((1, 50, 1), "conventions, noise")
    found = sampler.step(kit.Known(BUMPS), x, level, level, kit.Drawn(iter([z])))
    score = BUMPS.score(x, level.alpha[:, None], level.sigma[:, None])
    for expected in (
        x + 0.5 * eps * score + math.sqrt(eps) * z,
        x + (eps / 2) * score + math.sqrt(2 * (eps / 2)) * z,
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    assert kept_variance(sampler, 0.5)[2] == pytest.approx(0.27778, abs=1e-5)


def test_samples_have_the_kept_variance() -> None:
    """A37: s^2 = .25, eps = .1 give .27778, in 60 moves, after which 1e-6 of the start is left; 40
    000 samples.
    """
    n = 40_000
    x = ends(Langevin(tau=0.05, unit="data", start_from="data"), Gaussian(0.0, 0.5), 60, n, "ula")
    assert within(float(x.var()), 0.27778, 0.27778 * math.sqrt(2 / n))
    assert not within(float(x.var()), 0.25, 0.25 * math.sqrt(2 / n))
    assert within(float(x.mean()), 0, math.sqrt(0.28 / n * (1 + 0.8) / (1 - 0.8)))


@pytest.mark.parametrize("unit", ["noise", "data"])
def test_a_chain_does_not_depend_on_the_schedule_of_its_level(unit: Literal["noise", "data"]) -> None:
    """The same noise-to-signal ratio, start and noise: x / alpha is the same on every schedule."""
    shape, sampler = (1, 30, 1), Langevin(nsr=0.7, tau=0.2, unit=unit, start_from="box", low=-3, high=3)
    found = []
    for schedule in (EDM(), VPLinear(), Flow(), VELinear()):
        levels = kit.own_levels(schedule, 20)
        x = sampler.start(begin(levels, (BUMPS,), 30, "schedules"))
        assert x is not None
        end = kit.run(sampler, kit.Known(BUMPS), x, levels, kit.drawn(shape, "schedules"))
        found.append(end / sampler.level(levels[0]).alpha)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-9)


# --- two bumps ------------------------------------------------------------------------------------


def stationary_points(level: Level) -> tuple[float, float, float]:
    """The roots of the exact score of the bumps at a level: maximum, minimum, maximum."""

    def score(x: float) -> float:
        at = torch.tensor([[[x]]], dtype=torch.float64)
        return float(BUMPS.score(at, level.alpha[:, None], level.sigma[:, None]))

    low, middle, high = (brentq(score, a, b, xtol=1e-12) for a, b in ((-3.0, -1.9), (-1.8, 0.0), (1.0, 4.0)))
    return low, middle, high


def test_gradient_ascent_ends_in_the_maxima_of_the_density() -> None:
    """A52, S2-12: the bumps are chosen (the tutorial's numbers are lost); each sample climbs the
    hill in whose basin it began.
    """
    sampler = GradientAscent(tau=0.05, unit="data")
    path = levels_for(sampler, 400, (CLEAN,))
    roots = stationary_points(path[0])
    assert roots == pytest.approx((MAXIMA[0], MINIMUM, MAXIMA[1]), abs=1e-6)
    x = torch.linspace(-4, 5, 46, dtype=torch.float64)[None, :, None]
    end = kit.run(sampler, kit.Known(BUMPS), x, path)
    expected = roots[0] + (roots[2] - roots[0]) * (x > roots[1]).double()
    torch.testing.assert_close(end, expected, rtol=0, atol=1e-6)


def test_descent_ends_in_the_minimum_or_nowhere() -> None:
    """S2-10: called gradient descent, it would go down: samples between the maxima meet in the
    minimum, others leave.
    """
    sampler = GradientAscent(tau=0.02, unit="data")
    level = levels_for(sampler, 1, (CLEAN,))[0]
    x = torch.tensor([-5.0, -1.5, -1.0, 1.0, 6.0], dtype=torch.float64)[None, :, None]
    for _ in range(400):
        x = x - sampler.tau * score_at(kit.Known(BUMPS), x, level)
    assert x[0, 1:4, 0].tolist() == pytest.approx([MINIMUM] * 3, abs=1e-5)
    assert float(x[0, 0, 0]) < -100
    assert float(x[0, 4, 0]) > 100


SPACING = 0.01  # of the grid; moves spread by .035 at least


class Kernel:
    """The law after moves of one kind from x to N(x + tau score, factor tau), on a grid: a column
    for each place.
    """

    def __init__(self, level: Level, tau: float, factor: float = 2.0, low: float = -4.0, high: float = 7.0) -> None:
        self.places = torch.arange(low, high, SPACING, dtype=torch.float64)
        score = BUMPS.score(self.places[None, :, None], level.alpha[:, None], level.sigma[:, None])[0, :, 0]
        offset = self.places[:, None] - (self.places + tau * score)
        move = torch.exp(-0.5 * offset**2 / (factor * tau))
        self.move = move / move.sum(0)

    def after(self, moves: int, mean: float, std: float) -> Tensor:
        """Probabilities of the places after so many moves from a normal law."""
        distribution = torch.exp(-0.5 * ((self.places - mean) / std) ** 2)
        distribution = distribution / distribution.sum()
        for _ in range(moves):
            distribution = self.move @ distribution
        return distribution

    def moments(self, distribution: Tensor, below: float = math.inf) -> tuple[float, float]:
        """Mean and variance of the part of a law below a place."""
        part = torch.where(self.places < below, distribution, 0.0)
        part = part / part.sum()
        centre = float((part * self.places).sum())
        return centre, float((part * (self.places - centre) ** 2).sum())


def test_variance_inside_a_mode_is_too_wide_as_quadrature_says() -> None:
    """A53: eps = .01 on the bump of variance .04 gives .0429, where one bump alone would have
    .0427; 30 000 samples.

    Both are found on a grid, and samples of the left hill have the first.
    """
    n, moves = 30_000, 40
    sampler = Langevin(tau=0.005, unit="data")
    path = levels_for(sampler, moves)
    kernel = Kernel(path[0], sampler.tau)
    distribution = kernel.after(moves, -2.0, 0.2)
    _, variance = kernel.moments(distribution, below=MINIMUM)
    assert variance == pytest.approx(0.0429, abs=1.5e-4)
    alone = 0.04 / (1 - 0.01 / (4 * 0.04))
    assert alone == pytest.approx(0.0427, abs=5e-5)
    x = -2 + 0.2 * standard((1, n, 1), "in mode")
    end = kit.run(sampler, kit.Known(BUMPS), x, path, NoiseStreams([("in mode",)], n, 1))[0, :, 0]
    inside = end[end < MINIMUM]
    fourth = float((inside - inside.mean()).pow(4).mean())
    assert within(float(inside.var()), variance, math.sqrt((fourth - variance**2) / len(inside)))
    assert not within(float(inside.var()), 0.04, 0.04 * math.sqrt(2 / n))


def test_the_noise_belongs_to_the_step() -> None:
    """S2-10: any other factor than sqrt(2 tau) keeps another law, none ends in a point; only the
    right one improves as tau falls.

    Exact, by the kernel's stationary law on the left hill alone, where -score is nearly (x + 2) /
    .04.
    """
    level = levels_for(Langevin(), 1)[0]
    found = {}
    for factor in (1.0, 2.0, 4.0):
        for tau in (0.005, 0.00125):
            kernel = Kernel(level, tau, factor, low=-3.2, high=MINIMUM)
            found[factor, tau] = kernel.moments(kernel.after(round(0.3 / tau), -2.0, 0.2))[1]
    assert found[2.0, 0.005] == pytest.approx(0.0429, abs=3e-4)
    assert found[2.0, 0.00125] == pytest.approx(0.04, rel=0.03)
    assert found[1.0, 0.00125] == pytest.approx(0.02, rel=0.03)  # half the noise: half the variance
    assert found[4.0, 0.00125] > 0.06


def test_noise_of_fixed_size_keeps_no_law_at_all() -> None:
    """S2-10: as in stochastic gradient descent, whose noise does not shrink with the root of the
    step. By the recursion on N(0, 1): with noise c the variance c^2 / (1 - (1 - tau)^2) grows
    without bound as tau falls, with noise tau it vanishes.
    """
    kept = {}
    for tau in (0.1, 0.01, 0.001):
        shrink = 1 - (1 - tau) ** 2
        kept[tau] = 2 * tau / shrink, 0.3**2 / shrink, tau**2 / shrink
        assert kept_variance(Langevin(tau=tau, unit="data"), 1.0)[2] == pytest.approx(kept[tau][0], rel=1e-4)
    tied, fixed, square = kept[0.001]
    assert tied == pytest.approx(1, abs=1e-3)
    assert fixed > 40
    assert square < 1e-3


def test_samples_of_the_whole_mixture_follow_the_kernel() -> None:
    """A53: from a uniform start, 150 moves: the probability below three places is the kernel's, 10
    000 samples.
    """
    n, moves = 10_000, 150
    sampler = Langevin(tau=0.02, unit="data", start_from="box", low=-4, high=7)
    kernel = Kernel(levels_for(sampler, 1)[0], sampler.tau)
    distribution = kernel.after(moves, 1.5, 1e9)  # flat
    x = ends(sampler, BUMPS, moves, n, "mixture")
    for place in (-2.0, MINIMUM, 2.0):
        below = float(distribution[kernel.places < place].sum())
        edge = float(distribution[(kernel.places - place).abs().argmin()])  # which cell of the grid the place is in
        assert within(
            float((x < place).double().mean()), below, math.sqrt(below * (1 - below) / n) + edge / FALSE_ALARM
        )


# --- low density ----------------------------------------------------------------------------------


def masses(x: Tensor) -> list[float]:
    return torch.bincount(ATOMS.mode_of(x[:, None]), minlength=4).div(len(x)).tolist()


def test_langevin_dynamics_keep_the_shares_of_the_basins_of_their_start() -> None:
    """A38, S2-11: four atoms of weight 1/4, noise .5, from U(-16, 16): masses .188, .252, .229,
    .331.

    These are the atoms' shares of the interval, from which each found mass is within 4.5 standard
    errors (3e-5 in all), and all but the second, whose basin happens to have a fourth of it, are
    ten away from 1/4.
    """
    n = 20_000
    x = ends(Langevin(nsr=0.5, tau=0.1, start_from="box"), ATOMS, 120, n, "low density")
    found = masses(x)
    assert pytest.approx((0.188, 0.252, 0.229, 0.331), abs=0.006) == BASINS
    for mass, share in zip(found, BASINS, strict=True):
        assert within(mass, share, math.sqrt(share * (1 - share) / n))
    assert all(abs(mass - 0.25) > 0.012 for k, mass in enumerate(found) if k != 1)
    nearest = ATOMS.points[ATOMS.mode_of(x[:, None])][:, 0]
    assert float((x - nearest).std()) == pytest.approx(0.5 / math.sqrt(1 - 0.05), rel=0.03)  # settled within each


@functools.cache
def annealed_atoms(n: int) -> Tensor:
    """From sigma = 25, the largest distance of two atoms (Song & Ermon 2020, technique 1), to .5 in
    ten levels.
    """
    schedule = VELinear(sigma_min=0.5, sigma_max=25.0)
    sampler = AnnealedLangevin(moves=50, denoise=False)
    levels = kit.own_levels(schedule, 10)
    x = 25 * standard((1, n, 1), "annealed atoms")
    noise = NoiseStreams([("annealed atoms",)], n, 1)
    return kit.run(sampler, kit.Known(ATOMS), x, levels, noise)[0, :, 0]


def test_annealed_langevin_dynamics_find_the_weights() -> None:
    """A41: .248, .247, .249, .257 are 1/4 each; 10 000 samples, 3e-5 in all."""
    n = 10_000
    for mass in masses(annealed_atoms(n)):
        assert within(mass, 0.25, math.sqrt(0.25 * 0.75 / n))


def learned(formulation: Denoising, steps: int) -> TrainedStack:
    """Three networks."""
    data = ATOMS.sample(20_000, stream("low density, data"))
    members = [Member(ATOMS, formulation, formulation.own_schedule(), str(seed)) for seed in range(3)]
    stack = train(members, [data] * 3, Training(steps=steps, batch=256, width=32, depth=2))
    assert stack.errors == (None,) * 3
    return stack


def score_of_atoms(denoiser: Denoiser, x: Tensor) -> Tensor:
    """At noise .5, at places ``[n]``."""
    points = x[None, :, None]
    return (denoiser(points, number(1.0), number(0.5)) - points)[0, :, 0] / 0.25


def from_the_box(stack: TrainedStack, steps: int, n: int) -> Tensor:
    sampler = Langevin(nsr=0.5, tau=0.1, start_from="box")
    levels = levels_for(sampler, steps, (stack.members[0].schedule,))
    x = sampler.start(begin(levels, (ATOMS,), n, "learned"))
    assert x is not None
    return kit.run(sampler, stack.denoiser, x, levels, NoiseStreams([("learned",)], n, 1))[0, :, 0]


def furthest_from_a_fourth(x: Tensor) -> float:
    return max(abs(mass - 0.25) for mass in masses(x))


@pytest.mark.slow
def test_a_score_learned_at_one_level_is_right_where_the_data_are_and_wrong_between_the_modes() -> None:
    """A38: denoising score matching at noise .5. Root mean square errors of eight networks: .06 to
    .13 on data, where the score has 2.0, and 9.1 to 11.8 farther than four deviations from every
    mode, where it has 14. So Langevin dynamics fill the modes by basins of their
    own: some mode is .04 to .14 away from its fourth, and five times as many moves change nothing.
    Chance has .02 of it (4.5 errors).
    """
    stack = learned(DenoisingScoreMatching(noise_levels=SingleLevel(0.5)), 1500)
    x = Noised(ATOMS, 1.0, 0.5).sample(4000, stream("low density, noised"))[:, 0]
    box = torch.linspace(-16, 16, 2001, dtype=torch.float64)
    far = box[(box[:, None] - ATOMS.points[:, 0]).abs().amin(1) > 4 * 0.5]
    for m in range(3):
        one = stack.select([m])
        on_data, between = (
            float((score_of_atoms(one.denoiser, at) - score_of_atoms(kit.Known(ATOMS), at)).square().mean().sqrt())
            for at in (x, far)
        )
        assert on_data < 0.2
        assert between > 7
        ended = from_the_box(one, 120, 8000)
        assert furthest_from_a_fourth(ended) > 0.03
        assert masses(from_the_box(one, 600, 8000)) == pytest.approx(masses(ended), abs=0.01)


@pytest.mark.slow
def test_a_score_learned_at_all_levels_needs_annealing_to_find_the_weights() -> None:
    """A41: down from noise that has merged the modes, and at the last level alone, the same
    networks. Some mode of eight networks was .01 to .06 away from its fourth annealed, and .11 to
    .14 at the one level.
    """
    schedule, n = VELinear(sigma_min=0.5, sigma_max=25.0), 8000
    stack = learned(Denoising(schedule=schedule, noise_levels=LogUniform()), 2500)
    for m in range(3):
        one = stack.select([m])
        noise = NoiseStreams([("learned, annealed",)], n, 1)
        x = 25 * standard((1, n, 1), "learned, annealed")
        annealed = kit.run(
            AnnealedLangevin(moves=50, denoise=False), one.denoiser, x, kit.own_levels(schedule, 10), noise
        )
        assert furthest_from_a_fourth(annealed[0, :, 0]) < 0.06
        assert furthest_from_a_fourth(from_the_box(one, 120, n)) > 0.09


# --- annealed Langevin dynamics on the uniform law ------------------------------------------------

RUNS = 10_000


@functools.cache
def annealed(moves: int, tau: float, runs: int, *, denoise: bool) -> Tensor:
    """L = 10 levels from 1 to .01, started from N(0, 1): ``[runs, 10 000]``."""
    schedule = VELinear(sigma_min=0.01, sigma_max=1.0)
    sampler = AnnealedLangevin(moves, tau, denoise)
    levels = levels_of([schedule] * runs, [grids.create("uniform-log-snr")] * runs, 10)
    assert [float(level.sigma[0]) for level in levels[:-1]] == pytest.approx([0.01 ** (i / 9) for i in range(10)])
    keys = [("annealed", moves, r) for r in range(runs)]
    start = NoiseStreams([("start", *key) for key in keys], RUNS, 1).fresh() * levels[0].sigma[:, None, None]
    return kit.run(sampler, kit.uniform, start, levels, NoiseStreams(keys, RUNS, 1))[:, :, 0]


def w1(samples: Tensor) -> float:
    return Wasserstein1().evaluate(samples.reshape(-1, 1), Uniform())


TABLE = {
    # moves: mean of W1 of 10 000 samples, its standard deviation, mean, variance
    10: (0.03832, 0.0019, 0.48331, 0.10464),
    100: (0.003652, 0.0016, 0.50012, 0.08351),
}


@pytest.mark.parametrize(("moves", "runs"), [(10, 4), (100, 1)])
def test_annealed_langevin_dynamics_end_where_the_table_says(moves: int, runs: int) -> None:
    """Rows ald_L10_T10 and ald_L10_T100: eps = 2e-5, in the convention of eps/2, so that tau = eps
    / 2 sigma_L^2 = .1.

    W1 within 4.5 standard deviations of a mean of so many runs and of the table's ten, moments of
    our and the table's 100 000 samples together: false alarms 4e-5 in all.
    """
    w1_mean, w1_sd, table_mean, table_variance = TABLE[moves]
    x = annealed(moves, 2e-5 / 2 / 0.01**2, runs, denoise=False)
    assert within(mean(w1(one) for one in x), w1_mean, w1_sd * math.sqrt(1 / runs + 1 / 10))
    share = math.sqrt(1 / x.numel() + 1 / 100_000)
    variance, fourth = float(x.var()), float((x - x.mean()).pow(4).mean())
    assert within(float(x.mean()), table_mean, share * math.sqrt(variance))
    assert within(variance, table_variance, share * math.sqrt(fourth - variance**2))


def test_moves_without_a_step_size_for_each_level_fail() -> None:
    """S1-14: one step size for all levels is too short where noise is large or too long where it is
    small.

    On data at one point the moves at level sigma are x <- (1 - a / sigma^2) x + noise, exactly:
    with a = tau sigma_L^2 everywhere the start is still there in the end, with a = tau sigma_1^2
    the last levels multiply by -(tau 10^4 - 1) each move.
    """
    tau, sigmas = 0.2, [0.01 ** (i / 9) for i in range(10)]

    def end(step: float | None) -> float:
        variance = 1.0
        for sigma in sigmas:
            a = tau * sigma**2 if step is None else step
            for _ in range(10):
                variance = (1 - a / sigma**2) ** 2 * variance + 2 * a
        return variance

    assert end(None) == pytest.approx(0.01**2 / (1 - tau / 2), rel=0.2)
    assert end(tau * sigmas[-1] ** 2) > 3 * 0.01**2
    assert end(tau) > 1e30

    sampler = AnnealedLangevin(moves=10, tau=tau, denoise=False)
    levels = kit.own_levels(VELinear(sigma_min=0.01, sigma_max=1.0), 10)
    found = kit.affine(sampler, lambda x, _a, _s: torch.zeros_like(x), levels)
    assert float(found.of_normal(number(0.0), number(1.0))[1]) == pytest.approx(end(None), rel=1e-8)


def test_starting_on_the_support_of_the_data_would_pass_with_any_score() -> None:
    """S1-16: samples that never move are perfect if they start as U[0, 1], far off if they start as
    the schedule's noise does.

    W1 of 10 000 perfect samples exceeds .0125 with probability 1e-9.
    """
    n = RUNS
    never = Langevin(tau=1e-9, start_from="box", low=0, high=1)
    assert w1(ends(never, Uniform(), 3, n, "trivial")) < 0.0125
    assert w1(standard((n,), "trivial")) > 0.5
    assert not isinstance(AnnealedLangevin(), OwnStart)  # but from the schedule's noise


def test_the_last_estimate_takes_the_noise_of_the_last_level_away() -> None:
    """Denoised or not are the same samples but for D, which on data at one point is the point
    itself.
    """
    levels = kit.own_levels(VELinear(sigma_min=0.1, sigma_max=1.0), 5)
    x = standard((1, 100, 1), "denoise")

    def end(*, denoise: bool) -> Tensor:
        sampler = AnnealedLangevin(20, denoise=denoise)
        return kit.run(sampler, kit.uniform, x, levels, kit.drawn((1, 100, 1), "denoise"))

    noisy, denoised = end(denoise=False), end(denoise=True)
    torch.testing.assert_close(denoised, kit.uniform(noisy, levels[-2].alpha, levels[-2].sigma), rtol=0, atol=0)
    assert not torch.equal(noisy, denoised)


# --- the unbiased reference -----------------------------------------------------------------------


def test_metropolis_removes_the_bias_at_the_same_step() -> None:
    """s^2 = .25, eps = .1: .25 where unadjusted moves have .27778; 40 000 samples after 60 moves
    from the law itself.
    """
    n = 40_000
    x = ends(MALA(tau=0.05, unit="data", start_from="data"), Gaussian(0.0, 0.5), 60, n, "mala")
    assert within(float(x.var()), 0.25, 0.25 * math.sqrt(2 / n))
    assert float(x.var()) < 0.27778 - 10 * 0.25 * math.sqrt(2 / n)


@pytest.mark.parametrize("tau", [0.005, 0.05, 0.5])
def test_the_accepted_moves_are_in_detailed_balance(tau: float) -> None:
    """p(x) q(y|x) a(x, y) is symmetric, for pairs of places on the two bumps; a as the sampler
    finds it.
    """
    sampler = MALA(tau=tau, unit="data")
    level, model = levels_for(sampler, 1)[0], kit.Known(BUMPS)
    places = torch.linspace(-3, 4, 29, dtype=torch.float64)
    x, y = (part.reshape(1, -1, 1) for part in torch.meshgrid(places, places, indexing="ij"))

    def flow(x: Tensor, y: Tensor) -> Tensor:
        """log of the flow from x to y."""
        z = (y - x - tau * score_at(model, x, level)) / math.sqrt(2 * tau)
        _, accepted = next(sampler.walk(model, x, level, 1, kit.Drawn(iter([z, torch.zeros_like(z)]))))
        return model.log_density(x, level.alpha, level.sigma) - 0.5 * z[..., 0] ** 2 + torch.log(accepted)

    forth, back = flow(x, y), flow(y, x)
    seen = torch.isfinite(forth) & torch.isfinite(back)  # neither accepted with probability 0 to rounding
    assert int(seen.sum()) > 400
    torch.testing.assert_close(forth[seen], back[seen], rtol=1e-8, atol=1e-6)


def test_moves_are_accepted_as_often_as_quadrature_says() -> None:
    """On the bumps, at stationarity: the average of min(1, ratio) over the law and the move; 20 000
    samples.
    """
    tau, n = 0.05, 20_000
    sampler = MALA(tau=tau, unit="data", start_from="data")
    levels = kit.own_levels(EDM(), 1)
    level, model = sampler.level(levels[0]), kit.Known(BUMPS)
    x = torch.linspace(-3.5, 7, 2101, dtype=torch.float64)
    z = torch.linspace(-6, 6, 241, dtype=torch.float64)
    shape = (1, len(x) * len(z), 1)
    here, step = (part.reshape(shape) for part in torch.meshgrid(x, z, indexing="ij"))

    def log_p(x: Tensor) -> Tensor:
        return BUMPS.log_density(x, level.alpha[:, None], level.sigma[:, None])

    def ahead(x: Tensor) -> Tensor:
        return x + tau * BUMPS.score(x, level.alpha[:, None], level.sigma[:, None])

    there = ahead(here) + math.sqrt(2 * tau) * step
    back = (here - ahead(there)) / math.sqrt(2 * tau)
    ratio = log_p(there) - log_p(here) + 0.5 * (step**2 - back**2)[..., 0]
    weight = torch.exp(log_p(here) - 0.5 * step[..., 0] ** 2)
    accepted = torch.exp(ratio.clamp(max=0.0))
    expected = float((weight * accepted).sum() / weight.sum())
    square = float((weight * accepted**2).sum() / weight.sum())
    start = sampler.start(begin(levels, (BUMPS,), n, "acceptance"))
    assert start is not None
    _, found = next(sampler.walk(model, start, level, 1, NoiseStreams([("acceptance",)], n, 1)))
    assert 0.5 < expected < 0.95
    assert within(float(found.mean()), expected, math.sqrt((square - expected**2) / n))


def test_metropolis_moves_follow_the_law_where_unadjusted_ones_do_not() -> None:
    """The two bumps after 100 moves of tau = .06 from the law itself, 10 000 samples: the
    probability below three places.
    """
    n, places = 10_000, torch.tensor([-2.2, -1.5, 2.0], dtype=torch.float64)
    found = {
        kind: ends(kind(tau=0.06, unit="data", start_from="data"), BUMPS, 100, n, "law") for kind in (MALA, Langevin)
    }
    off = []
    for place, share in zip(places, BUMPS.cdf(places).tolist(), strict=True):
        error = math.sqrt(share * (1 - share) / n)
        assert within(float((found[MALA] < place).double().mean()), share, error)
        off.append(abs(float((found[Langevin] < place).double().mean()) - share) / error)
    assert max(off) > 10


def test_a_rejected_sample_stays_where_it_is() -> None:
    """Moves far too long are hardly ever accepted, and nothing becomes infinite, not even where the
    proposals are.
    """
    sampler = MALA(tau=1e200, unit="data")
    level = levels_for(sampler, 1)[0]
    x = standard((1, 100, 1), "stay")
    for state, accepted in sampler.walk(kit.Known(BUMPS), x, level, 3, kit.drawn((1, 100, 1), "stay")):
        assert torch.equal(state, x)
        assert float(accepted.max()) == 0


def test_metropolis_wants_a_density() -> None:
    level = levels_for(MALA(), 1)[0]
    assert MALA.needs is DensityModel
    with pytest.raises(TypeError, match="needs a model with a density"):
        next(MALA().walk(lambda x, _a, _s: x, standard((1, 2, 1), "none"), level, 1, kit.SILENCE))


# --- where they start, which levels they pass, what they end in -----------------------------------


@every_sampler_at_one_level
@pytest.mark.parametrize("schedule", [EDM(), VPLinear(), IDDPM()], ids=lambda s: s.registered_name)
def test_all_moves_are_at_the_level_of_least_noise_unless_another_is_named(
    sampler: AtOneLevel, schedule: Schedule
) -> None:
    path = levels_for(sampler, 4, (schedule,))
    least = float(schedule.nsr(torch.tensor([schedule.t_min], dtype=torch.float64)))
    assert [float(level.nsr) for level in path] == pytest.approx([least] * 5, rel=1e-9)
    assert sampler.refuses(schedule) is None
    denoising = type(sampler)(denoise=True)
    assert [level.clean for level in levels_for(denoising, 4, (schedule,))] == [False] * 4 + [True]
    other = type(sampler)(nsr=0.5)
    if schedule.max_steps is None:
        assert [float(level.nsr) for level in levels_for(other, 2, (schedule,))] == pytest.approx([0.5] * 3, rel=1e-9)
    else:
        assert "known at its own discrete levels only" in str(other.refuses(schedule))


def test_a_noise_level_beyond_the_schedule_s_is_refused() -> None:
    for nsr in (0.001, 81.0):
        text = Langevin(nsr=nsr).refuses(EDM())
        assert text is not None
        assert f"at noise-to-signal ratio {nsr:g}, and schedule 'edm' has ratios from 0.002 to 80" in text
    for nsr in (0.002, 80.0):
        assert Langevin(nsr=nsr).refuses(EDM()) is None
    assert "hands x / alpha on" in str(AnnealedLangevin().refuses(Flow()))


def test_annealing_passes_each_level_and_stays_at_the_first() -> None:
    levels = kit.own_levels(EDM(), 4)
    assert AnnealedLangevin().path(levels) == levels
    assert AnnealedLangevin(denoise=False).path(levels) == [levels[0], *levels[:-1]]


def test_states_of_annealing_follow_the_law_of_the_level_they_are_filed_under() -> None:
    """On N(0, .05^2), with very many short moves: the variance at each level, by the affine map."""
    levels = kit.own_levels(VELinear(sigma_min=0.1, sigma_max=1.0), 4)
    sampler = AnnealedLangevin(moves=200, tau=0.1, denoise=False)
    path = sampler.path(levels)
    for i in range(1, len(path)):
        found = kit.affine(sampler, kit.gaussian(0, 0.05), levels[: i + 1])
        v = float(kit.marginal(path[i], 0, 0.05)[1])
        tau = 0.1 * float(path[i].sigma) ** 2
        assert float(found.of_normal(number(0.0), number(1.0))[1]) == pytest.approx(v / (1 - tau / (2 * v)), rel=1e-6)


def test_starts() -> None:
    """U(low, high) and the level's own law, in units in which the data are scaled as at the level;
    or the schedule's noise.
    """
    schedule, n = VPLinear(), 20_000
    levels = kit.own_levels(schedule, 3)
    here = begin(levels, (BUMPS,), n, "starts")
    assert Langevin().start(here) is None
    box = Langevin(nsr=1.0, start_from="box", low=-1, high=3)
    alpha = float(box.level(levels[0]).alpha)
    x = box.start(here)
    assert x is not None
    assert alpha == pytest.approx(math.sqrt(0.5), rel=1e-9)
    uniform = x[0] / alpha
    assert KolmogorovSmirnov().evaluate(uniform, Uniform(-1.0, 3.0)) < 3.6 / math.sqrt(n)  # false alarms 1e-11
    data = Langevin(nsr=1.0, start_from="data")
    x = data.start(here)
    assert x is not None
    distribution = data.target(BUMPS, data.level(levels[0]))
    assert KolmogorovSmirnov().evaluate(x[0], distribution) < 3.6 / math.sqrt(n)


@every_sampler_at_one_level
def test_the_target_is_the_law_at_the_level(sampler: AtOneLevel) -> None:
    named = type(sampler)(nsr=0.5)
    last = levels_for(named, 3)[-1]
    assert named.target(BUMPS, last) == GaussianMixture(
        (0.3, 0.7), (-2.0, 2.0), (math.hypot(0.2, 0.5), math.hypot(1.0, 0.5))
    )
    assert named.target(Gaussian(1.0, 2.0), last) == Gaussian(1.0, math.hypot(2.0, 0.5))
    assert named.target(Uniform(), last) == Noised(Uniform(), 1.0, 0.5)
    last = levels_for(type(sampler)(nsr=0.5, denoise=True), 3)[-1]
    assert named.target(Uniform(), last) == Uniform()
    assert AnnealedLangevin().target(Uniform(), kit.own_levels(EDM(), 2)[-1]) == Uniform()
    assert AnnealedLangevin(denoise=False).target(Uniform(), kit.own_levels(EDM(), 2)[0]) == Noised(
        Uniform(), 1.0, 80.0
    )


@pytest.mark.parametrize(
    "dataset", [BUMPS, Gaussian((0.3, -1.0), (0.2, 0.7), 2), ATOMS, GaussianMixture((1.0,), ((1.0, 2.0),), (0.4,))]
)
def test_noised_laws_are_those_of_the_target_at_the_level(dataset: Dataset) -> None:
    """As a target of its own: its density at little noise is the target's at nearly that of the
    level; modes are kept.
    """
    distribution = noised_distribution(dataset, 0.8, 0.6)
    x = standard((50, dataset.dim), "noised law")
    a, s = number(0.8), number(0.6)
    tiny = number(1e-6)
    torch.testing.assert_close(
        distribution.log_density(x, number(1.0), tiny),
        dataset.log_density(x, a, torch.hypot(s, tiny)),
        rtol=1e-9,
        atol=1e-9,
    )
    assert (distribution.mode_weights is None) is (dataset.mode_weights is None)
    assert noised_distribution(dataset, 1.0, 0.0) is dataset


@pytest.mark.parametrize(
    "sampler",
    [
        Langevin(),
        Langevin(denoise=True),
        GradientAscent(),
        MALA(),
        MALA(denoise=True),
        AnnealedLangevin(7),
        AnnealedLangevin(7, denoise=False),
    ],
    ids=lambda s: s.label(),
)
def test_evaluations_of_one_step_and_of_many(sampler: AtOneLevel | AnnealedLangevin) -> None:
    cost = {
        "langevin": lambda n: n,
        "langevin(denoise=True)": lambda n: n,
        "gradient-ascent": lambda n: n,
        "mala": lambda n: 2 * n + 2,
        "mala(denoise=True)": lambda n: 2 * n + 1,
        "annealed-langevin(moves=7)": lambda n: 7 * n + 1,
        "annealed-langevin(moves=7,denoise=False)": lambda n: 7 * n,
    }
    for steps in (1, 5):
        model, counter = counted(kit.uniform)
        path = levels_for(sampler, steps)
        x = torch.ones(1, 3, 1, dtype=torch.float64)
        states = list(sampler.trajectory(model, x, path, kit.drawn((1, 3, 1), "evaluations")))
        assert len(states) == len(path) - 1 == steps
        assert counter.nfe == sampler.evaluations(steps) == cost[sampler.label()](steps)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Langevin(tau=0.0), "langevin needs 0 < tau < 2"),
        (lambda: Langevin(tau=2.0), r"stable for tau < 2 sigma\^2\), found tau = 2.0"),
        (lambda: Langevin(tau=-1.0, unit="data"), "langevin needs 0 < tau < inf, found tau = -1.0"),
        (lambda: Langevin(unit="eps"), "langevin: unit = 'eps'; accepted: noise, data"),  # type: ignore[arg-type]
        (lambda: GradientAscent(nsr=0.0), "positive noise-to-signal ratio, found nsr = 0.0"),
        (lambda: MALA(start_from="here"), "mala: start_from = 'here'; accepted: noise, box, data"),  # type: ignore[arg-type]
        (lambda: MALA(low=1.0, high=1.0), "mala needs low < high, found low = 1.0 and high = 1.0"),
        (lambda: AnnealedLangevin(moves=0), "annealed-langevin needs moves from 1 to 1000000, found 0"),
        (lambda: AnnealedLangevin(tau=2.5), "annealed-langevin needs 0 < tau < 2"),
    ],
)
def test_impossible_parameters_are_refused_in_words(make: Callable[[], Sampler], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make()


# --- the noised law along a path ------------------------------------------------------------------


def test_paths_of_samples_stay_in_the_tube_of_the_exact_law() -> None:
    """A47: within four standard deviations of one of the two bumps as they are at each level, on
    the way to the data.

    Of 1000 paths at 40 levels fewer than 2 * 6.3e-5 of the states are outside in the mean, 2.5 to 5
    of them, correlated along paths; what is asserted, at most 40, leaves room for eight whole
    standard deviations of paths that are outside at ten levels each.
    """
    schedule, n = VPLinear(), 1000
    levels = kit.own_levels(schedule, 40)
    x = standard((1, n, 1), "tube") * levels[0].sigma
    outside = 0
    for level, state in zip(
        levels[1:-1],
        kit.SAMPLERS["ancestral(variance=transition)"].trajectory(
            kit.Known(BUMPS), x, levels, NoiseStreams([("tube",)], n, 1)
        ),
        strict=False,
    ):
        distribution = noised_distribution(BUMPS, float(level.alpha), float(level.sigma))
        assert isinstance(distribution, GaussianMixture)
        far = torch.stack(
            [
                (state[0, :, 0] - m).abs() > 4 * s
                for m, s in zip(distribution.mixture.means[:, 0], distribution.mixture.stds, strict=True)
            ]
        )
        outside += int(far.all(0).sum())
    assert outside <= 40
