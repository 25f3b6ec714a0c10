r"""Deterministic rules for the probability-flow ODE, one step at a time, in the schedule's own time.

    dx/dt = v(x, t) = alpha'(t) D + sigma'(t) eps,      eps = (x - alpha D) / sigma

sigma' may be infinite where the noise is gone, so that no rule looks there: Runge-Kutta rules take
their last step, from the last noisy level to sigma = 0, as Euler's. Nothing divides by alpha, and a
schedule may start at alpha = 0, with the exception of `exponential-euler`, which separates the
drift f = alpha' / alpha from the score.

`exponential-euler` is exact in the linear part f x of the flow's first form, dx/dt = f x - g^2/2
score. Held over a step from t to s < t, the score gives

    x_s = alpha_s/alpha_t x_t + 1/2 alpha_s score_t  integral over u from s to t of alpha_u d(nsr_u^2)

(variation of constants; ``g^2 du = alpha^2 d(nsr^2)``). With alpha^2 + sigma^2 = 1 the integral is
``2 (1/alpha_t - 1/alpha_s)``, with alpha = 1 it is ``sigma_t^2 - sigma_s^2``; of other schedules it
is taken by quadrature. The last step therefore leaves some of the noise of the last level, with
alpha = 1 half of it. Holding eps instead of the score, or D, gives `ddim` for every schedule.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from diffusion.devices import to_device
from diffusion.errors import WrongValue
from diffusion.models import Denoiser
from diffusion.samplers.base import (
    PathSampler,
    Sampler,
    implied_noise,
    per_member,
    samplers,
    velocity,
    without_data_at_the_start,
)
from diffusion.samplers.noise import Noise
from diffusion.schedules import Schedule
from diffusion.schedules.levels import Level

Held = Literal["score", "noise"]

_SMALLEST_RTOL = 1e-13  # SciPy's own limit is a little lower

_NODES, _WEIGHTS = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(32))


def euler_step(denoiser: Denoiser, x: Tensor, now: Level, then: Level) -> Tensor:
    """One step of Euler's rule along the flow."""
    return x + per_member(then.time - now.time) * velocity(denoiser, x, now)


def heun_step(denoiser: Denoiser, x: Tensor, now: Level, then: Level) -> Tensor:
    """One step of Heun's rule along the flow; Euler's where the noise ends."""
    h = per_member(then.time - now.time)
    first = velocity(denoiser, x, now)
    if then.clean:
        return x + h * first
    return x + h * 0.5 * (first + velocity(denoiser, x + h * first, then))


_EARLIEST_STAGE = 1e-3


@samplers.register(
    "euler",
    formula="x_s = x_t + (s - t) dx/dt",
    source="Karras et al. 2022, eq. 4 (any schedule); first order in the schedule's own time",
    document="S0 level 4",
)
@dataclass(frozen=True)
class Euler(Sampler):
    """Euler's rule on the probability-flow ODE in the schedule's own time: N evaluations in N
    steps.
    """

    order: ClassVar[int] = 1

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:  # noqa: ARG002
        return euler_step(denoiser, x, now, then)


@samplers.register(
    "heun",
    formula="x' = x_t + (s - t) d_t; x_s = x_t + (s - t) (d_t + d_s(x')) / 2; Euler where sigma_s = 0",
    source="Karras et al. 2022, Algorithm 1",
    document="S0 level 4",
)
@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's second-order rule; the last step is Euler's, so that N steps cost 2N - 1 evaluations."""

    order: ClassVar[int] = 2

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:  # noqa: ARG002
        return heun_step(denoiser, x, now, then)


@samplers.register(
    "rk2",
    formula="h = s - t; x' = x_t + a h v_t; x_s = x_t + h ((1 - 1/(2a)) v_t + 1/(2a) v_{t+ah}(x')); Euler where sigma_s = 0",
    source="Karras et al. 2022, Algorithm 3 and appendix D.2; a = 1/2 midpoint, 2/3 Ralston (1962), 1 Heun",
    document="S0 level 4 (Heun)",
)
@dataclass(frozen=True)
class RK2(Sampler):
    """Every second-order rule of two stages, the second at ``t + alpha h``,
    ``0.001 <= alpha <= 1``.

    ``alpha = 1`` is `heun`. Other values evaluate the denoiser between the levels of the grid,
    which a discrete schedule does not offer. N steps cost 2N - 1 evaluations.
    """

    alpha: float = 0.5
    order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not _EARLIEST_STAGE <= self.alpha <= 1:  # a slope over almost nothing is lost in rounding
            raise WrongValue(
                f"rk2: alpha, the place of the second stage, must lie in [{_EARLIEST_STAGE}, 1], found {self.alpha}"
            )

    @property
    def between_levels(self) -> bool:  # type: ignore[override]  # depends on a parameter
        """True unless the second stage lies on the next level."""
        return self.alpha != 1

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:  # noqa: ARG002
        h = then.time - now.time
        first = velocity(denoiser, x, now)
        if then.clean:
            return x + per_member(h) * first
        stage = now.at(now.time + self.alpha * h) if self.between_levels else then
        second = velocity(denoiser, x + per_member(self.alpha * h) * first, stage)
        share = 0.5 / self.alpha
        return x + per_member(h) * ((1 - share) * first + share * second)


@samplers.register(
    "rk45",
    formula="Dormand-Prince 5(4) from level to level; steps such that the root mean square of error/(atol + rtol |x|) < 1",
    source="Dormand & Prince 1980, as scipy.integrate.RK45; Song et al., SDE, ICLR 2021, section 4.3 (black-box solvers)",
)
@dataclass(frozen=True)
class DormandPrince(PathSampler):
    """The adaptive rule of orders 5 and 4: it stops at every level of the grid, and takes the steps
    between that it needs.

    The last step, to sigma = 0, is Euler's, which is all that N = 1 leaves to do. Evaluations
    depend on data and tolerances: two at the start and six for each step tried. The step control
    looks at the *whole batch* (and stack: ask it one member at a time), so that a sample depends on
    its neighbours, within the tolerance. The control runs on the host: every evaluation goes there
    and back.

    Raises:
        ArithmeticError: steps shrink below the spacing of floating-point numbers: the samples
            diverge, or the tolerances ask for more digits than there are.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    order: ClassVar[int] = 5
    between_levels: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (_SMALLEST_RTOL <= self.rtol < 1 and 0 <= self.atol < 1):
            raise WrongValue(
                f"rk45 needs {_SMALLEST_RTOL:.0e} <= rtol < 1 and 0 <= atol < 1, found rtol = {self.rtol} "
                f"and atol = {self.atol}"
            )

    def evaluations(self, steps: int) -> int:
        return 150 + 6 * steps

    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:  # noqa: ARG002
        slope: Tensor | None = None  # dx/dt at the level reached, which the last step tried has evaluated
        pace: float | None = None  # length of the next step, in time of the first member
        for now, then in itertools.pairwise(levels):
            if then.clean:
                slope = velocity(denoiser, x, now) if slope is None else slope
                x = x + per_member(then.time - now.time) * slope
            else:
                x, slope, pace = self._integrate(denoiser, x, now, then, slope, pace)
            yield x

    def _integrate(
        self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, known: Tensor | None, pace: float | None
    ) -> tuple[Tensor, Tensor, float]:
        """The state at `then`, dx/dt there and the length of the next step; `known` is dx/dt at
        `now`.
        """
        from scipy.integrate import RK45

        start, end = now.host, then.host
        h = end.time - start.time
        pace_of_time = to_device(per_member(h), x.device)
        slope = known

        def field(u: float, flat: np.ndarray) -> np.ndarray:
            """dx/du, ``t = now + (u - 1) h`` for every member: away from u = 0, where steps could
            shrink for ever.
            """
            nonlocal slope
            if u != 1 or slope is None:
                level = then if u == 2 else now.at(start.time + (u - 1) * h)
                slope = velocity(denoiser, torch.from_numpy(flat).to(x.device).reshape(x.shape), level)
            return np.asarray((pace_of_time * slope).reshape(-1).cpu())

        length = float(h[0].abs())
        with np.errstate(over="ignore", invalid="ignore"):  # diverging samples are reported below
            solver = RK45(
                field,
                1.0,
                x.reshape(-1).cpu().numpy(),
                2.0,
                rtol=self.rtol,
                atol=self.atol,
                first_step=None if pace is None else min(1.0, pace / length),
            )
            while solver.status == "running":
                solver.step()
        if solver.status == "failed" or slope is None:
            raise ArithmeticError(
                f"rk45 found no step between t = {float(start.time[0])} and {float(end.time[0])} whose error is within "
                f"rtol = {self.rtol} and atol = {self.atol}"
            )
        return torch.from_numpy(solver.y).to(x.device).reshape(x.shape), slope, float(solver.h_abs) * length


@samplers.register(
    "exponential-euler",
    formula="x_s = alpha_s/alpha_t x_t + alpha_s/2 score_t * integral of alpha d(nsr^2) from s to t (held: score); ddim (noise)",
    source="Zhang & Chen, Fast Sampling of Diffusion Models with Exponential Integrator (DEIS), ICLR 2023, section 3, ingredient 1",
)
@dataclass(frozen=True)
class ExponentialEuler(Sampler):
    """The exponential integrator of order one: exact in the linear part of the flow, the rest held
    over the step.

    What is `held` decides: the ``score``, a rule of its own (DEIS's first ingredient, which its
    authors found worse than Euler's rule in few steps), or the ``noise`` (their second), which is
    `ddim`. N evaluations in N steps.
    """

    held: Held = "score"
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.held not in get_args(Held):
            raise WrongValue(f"exponential-euler: held = {self.held!r}; accepted: {', '.join(get_args(Held))}")

    def refuses(self, schedule: Schedule) -> str | None:
        if self.held == "score" and without_data_at_the_start(schedule):
            return (
                f"schedule {schedule.registered_name!r} starts at alpha = 0, where the linear part alpha'/alpha of the flow "
                "is infinite and cannot be taken apart from the score (use held: noise, or ddim)"
            )
        return super().refuses(schedule)

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:  # noqa: ARG002
        denoised = denoiser(x, now.alpha, now.sigma)
        implied = implied_noise(x, denoised, now)
        if self.held == "noise":
            return per_member(then.alpha) * denoised + per_member(then.sigma) * implied
        times = zip(now.schedules, now.host.time.tolist(), then.host.time.tolist(), strict=True)
        gathered = to_device(torch.stack([_gathered(schedule, t, s) for schedule, t, s in times]), x.device)
        pull = 0.5 * then.alpha * gathered / now.sigma  # of score = -eps / sigma
        return per_member(then.alpha / now.alpha) * x - per_member(pull) * implied


def _gathered(schedule: Schedule, t: float, s: float) -> Tensor:
    """Integral of ``alpha d(nsr^2)`` over the times from s to t, a scalar."""
    if schedule.variance_preserving:
        alpha = schedule.alpha(torch.tensor([s, t], dtype=torch.float64))
        return 2 * (1 / alpha[1] - 1 / alpha[0])
    times = 0.5 * (s + t) + 0.5 * (t - s) * _NODES
    return 0.5 * (t - s) * (_WEIGHTS * schedule.diffusion_squared(times) / schedule.alpha(times)).sum()
