"""What a sampler promises: its order, its cost, its noise, its independence of neighbours, and
numbers that are finite.

The order is measured where the answer is known: for one normal law, whose flow and whose reverse
SDE are linear, and for a mixture of two, whose flow keeps quantiles. All schedules that a sampler
serves are run as one stack, in float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffusion.checks.findings import ClaimFound, findings_of, none_of
from diffusion.checks.known import (
    BIMODAL,
    SCHEDULES,
    Able,
    Drawn,
    Recorded,
    Rough,
    affine,
    gaussian,
    marginal,
    own_stack,
    served,
    slope,
    smooth_levels,
    stack_of,
    standard,
    states,
)
from diffusion.datasets import EightGaussians, Uniform
from diffusion.models import Denoiser, DensityModel, counted
from diffusion.samplers import Noise, NoiseStreams, PeerSampler, Sampler
from diffusion.schedules import Schedule, VPLinear
from diffusion.schedules.grids import Grid, grids
from diffusion.schedules.levels import Level

STEPS = (64, 128, 256)
MEAN, STD = 0.7, 0.5

_FEW = (1, 2, 3)
_COUNTED = (1, 2, 3, 10)
_ADAPTIVE_STEPS, _ADAPTIVE_ERROR = 5, 1e-2


def check_sampler(sampler: Sampler) -> Iterator[ClaimFound]:
    """Each claim of a sampler, held against what it does."""
    if not served(sampler):
        yield ClaimFound("serves a registered schedule", False, "at least one", f"none: {_reasons(sampler)}")
        return
    yield from findings_of(
        sampler,
        (
            ("order", no_order),
            ("order on a normal law", order_on_a_normal_law),
            ("order on a mixture", order_on_a_mixture),
            ("finite in 1, 2 and 3 steps", finite_in_few_steps),
            ("evaluations", evaluations),
            ("noise", noise),
            ("states", one_state_a_step),
            ("levels", levels_asked),
            ("the batch may grow", batch_may_grow),
            ("members may join", members_may_join),
        ),
    )


# --- order ----------------------------------------------------------------------------------------


def measured_on_a_normal_law(sampler: Sampler, every: int = 1) -> dict[str, float]:
    """The order on each schedule that a sampler serves, or on every so many of them, for data
    N(0.7, 0.25).

    Of a deterministic sampler that of the largest error of nine trajectories; of a stochastic one
    the weak order, that of mean and standard deviation, which are exact numbers.
    """
    chosen = tuple(served(sampler)[::every])
    return _orders(chosen, [_error_on_a_normal_law(sampler, smooth_levels(chosen, steps)) for steps in STEPS])


def measured_on_a_mixture(sampler: Sampler, every: int = 1) -> dict[str, float]:
    """The order of a deterministic sampler on each schedule that it serves: how far the quantile of
    a trajectory moves.
    """
    chosen = tuple(served(sampler)[::every])
    return _orders(chosen, [_error_on_a_mixture(sampler, smooth_levels(chosen, steps)) for steps in STEPS])


def order_measured(sampler: Sampler, steps: Sequence[int], schedule: Schedule | None = None) -> dict[str, float]:
    """The order that a sampler shows from the first to the last of `steps`, by target: on a normal
    law, and of a deterministic one on a mixture of two; on `vp-linear` or the schedule given.
    """
    chosen = (schedule or VPLinear(),)
    levels = [smooth_levels(chosen, n) for n in steps]
    found = {"a normal law": [_error_on_a_normal_law(sampler, one) for one in levels]}
    if not sampler.stochastic:
        found["a mixture"] = [_error_on_a_mixture(sampler, one) for one in levels]
    return {target: slope(steps, [float(error[0]) for error in errors]) for target, errors in found.items()}


def no_order(sampler: Sampler) -> ClaimFound | None:
    """A row for a sampler that declares none, so that nobody takes it for one that was measured."""
    return None if sampler.order is not None else ClaimFound("order", True, "any", "claims no order")


def order_on_a_normal_law(sampler: Sampler) -> ClaimFound | None:
    """Whether the least order on any schedule is the declared one; symmetric cases may do better."""
    if not _of_the_flow(sampler):
        return None
    if sampler.adaptive:
        return _adaptive_error(sampler)
    tolerance = 0.1 if sampler.stochastic else _tolerance(sampler)
    return _order(
        "order on a normal law", sampler, measured_on_a_normal_law(sampler.showing_order(), _every(sampler)), tolerance
    )


def order_on_a_mixture(sampler: Sampler) -> ClaimFound | None:
    """The same on a mixture, where nothing is linear; of a deterministic sampler."""
    if not _of_the_flow(sampler) or sampler.adaptive or sampler.stochastic:
        return None
    return _order(
        "order on a mixture",
        sampler,
        measured_on_a_mixture(sampler.showing_order(), _every(sampler)),
        _tolerance(sampler),
    )


def _error_on_a_normal_law(sampler: Sampler, levels: list[Level]) -> Tensor:
    """The error at the last level, started from the exact law, ``[members]``."""
    model, true = gaussian(MEAN, STD), [marginal(level, MEAN, STD) for level in (levels[0], levels[-1])]
    if sampler.stochastic:
        mean, variance = affine(sampler, model, levels).of_normal(*true[0])
        return torch.maximum((mean - true[1][0]).abs(), (torch.sqrt(variance) - torch.sqrt(true[1][1])).abs())
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    start, end = (mean[:, None, None] + torch.sqrt(variance)[:, None, None] * z for mean, variance in true)
    return (_end(sampler, model, start, levels) - end).abs().amax((1, 2))


def _error_on_a_mixture(sampler: Sampler, levels: list[Level]) -> Tensor:
    """How far the quantile of a trajectory moves, ``[members]``."""
    z = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    start = z * torch.sqrt(levels[0].sigma ** 2 + levels[0].alpha ** 2)[:, None, None]
    end = _end(sampler, BIMODAL, start, levels)
    return (BIMODAL.cdf(end, levels[-1]) - BIMODAL.cdf(start, levels[0])).abs().amax((1, 2))


def _adaptive_error(sampler: Sampler) -> ClaimFound:
    """A sampler that chooses its own steps has an accuracy of its own: it must be near the flow."""
    errors = {}
    for schedule in served(sampler)[::5]:
        levels = own_stack([schedule], _ADAPTIVE_STEPS)[:-1]
        errors[schedule.label()] = float(_error_on_a_normal_law(sampler, levels).max())
    worst = max(errors, key=errors.__getitem__)
    holds = errors[worst] < _ADAPTIVE_ERROR
    return ClaimFound("follows the flow", holds, f"error < {_ADAPTIVE_ERROR:g}", f"{errors[worst]:.2g} on {worst}")


def _every(sampler: Sampler) -> int:
    """A quarter of the schedules will do where each step looks up levels of its own, slowly, and a
    few where each schedule is a run of another library's.
    """
    return 8 if isinstance(sampler, PeerSampler) else 4 if sampler.between_levels else 1


def _tolerance(sampler: Sampler) -> float:
    """How near the measured order of so many steps comes to the declared one."""
    return 0.16 if (sampler.order or 0) > 2 else 0.08


def _orders(chosen: Sequence[Schedule], errors: Sequence[Tensor]) -> dict[str, float]:
    table = torch.stack(list(errors), dim=1).tolist()
    return {schedule.label(): slope(STEPS, row) for schedule, row in zip(chosen, table, strict=True)}


def _order(claim: str, sampler: Sampler, measured: dict[str, float], tolerance: float) -> ClaimFound:
    declared = float(sampler.order or 0)
    least = min(measured, key=measured.__getitem__)
    holds = abs(measured[least] - declared) < tolerance  # false where it is NaN
    return ClaimFound(
        claim,
        holds,
        f"{declared:g}",
        f"{measured[least]:.2f} on {least}, the least of {len(measured)} schedules",
    )


def _of_the_flow(sampler: Sampler) -> bool:
    if isinstance(sampler, PeerSampler) and sampler.chooses_levels:
        return False  # it cannot be led over the levels that the order is measured on
    return sampler.order is not None and sampler.needs in (Denoiser, DensityModel) and not sampler.to_noise


# --- what else it promises ------------------------------------------------------------------------


def servable(sampler: Sampler, steps: int) -> tuple[tuple[Schedule, Grid], ...]:
    """Every pair of a schedule that a sampler serves and a grid that does not refuse it or so few
    steps.
    """
    every_grid = [entry.cls() for entry in grids if entry.has_defaults]
    pairs = itertools.product(served(sampler), every_grid)
    able = [
        (schedule, grid)
        for schedule, grid in pairs
        if grid.refuses(schedule) is None and grid.refuses_steps(schedule, steps) is None
    ]
    if not sampler.adaptive:
        return tuple(able)
    return tuple(pair for pair in able if pair[1].registered_name == pair[0].own_grid)[::8]


def finite_in_few_steps(sampler: Sampler) -> ClaimFound:
    """No infinity and no NaN, with an exact model and with a rough one."""
    bad = []
    models = (True, False) if sampler.needs in (Denoiser, DensityModel) else (True,)
    for steps, exact in itertools.product(_FEW, models):
        pairs = servable(sampler, steps)
        for stack in [(pair,) for pair in pairs] if sampler.adaptive else [pairs]:
            levels = stack_of(stack, steps)
            shape = (len(stack), 12, 1)
            x = standard(shape, "few") * levels[0].sigma[:, None, None]
            drawn = Drawn(standard(shape, "few, noise", i) for i in itertools.count())
            model = _able(len(stack)) if exact else Rough()
            path = states(sampler, model, x, levels, drawn)
            finite = torch.stack([torch.isfinite(state).all((1, 2)) for state in path]).all(0)
            bad += [
                f"{schedule.label()} on {grid.label()} in {steps}"
                for (schedule, grid), good in zip(stack, finite.tolist(), strict=True)
                if not good
            ]
    return none_of("finite in 1, 2 and 3 steps", "on every schedule and grid", bad)


def evaluations(sampler: Sampler) -> ClaimFound:
    """As many as declared; of a sampler that chooses its own steps, within a factor of five."""
    chosen = _stack(sampler)
    bad = []
    for steps in _COUNTED:
        model, counter = counted(_able(len(chosen)))
        shape = (len(chosen), 4, 1)
        states(sampler, model, torch.ones(shape, dtype=torch.float64), own_stack(chosen, steps), Recorded(shape))
        declared = sampler.evaluations(steps)
        if counter.nfe > 5 * declared if sampler.adaptive else counter.nfe != declared:
            bad.append(f"{counter.nfe} in {steps} steps, declared {declared}")
    return none_of("evaluations", "as declared", bad)


def noise(sampler: Sampler) -> ClaimFound:
    """Drawn if and only if the sampler calls itself stochastic, and from the streams that it is
    given.
    """
    bad = []
    chosen = _stack(sampler)
    x = torch.ones(len(chosen), 3, 1, dtype=torch.float64)
    levels = own_stack(chosen, _steps(chosen, 12))
    given = [Recorded(tuple(x.shape)) for _ in range(2)]
    once, again = (_end(sampler, _able(len(chosen)), x, levels, one).nan_to_num() for one in given)
    asked = len(given[0].moves) + given[0].fresh_draws
    if (asked > 0) is not sampler.stochastic:
        bad.append(f"{asked} draws in {len(levels) - 1} steps")
    if not torch.equal(once, again):
        bad.append("other numbers a second time: it draws from elsewhere")
    return none_of("noise", "drawn from its streams" if sampler.stochastic else "none is drawn", bad)


def one_state_a_step(sampler: Sampler) -> ClaimFound:
    """As many states as steps, each of the shape of the start, which is left as it was."""
    chosen = _stack(sampler)
    steps = _steps(chosen, 5)
    x = torch.ones(len(chosen), 4, 1, dtype=torch.float64)
    path = states(sampler, _able(len(chosen)), x, own_stack(chosen, steps), Recorded(tuple(x.shape)))
    bad = [f"{len(path)} states in {steps} steps"] if len(path) != steps else []
    bad += [f"a state of {str(s.dtype).removeprefix('torch.')} {list(s.shape)}" for s in path if not _alike(s, x)]
    if not bool((x == 1).all()):
        bad.append("the start was changed")
    return none_of("states", f"one a step, float64 {list(x.shape)}", bad)


def levels_asked(sampler: Sampler) -> ClaimFound | None:
    """Between the levels of a grid only a sampler that says so asks."""
    if sampler.between_levels:
        return None
    chosen = _stack(sampler)
    asked: list[tuple[Tensor, Tensor]] = []

    class Listening(Able):
        def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            asked.append((alpha.clone(), sigma.clone()))
            return super().__call__(x, alpha, sigma)

    levels = own_stack(chosen, _steps(chosen, 6))
    x = torch.ones(len(chosen), 3, 1, dtype=torch.float64)
    _end(sampler, Listening(Uniform(), tuple(range(len(chosen))), 1, growth=False), x, levels)
    offered = [(level.alpha, level.sigma) for level in (*levels, *sampler.path(levels))]
    bad = []
    for m, schedule in enumerate(chosen):
        known, found = ({(float(alpha[m]), float(sigma[m])) for alpha, sigma in pairs} for pairs in (offered, asked))
        bad += [] if found <= known else [schedule.label()]
    return none_of("levels", "the grid's alone (or between_levels = True)", [f"others on {name}" for name in bad])


def batch_may_grow(sampler: Sampler) -> ClaimFound:
    """A sample is the same to the last bit whatever samples are beside it."""
    chosen = _stack(sampler)[: 1 if sampler.adaptive else None]
    levels = own_stack(chosen, _steps(chosen, 4))
    keys = [("checks", "grow", m) for m in range(len(chosen))]
    model = Able(EightGaussians(), tuple(range(len(chosen))), 2, growth=False)

    def samples(n: int) -> Tensor:
        start = NoiseStreams([("start", *key) for key in keys], n, 2).fresh()
        return _end(sampler, model, levels[0].sigma[:, None, None] * start, levels, NoiseStreams(keys, n, 2))

    many = samples(37)
    bad = []
    for n in (1, 6):
        few = samples(n)
        bad += [
            f"{n} samples are others among 37 on {schedule.label()}"
            for m, schedule in enumerate(chosen)
            if not _same(sampler, few[m], many[m, :n])
        ]
    return none_of("the batch may grow", "the same numbers", bad)


def members_may_join(sampler: Sampler) -> ClaimFound:
    """A member of a stack is the same to the last bit whatever members are beside it: one alone,
    and every second one of the stack.
    """
    chosen = served(sampler)[: 3 if sampler.adaptive else None]
    chosen = chosen * (3 if len(chosen) == 1 else 1)
    numbers = tuple(range(len(chosen)))
    keys = [("checks", "join", m) for m in numbers]
    steps = _steps(chosen, 4)
    x = standard((len(chosen), 11, 1), "join") * own_stack(chosen, steps)[0].sigma[:, None, None]

    def samples(which: slice) -> Tensor:
        model = Able(Uniform(), numbers[which], 1, growth=True)
        return _end(sampler, model, x[which], own_stack(chosen[which], steps), NoiseStreams(keys[which], 11, 1))

    together = samples(slice(None))
    bad = []
    for which in (slice(0, 1), slice(0, None, 2), slice(1, None, 2)):
        pairs = zip(chosen[which], samples(which), together[which], strict=True)
        bad += [schedule.label() for schedule, one, other in pairs if not _same(sampler, one, other)]
    return none_of("members may join", "the same numbers", [f"others on {name}" for name in dict.fromkeys(bad)])


def _able(members: int) -> Able:
    """None of them of number 0, which perturbs nothing."""
    return Able(Uniform(), tuple(range(1, members + 1)), 1, growth=False)


def _stack(sampler: Sampler) -> list[Schedule]:
    """The schedules that are run side by side: all that it serves, of an adaptive one a single one."""
    return served(sampler)[: 1 if sampler.adaptive else None]


def _steps(chosen: Sequence[Schedule], wanted: int) -> int:
    """So many steps, or as many as every schedule has levels for."""
    return min(wanted, *(schedule.max_steps or wanted for schedule in chosen))


def _end(sampler: Sampler, model: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise | None = None) -> Tensor:
    return states(sampler, model, x.clone(), levels, noise or Recorded(tuple(x.shape)))[-1]


def _alike(state: object, x: Tensor) -> bool:
    return isinstance(state, Tensor) and state.shape == x.shape and state.dtype == x.dtype


def _same(sampler: Sampler, one: Tensor, other: Tensor) -> bool:
    """To the last bit; a sampler that chooses its steps by looking at the batch: to its tolerance,
    accumulated.
    """
    if sampler.adaptive:
        return torch.allclose(one, other, rtol=1e-3, atol=1e-3)
    return torch.equal(one, other)


def _reasons(sampler: Sampler) -> str:
    return str(sampler.refuses(SCHEDULES[0]))
