"""What every registered sampler promises: its cost, its noise, its independence of neighbours, and
numbers that are finite.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion.datasets import Checkerboard, Uniform
from diffusion.models import ActionModel, Decoder, Denoiser, KnownDistribution, RestorationModel, counted
from diffusion.samplers import (
    DDIM,
    RK2,
    Ancestral,
    AnnealedLangevin,
    Churn,
    DormandPrince,
    DPMSolver2MSDE,
    EulerMaruyama,
    ExponentialEuler,
    LevelOne,
    NoiseStreams,
    OwnStart,
    OwnTarget,
    PeerSampler,
    PredictorCorrector,
    ReverseSDE,
    Sampler,
    samplers,
)
from diffusion.schedules import EDM, IDDPM, DDPMLinear, Flow, Schedule, VELinear, VPLinear
from diffusion.schedules.grids import Grid, grids
from diffusion.schedules.levels import level_at
from tests.diffusion import sampler_kit as kit

SAMPLERS, SCHEDULES, SILENCE = kit.SAMPLERS, kit.SCHEDULES, kit.SILENCE
run, served, own_levels, own_stack = kit.run, kit.served, kit.own_levels, kit.own_stack
uniform, rough, gaussian, standard, drawn = kit.uniform, kit.rough, kit.gaussian, kit.standard, kit.drawn

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
every_driven = pytest.mark.parametrize(
    "sampler", [s for s in kit.FOLLOWING.values() if s.stochastic], ids=lambda s: s.label()
)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def alike(sampler: Sampler, one: Tensor, other: Tensor) -> bool:
    """To the last bit; a sampler that chooses its steps by looking at the batch: to its tolerance,
    accumulated.
    """
    if sampler.adaptive:
        return torch.allclose(one, other, rtol=1e-3, atol=1e-3)
    return torch.equal(one, other)


# --- the catalogue --------------------------------------------------------------------------------


def test_the_samplers_of_the_catalogue() -> None:
    assert set(samplers.names()) >= {
        *("euler", "heun", "rk2", "rk45", "exponential-euler", "ddim", "ancestral", "level-1", "euler-maruyama"),
        *("reverse-sde", "churn", "predictor-corrector", "dpmpp-2m", "dpmpp-2m-sde", "dpmpp-3m"),
        *("gradient-ascent", "langevin", "annealed-langevin", "mala"),
    }


@every_sampler
def test_a_sampler_says_what_it_is(sampler: Sampler) -> None:
    entry = next(entry for entry in samplers if entry.name == sampler.registered_name)
    assert entry.formula
    assert entry.source
    assert sampler.order is None or sampler.order >= 1
    assert type(sampler)(**sampler.parameters()) == sampler
    assert {type(getattr(sampler, name)) for name in ("stochastic", "between_levels", "adaptive")} == {bool}


@pytest.mark.parametrize("sampler", [one.cls() for one in samplers if one.has_defaults], ids=Sampler.label)
def test_a_sampler_with_a_start_or_a_target_of_its_own_has_it_as_the_protocols_say(sampler: Sampler) -> None:
    """Nothing is declared that could be forgotten: whoever has the method has it, and whoever needs
    one has the method.
    """
    levels = own_levels(VPLinear(), 3)
    starts, aims = isinstance(sampler, OwnStart), isinstance(sampler, OwnTarget)
    for has, name, parameters in ((starts, "start", ["start"]), (aims, "target", ["dataset", "last"])):
        assert not hasattr(Sampler, name)
        assert not has or list(inspect.signature(getattr(sampler, name)).parameters) == parameters
    assert aims or sampler.path(levels)[-1].clean  # else metrics would compare noisy samples
    assert starts or not (sampler.from_data or sampler.to_noise)
    assert not (starts and sampler.from_noise)


# --- evaluations ----------------------------------------------------------------------------------

NFE = {
    **dict.fromkeys(("euler", "ddim", "ancestral", "level-1", "exponential-euler"), lambda n: n),
    **dict.fromkeys(("euler-maruyama", "reverse-sde", "reverse-sde(scale=0.5)"), lambda n: n),
    **dict.fromkeys(("dpmpp-2m", "dpmpp-2m-sde", "dpmpp-3m"), lambda n: n),
    **dict.fromkeys(("heun", "rk2", "rk2(alpha=1.0)", "churn", "churn(s_churn=0.0)"), lambda n: 2 * n - 1),
    "predictor-corrector": lambda n: 2 * n - 1,
    "predictor-corrector(corrector_steps=3)": lambda n: 4 * n - 3,
}


@every_sampler
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_evaluations_are_as_many_as_promised(sampler: Sampler, steps: int) -> None:
    chosen = served(sampler)
    model, counter = counted(gaussian(0.5, 0.3))
    if sampler.adaptive:
        for schedule in chosen:
            counter.nfe = 0
            run(sampler, model, torch.ones(1, 4, 1, dtype=torch.float64), own_levels(schedule, steps))
            assert counter.nfe == 1 if steps == 1 else steps < counter.nfe < 5 * sampler.evaluations(steps)
        return
    shape = (len(chosen), 4, 1)
    run(sampler, model, torch.ones(shape, dtype=torch.float64), own_stack(chosen, steps), kit.Recorded(shape))
    assert counter.nfe == sampler.evaluations(steps)
    if sampler.label() in NFE:
        assert counter.nfe == NFE[sampler.label()](steps)


def test_the_adaptive_sampler_pays_for_accuracy_and_for_levels() -> None:
    def nfe(rtol: float, steps: int) -> int:
        model, counter = counted(uniform)
        x = 80 * standard((1, 50, 1), "rk45")
        run(DormandPrince(rtol=rtol, atol=rtol), model, x, own_levels(EDM(), steps))
        return counter.nfe

    costs = nfe(1e-3, 2), nfe(1e-6, 2)
    assert costs[0] < costs[1]
    # steps come in sixes, after two evaluations at the start; the last level's is known from the
    # step before
    assert all((cost - 2) % 6 == 0 for cost in (*costs, nfe(1e-3, 20)))
    # hardly more than one step between near levels: the pace is remembered
    assert nfe(1e-3, 200) <= 2 + 6 * (199 + 25)


@every_sampler
def test_a_trajectory_has_one_state_per_step_and_leaves_its_start_alone(sampler: Sampler) -> None:
    for schedule in served(sampler)[:3]:
        levels = own_levels(schedule, 5)
        x = torch.ones(1, 4, 1, dtype=torch.float64)
        path = kit.states(sampler, gaussian(0.5, 0.3), x, levels, drawn((1, 4, 1), "path"))
        assert len(path) == len(sampler.path(levels)) - 1 == 5
        assert all(state.shape == x.shape for state in path)
        assert torch.equal(x, torch.ones(1, 4, 1, dtype=torch.float64))
        assert torch.equal(path[-1], run(sampler, gaussian(0.5, 0.3), x, levels, drawn((1, 4, 1), "path")))


# --- noise ----------------------------------------------------------------------------------------


@every_sampler
def test_noise_is_drawn_if_and_only_if_the_sampler_calls_itself_stochastic(sampler: Sampler) -> None:
    for schedule in served(sampler)[:: 6 if sampler.adaptive else 1]:
        noise = kit.Recorded((1, 3, 1))
        run(sampler, uniform, torch.ones(1, 3, 1, dtype=torch.float64), own_levels(schedule, 12), noise)
        assert (len(noise.moves) + noise.fresh_draws > 0) is sampler.stochastic, schedule.label()


@every_driven
def test_the_noise_of_a_move_is_that_of_the_move_and_is_asked_for_once(sampler: Sampler) -> None:
    for schedule in served(sampler):
        levels, noise = own_levels(schedule, 12), kit.Recorded((1, 3, 1))
        run(sampler, uniform, torch.ones(1, 3, 1, dtype=torch.float64), levels, noise)
        moves = [(id(now), id(then)) for now, then in noise.moves]
        assert len(set(moves)) == len(moves)
        assert set(moves) <= {(id(now), id(then)) for now, then in itertools.pairwise(levels)}
        if not isinstance(sampler, Churn):  # which takes away what it adds
            assert (id(levels[-2]), id(levels[-1])) not in moves
        assert noise.fresh_draws == (11 * sampler.corrector_steps if isinstance(sampler, PredictorCorrector) else 0)


@every_driven
def test_no_noise_is_added_in_the_last_step(sampler: Sampler) -> None:
    for schedule in served(sampler):
        x = torch.ones(1, 3, 1, dtype=torch.float64)
        assert torch.isfinite(run(sampler, uniform, x, own_levels(schedule, 1), SILENCE)).all()


# --- numbers that are finite ----------------------------------------------------------------------


@functools.cache
def servable(chosen: tuple[Schedule, ...], steps: int) -> list[tuple[Schedule, Grid]]:
    """Every pair of a schedule and a grid that does not refuse it or so few steps."""
    every_grid = [entry.cls() for entry in grids]
    return [
        (schedule, grid)
        for schedule, grid in itertools.product(chosen, every_grid)
        if grid.refuses(schedule) is None and grid.refuses_steps(schedule, steps) is None
    ]


@every_sampler
@pytest.mark.parametrize("denoiser", [uniform, rough], ids=["exact", "rough"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_very_few_steps_give_finite_samples_on_every_schedule_and_grid(
    sampler: Sampler, denoiser: Denoiser, steps: int
) -> None:
    stacks = [tuple(servable(tuple(served(sampler)), steps))]
    if sampler.adaptive:
        stacks = [(pair,) for pair in stacks[0] if pair[1].registered_name == pair[0].own_grid]
    for stack in stacks:
        levels = kit.stack_of(stack, steps)
        shape = (len(stack), 50, 1)
        x = standard(shape, "few") * levels[0].sigma[:, None, None]
        path = kit.states(sampler, denoiser, x, levels, drawn(shape, "few, noise"))
        assert len(path) == steps
        for state in path:
            finite = torch.isfinite(state).all(dim=(1, 2))
            assert finite.all(), [pair for pair, good in zip(stack, finite.tolist(), strict=True) if not good]


def test_samples_that_run_away_from_the_adaptive_sampler_are_an_error() -> None:
    """No endless loop and no NaN: a denoiser that points away from everything, ever faster."""

    def away(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG001
        return x + x**3

    with pytest.raises(ArithmeticError, match=r"rk45 found no step between t = 80\.0 and 0\.002"):
        run(DormandPrince(), away, torch.full((1, 3, 1), -50.0, dtype=torch.float64), own_levels(EDM(), 2))


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS.values() if s.needs is Denoiser], ids=lambda s: s.label())
def test_nothing_is_clamped(sampler: Sampler) -> None:
    """With a linear denoiser every rule is linear: a million-fold start gives a million-fold end,
    to the last bit.

    An adaptive rule is as linear as its tolerance.
    """
    chosen = served(sampler)[:1] if sampler.adaptive else served(sampler)
    levels, big, shape = own_stack(chosen, 12), 2.0**20, (len(chosen), 20, 1)
    x = standard(shape, "linear") * levels[0].sigma[:, None, None]
    small, large = (
        run(
            sampler,
            gaussian(0, 0.5),
            factor * x,
            levels,
            kit.Drawn(factor * standard(shape, "linear", i) for i in itertools.count()),
        )
        for factor in (1.0, big)
    )
    if sampler.adaptive:
        torch.testing.assert_close(large, big * small, rtol=1e-3, atol=big * 1e-4)
    else:
        assert torch.equal(large, big * small)


# --- neighbours -----------------------------------------------------------------------------------


# also of those that ask for more than a denoiser
EVERY = {**SAMPLERS, **kit.OTHERS}
every_name = pytest.mark.parametrize("sampler", EVERY.values(), ids=EVERY.keys())


def members_of(sampler: Sampler) -> list[Schedule]:
    """The schedule of each member of a stack: those that the sampler serves, or its only one
    several times.
    """
    chosen = served(sampler)
    return chosen[:3] if sampler.adaptive else chosen * (3 if len(chosen) == 1 else 1)


def test_the_neighbours_of_every_registered_sampler_are_looked_at() -> None:
    peers = {entry.name for entry in samplers if issubclass(entry.cls, PeerSampler)}  # they have tests of their own
    assert {sampler.registered_name for sampler in EVERY.values()} | peers == set(samplers.names())
    assert {sampler.needs for sampler in kit.OTHERS.values()} >= {
        KnownDistribution,
        ActionModel,
        RestorationModel,
        Decoder,
    }


@every_name
def test_a_sample_does_not_change_when_the_batch_grows(sampler: Sampler) -> None:
    """But at the end of an unbalanced action, which draws samples again by their weights."""
    chosen = members_of(sampler)[: 1 if sampler.adaptive else None]
    levels = own_stack(chosen, 7)
    keys = [("grow", m) for m in range(len(chosen))]
    spread = levels[0].sigma[:, None, None]
    model = kit.Able(Checkerboard(), tuple(range(len(chosen))), 2, growth=False)

    def samples(n: int) -> Tensor:
        start = NoiseStreams([("start", *key) for key in keys], n, 2).fresh()
        return run(sampler, model, spread * start, levels, NoiseStreams(keys, n, 2))

    many = samples(37)
    for n in (1, 6):
        assert alike(sampler, samples(n), many[:, :n])


@every_name
def test_a_member_does_not_change_when_others_join_the_stack(sampler: Sampler) -> None:
    chosen = members_of(sampler)
    numbers = tuple(range(len(chosen)))
    keys = [("join", m) for m in numbers]
    x = standard((len(chosen), 11, 1), "join") * own_stack(chosen, 9)[0].sigma[:, None, None]

    def samples(which: slice) -> Tensor:
        model = kit.Able(Uniform(), numbers[which], 1, growth=True)
        return run(sampler, model, x[which], own_stack(chosen[which], 9), NoiseStreams(keys[which], 11, 1))

    together = samples(slice(None))
    assert torch.isfinite(together).all()
    for m in numbers:
        assert alike(sampler, samples(slice(m, m + 1))[0], together[m]), chosen[m].label()


# --- refusals -------------------------------------------------------------------------------------

REFUSED_FROM_PURE_NOISE = (
    EulerMaruyama(),
    ReverseSDE(),
    ReverseSDE(0.5),
    LevelOne(),
    ExponentialEuler(),
    AnnealedLangevin(),
)


@pytest.mark.parametrize("sampler", REFUSED_FROM_PURE_NOISE, ids=lambda s: s.label())
def test_a_rule_that_divides_by_alpha_refuses_schedules_without_any_at_the_start(sampler: Sampler) -> None:
    reason = sampler.refuses(Flow())
    assert reason is not None
    assert "'flow' starts at alpha = 0" in reason
    assert any(remedy in reason for remedy in ("use ancestral", "ancestral and ddim", "or ddim", "a smaller t_max"))
    assert sampler.refuses(Flow(t_max=0.999)) is None


def test_all_others_start_from_pure_noise() -> None:
    refusing = {type(sampler) for sampler in REFUSED_FROM_PURE_NOISE}
    accepting = {sampler.label() for sampler in SAMPLERS.values() if sampler.refuses(Flow()) is None}
    assert accepting >= {s.label() for s in SAMPLERS.values() if type(s) not in refusing} - {
        label for label in SAMPLERS if "transition" in label
    }
    assert accepting >= {"reverse-sde(scale=0.0)", "exponential-euler(held=noise)"}


@pytest.mark.parametrize("sampler", [Ancestral("transition"), LevelOne("transition")], ids=lambda s: s.label())
def test_the_transition_variance_is_refused_where_variance_is_not_preserved(sampler: Sampler) -> None:
    schedule: Schedule
    for schedule in (VELinear(), EDM(), IDDPM()):
        reason = sampler.refuses(schedule)
        assert reason is not None
        assert schedule.registered_name in reason
        assert "use variance: posterior" in reason
    for schedule in (VPLinear(), DDPMLinear()):
        assert sampler.refuses(schedule) is None


@every_schedule
def test_rules_that_look_between_the_levels_refuse_discrete_schedules_and_only_those(schedule: Schedule) -> None:
    for sampler in (RK2(), RK2(2 / 3), DormandPrince(), Churn()):
        reason = sampler.refuses(schedule)
        assert (reason is not None) is (schedule.max_steps is not None)
        if reason is not None:
            assert "known at its own discrete levels only" in reason
    for sampler in (RK2(1.0), Churn(s_churn=0.0)):
        assert sampler.refuses(schedule) is None


@every_sampler
def test_a_sampler_without_leave_to_look_between_levels_asks_at_the_grid_s_alone(sampler: Sampler) -> None:
    for schedule in served(sampler)[:: 5 if sampler.adaptive else 1]:
        levels = own_levels(schedule, 6)
        offered = [level for level in (*levels, *sampler.path(levels)) if not level.clean]
        known = {(float(level.alpha), float(level.sigma)) for level in offered}
        requested = set()

        class Listening(kit.Known):
            def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
                requested.add((float(alpha), float(sigma)))  # noqa: B023 - used within the loop
                return super().__call__(x, alpha, sigma)

        model = Listening(Uniform())
        run(sampler, model, torch.ones(1, 3, 1, dtype=torch.float64), levels, kit.Recorded((1, 3, 1)))
        assert (requested <= known) is not sampler.between_levels


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: DDIM(-0.1), "eta must lie between 0"),
        (lambda: DDIM(math.nan), "eta must lie between 0"),
        (lambda: RK2(0.0), r"alpha, the place of the second stage, must lie in \[0.001, 1\], found 0.0"),
        (lambda: RK2(1.01), r"alpha, the place of the second stage, must lie in \[0.001, 1\], found 1.01"),
        (lambda: DormandPrince(rtol=0.0), "rk45 needs .* found rtol = 0.0"),
        (lambda: DormandPrince(atol=-1.0), "rk45 needs .* atol = -1.0"),
        (lambda: ReverseSDE(-1.0), "scale must be finite and not negative, found -1.0"),
        (lambda: ReverseSDE(math.inf), "scale must be finite and not negative, found inf"),
        (lambda: Churn(s_churn=-1.0), "churn needs s_churn >= 0"),
        (lambda: Churn(s_min=2.0, s_max=1.0), "0 <= s_min <= s_max"),
        (lambda: Churn(s_noise=0.0), "s_noise > 0"),
        (lambda: PredictorCorrector(snr=1.0), "stable for 0 < snr < 1, found snr = 1.0"),
        (lambda: PredictorCorrector(corrector_steps=0), "corrector_steps from 1 to 100000, found 0"),
        (lambda: DPMSolver2MSDE(eta=-0.5), "eta must be finite and not negative, found -0.5"),
        (lambda: Ancestral("true"), "ancestral: variance = 'true'; accepted: posterior, transition"),  # type: ignore[arg-type]
        (lambda: LevelOne("true"), "level-1: variance = 'true'; accepted: posterior, transition"),  # type: ignore[arg-type]
        (lambda: ExponentialEuler("data"), "held = 'data'; accepted: score, noise"),  # type: ignore[arg-type]
    ],
)
def test_impossible_parameters_are_refused_in_words(make: Callable[[], Sampler], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make()


# --- levels ---------------------------------------------------------------------------------------


@every_schedule
def test_a_level_knows_its_schedule(schedule: Schedule) -> None:
    level = own_levels(schedule, 5)[2]
    assert torch.equal(level.drift, schedule.drift(level.time))
    torch.testing.assert_close(level.diffusion_squared, schedule.diffusion_squared(level.time), rtol=1e-12, atol=0)
    torch.testing.assert_close(level.nsr, schedule.nsr(level.time), rtol=1e-12, atol=0)
    torch.testing.assert_close(level.time_of(level.nsr), level.time, rtol=1e-9, atol=0)
    again = level.at(level.time)
    torch.testing.assert_close(again.alpha, level.alpha, rtol=1e-15, atol=0)
    assert not level.clean
    end = level.at(torch.zeros_like(level.time))
    assert end.clean
    assert torch.isnan(end.sigma_dot).all()


def test_levels_can_be_chosen_member_by_member() -> None:
    chosen = [EDM(), VPLinear()]
    one, other = (level_at(chosen, torch.tensor(times, dtype=torch.float64)) for times in ((2.0, 0.5), (1.0, 0.25)))
    mixed = one.where(torch.tensor([True, False]), other)
    assert mixed.time.tolist() == [2.0, 0.25]
    assert mixed.sigma.tolist() == [one.sigma[0].item(), other.sigma[1].item()]
    assert mixed.schedules == tuple(chosen)


# --- the field ------------------------------------------------------------------------------------


@every_schedule
def test_the_field_of_the_uniform_law_is_antisymmetric_and_its_denoiser_stays_inside(schedule: Schedule) -> None:
    """About the centre of the law of x_t, alpha / 2, the velocity is that of the centre plus an odd
    function.
    """
    for level in own_levels(schedule, 6)[:-1]:
        away = torch.linspace(0, 3, 31, dtype=torch.float64)[None, :, None] * (level.alpha + level.sigma)
        centre = 0.5 * level.alpha
        h = 1e-6 * level.time
        then = level.at(level.time - h)
        right, left, middle = (
            (SAMPLERS["euler"].step(uniform, x, level, then, SILENCE) - x) / -h
            for x in (centre + away, centre - away, torch.full_like(away, float(centre)))
        )
        scale = float((right - middle).abs().max())
        torch.testing.assert_close(right + left, 2 * middle.expand_as(right), rtol=0, atol=1e-8 * max(scale, 1.0))
        denoised = Uniform().denoise(centre + away, level.alpha[:, None], level.sigma[:, None])
        assert float(denoised.min()) > 0
        assert float(denoised.max()) < 1
