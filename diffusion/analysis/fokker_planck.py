r"""The Fokker-Planck equation on the line: how the law of a forward process moves, without a single sample.

For ``dx = f(x, t) dt + g(t) dw`` the density q obeys

    dq/dt = -d/dx [f q - g^2/2 dq/dx]                                            (Fokker-Planck equation)
          = -d/dx [v q],   v = f - g^2/2 d log q/dx                              (continuity equation of the flow)

**Solving it.** `evolve` keeps the probability of each cell of an even grid. The current between two cells is that of a constant
drift between them (Scharfetter & Gummel, "Large-signal analysis of a silicon Read diode oscillator", IEEE Trans. Electron Devices
16, 1969; in this use Chang & Cooper, J. Comput. Phys. 6, 1970): with D = g^2/2, cell width h and ``B(z) = z / (e^z - 1)``

    J = D/h^2 [B(-f h/D) m_i - B(f h/D) m_(i+1)]

upwind where g = 0, and none through the ends. The masses m then obey ``dm/dt = A m`` with the generator A of a jump process
between neighbouring cells. Its exponential is a mixture of powers of a stochastic matrix with Poisson weights (uniformisation:
Jensen, Skand. Aktuarietidskr. 36, 1953), sums of positive terms only: no mass becomes negative, and none is lost, whatever the
step. For an A that changes in time a step is a product of two such exponentials (commutator-free Magnus: Blanes & Moan, Appl.
Numer. Math. 56, 2006), of fourth order, and steps are chosen to a tolerance. Second order in h.

**The processes of the atlas** are one process: ``y = (x - alpha m) / c`` with ``c^2 = alpha^2 s^2 + sigma^2``, for data of mean m and
standard deviation s, obeys on every schedule

    dy = -y/2 dtau + dw_tau,      tau = log(s^2 + (sigma/alpha)^2)

so that `time_marginals` needs one constant A, has no error of time steps, and reaches levels without any signal.

**Asking whether a field obeys it.** `fokker_planck_residual`, `continuity_residual` and `score_residual` give what is left of the
equations for any density, velocity or score, exact or learned, by differences of eighth order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.models import Denoiser
from diffusion.samplers.base import implied_noise, velocity
from diffusion.schedules import Schedule
from diffusion.schedules.levels import level_at

Field = Callable[[Tensor, float], Tensor]
"""A function of places ``[n]`` and a time, ``[n]``: a density, a velocity, a drift, a score."""

Amplitude = Callable[[float], float]
"""A function of time alone: g(t)."""

Rates = tuple[np.ndarray, np.ndarray]
"""Jumps per time up and down across each inner face."""

_JUMPS = 400.0  # of the uniformised process at once: the weight of none, e^-400, is still a number
_SETTLED = 60.0  # of tau: what is left of the start is e^-30 of it
_ONE_WAY = 500.0  # f h / D: of jumps against such a drift, e^-500 are left
_PARTS = 64  # into which a cell is divided where the law of the data is put on the grid


# --- solving it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Marginals:
    """Laws on the line at several times, as probabilities of cells."""

    times: Tensor  # [K]
    edges: Tensor  # [K, n + 1], even at each time
    masses: Tensor  # [K, n], not negative, each row of sum 1

    @property
    def centres(self) -> Tensor:
        """The middle of each cell, ``[K, n]``."""
        return 0.5 * (self.edges[:, 1:] + self.edges[:, :-1])

    @property
    def density(self) -> Tensor:
        """Mean density of each cell, ``[K, n]``."""
        return self.masses / self.edges.diff(dim=1)

    @property
    def cdf(self) -> Tensor:
        """The distribution function at every edge, ``[K, n + 1]``."""
        return torch.cat([torch.zeros(len(self.masses), 1, dtype=torch.float64), self.masses.cumsum(1)], 1)

    @property
    def mean(self) -> Tensor:
        """``[K]``."""
        return (self.masses * self.centres).sum(1)

    @property
    def variance(self) -> Tensor:
        """Of the cells' centres, ``[K]``."""
        return (self.masses * (self.centres - self.mean[:, None]) ** 2).sum(1)


def masses_of(dataset: Dataset, edges: Tensor) -> Tensor:
    """The law of a target on the line, put on even cells: ``[n]``, of sum 1.

    Each part of it is shared by the centres of the two nearest cells so that its mean stays where it is, atoms included; what
    lies beyond the outer centres goes to the outer cells. The variance grows by about h^2/6.

    Raises:
        WrongValue: the target has no distribution function, or the cells are not even.
    """
    if not dataset.has_cdf:
        raise WrongValue(
            f"dataset {dataset.registered_name!r} has no distribution function to start from; a noised target on the line has one "
            "where it is exact (dataset 'noised')"
        )
    h = _even(edges)
    fine = torch.linspace(float(edges[0]), float(edges[-1]), (len(edges) - 1) * _PARTS + 1, dtype=torch.float64)
    parts = dataset.cdf(fine).diff(prepend=torch.zeros(1, dtype=torch.float64)).numpy()
    places = np.concatenate([[float(edges[0])], 0.5 * (fine[1:] + fine[:-1]).numpy()])
    parts = np.append(parts, 1 - parts.sum())
    places = np.append(places, float(edges[-1]))
    n = len(edges) - 1
    at = np.clip((places - float(edges[0])) / h - 0.5, 0, n - 1)
    left = np.minimum(at.astype(int), n - 2)
    share = at - left
    masses = np.bincount(left, parts * (1 - share), n) + np.bincount(left + 1, parts * share, n)
    masses = np.clip(masses, 0, None)
    return torch.from_numpy(masses / masses.sum())


def evolve(
    masses: Tensor,
    edges: Tensor,
    drift: Field,
    diffusion: Amplitude,
    times: Sequence[float],
    *,
    tolerance: float = 1e-6,
) -> Tensor:
    """Masses ``[K, n]`` at increasing `times` of a process ``dx = f(x, t) dt + g(t) dw`` that has `masses` ``[n]`` at the first.

    `drift` is f, `diffusion` is g, `edges` ``[n + 1]`` are those of even cells; choose them so wide that nothing of note
    reaches the ends, which reflect. Steps in time are halved until their error, summed over the cells, stays below `tolerance`
    over the whole span; where f and g do not depend on time, one step does. Every row is nowhere negative and has the sum of
    the first. The cost grows as ``g^2 (t_K - t_1) n^3``.

    Raises:
        WrongValue: shapes that do not fit, cells that are not even, times that do not increase, negative masses, or a drift
            or diffusion that is not finite.
    """
    h = _even(edges)
    if masses.shape != (len(edges) - 1,) or not bool((masses >= 0).all()):
        raise WrongValue(f"masses of shape {list(masses.shape)}; needed: [{len(edges) - 1}], none negative")
    spans = np.diff(np.asarray(times, dtype=float))
    if len(times) == 0 or not (spans > 0).all():
        raise WrongValue(f"times = {list(times)}; needed: increasing numbers")
    faces = edges[1:-1].to(torch.float64)

    def rates(t: float) -> Rates:
        return _rates(faces, h, drift, diffusion, t)

    m = masses.numpy().astype(float)
    rows = [m]
    total = float(spans.sum())
    size = total
    for start, end in itertools.pairwise(times):
        now = float(start)
        while now < end:
            step = min(size, end - now)
            last = step == end - now
            once = _stepped(m, rates, now, step)
            half = None if once is None else _stepped(m, rates, now, step / 2)
            half = None if half is None else _stepped(half, rates, now + step / 2, step / 2)
            if once is None or half is None:
                size = step / 4
                continue
            error = float(np.abs(once - half).sum()) / 15
            allowed = tolerance * max(step / total, 1e-6) * float(m.sum())
            if error <= allowed or step <= 1e-12 * total:
                m, now = half, (float(end) if last else now + step)
            size = step * min(5.0, max(0.2, 0.9 * (allowed / max(error, 1e-300)) ** 0.2))
        rows.append(m)
    return torch.from_numpy(np.stack(rows))


def time_marginals(
    dataset: Dataset, schedule: Schedule, times: Sequence[float], *, cells: int = 480, reach: float = 8.0
) -> Marginals:
    """The laws of ``x_t = alpha x_0 + sigma eps`` at the schedule's `times`, by the Fokker-Planck equation.

    Cells are even in ``(x - alpha m) / c`` (see the module) between -reach and +reach, and follow the law as it moves and
    widens. They start from the law of the clean data, atoms included. Noise that is narrower than a cell, ``2 reach c / cells``,
    is not resolved; probabilities of cells are right even there, up to neighbours.

    Raises:
        WrongValue: the target has no distribution function, or a time lies outside ``[0, t_max]``.
    """
    if min(times) < 0 or max(times) > schedule.t_max * (1 + 1e-9):
        raise WrongValue(f"times = {list(times)}; needed: from 0 to t_max = {schedule.t_max}")
    (mean,), s = dataset.mean, dataset.std
    frame = torch.linspace(-reach, reach, cells + 1, dtype=torch.float64)
    t = torch.tensor(list(times), dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    taus = torch.log1p((sigma / (alpha * s)) ** 2).tolist()  # from that of the clean data on
    start = masses_of(dataset, mean + s * frame).numpy()
    rates = _rates(frame[1:-1], 2 * reach / cells, lambda y, _: -0.5 * y, lambda _: 1.0, 0.0)
    order = sorted(range(len(taus)), key=taus.__getitem__)
    rows = np.zeros((len(taus), cells))
    m, reached = start, 0.0
    for i in order:
        if taus[i] > _SETTLED:
            m = scipy.stats.norm.pdf(0.5 * (frame[1:] + frame[:-1]).numpy())
            rows[i] = m / m.sum()
            continue
        m, reached = _moved(m, rates, taus[i] - reached), taus[i]
        rows[i] = m
    spread = torch.sqrt((alpha * s) ** 2 + sigma**2)
    return Marginals(t, alpha[:, None] * mean + spread[:, None] * frame, torch.from_numpy(rows))


def _even(edges: Tensor) -> float:
    """The width of even cells."""
    widths = edges.diff()
    if edges.ndim != 1 or len(edges) < 3 or float(widths.min()) <= 0 or float(widths.max() / widths.min()) > 1 + 1e-6:
        raise WrongValue("the edges of at least two cells of one width are needed, in increasing order and in float64")
    return float(edges[-1] - edges[0]) / (len(edges) - 1)


def _rates(faces: Tensor, h: float, drift: Field, diffusion: Amplitude, t: float) -> Rates:
    """How often mass jumps up and down across each inner face, ``[n - 1]`` each."""
    f, g = np.asarray(drift(faces, t), dtype=float), float(diffusion(t))
    if not (np.isfinite(f).all() and math.isfinite(g)):
        raise WrongValue(f"drift or diffusion is not finite at t = {t}")
    f, D = np.broadcast_to(f, faces.shape), 0.5 * g * g
    z = f * h / D if D > 0 else np.copysign(np.inf, f)
    alone = np.abs(z) > _ONE_WAY
    z = np.where(alone, 1.0, z)
    up, down = (np.where(alone, np.maximum(sign * f, 0) / h, D / h**2 * _bernoulli(-sign * z)) for sign in (1, -1))
    return up, down


def _bernoulli(z: np.ndarray) -> np.ndarray:
    """``z / (e^z - 1)``, 1 at 0."""
    nonzero = np.where(z == 0, 1.0, z)
    return np.where(z == 0, 1.0, nonzero / np.expm1(nonzero))


def _stepped(m: np.ndarray, rates: Callable[[float], Rates], now: float, step: float) -> np.ndarray | None:
    """The masses after a step of fourth order; None if the rates change so much in it that one would be negative."""
    shift = math.sqrt(3) / 6
    early, late = rates(now + (0.5 - shift) * step), rates(now + (0.5 + shift) * step)
    near, far = 0.25 + shift, 0.25 - shift
    for first, second in ((early, late), (late, early)):
        up, down = (near * a + far * b for a, b in zip(first, second, strict=True))
        if min(up.min(), down.min()) < 0:
            return None
        m = _moved(m, (up, down), step)
    return m


def _moved(m: np.ndarray, rates: Rates, duration: float) -> np.ndarray:
    """``exp(duration A) m`` by uniformisation."""
    up, down = rates
    leaving = np.zeros_like(m)
    leaving[:-1] += up
    leaving[1:] += down
    fastest = float(leaving.max())
    if fastest * duration == 0:
        return m
    stay, up, down = 1 - leaving / fastest, up / fastest, down / fastest
    parts = max(1, math.ceil(fastest * duration / _JUMPS))
    jumps = fastest * duration / parts
    reach = 8.5 * math.sqrt(jumps) + 20  # beyond lie less than 1e-17 of the weights
    first, last = max(0, math.floor(jumps - reach)), math.ceil(jumps + reach)
    weights = scipy.stats.poisson.pmf(np.arange(first, last + 1), jumps)
    weights /= weights.sum()
    for _ in range(parts):
        total = np.zeros_like(m)
        for k in range(last + 1):
            if k:
                moved = stay * m
                moved[1:] += up * m[:-1]
                moved[:-1] += down * m[1:]
                m = moved
            if k >= first:
                total += weights[k - first] * m
        m = total
    return m


# --- what a schedule and a denoiser say -------------------------------------------------------------------------------


def density_of(dataset: Dataset, schedule: Schedule) -> Field:
    """The exact density of the noised target on the line."""

    def density(x: Tensor, t: float) -> Tensor:
        time = torch.tensor(t, dtype=torch.float64)
        return torch.exp(dataset.log_density(x[:, None], schedule.alpha(time), schedule.sigma(time)))

    return density


def drift_of(schedule: Schedule) -> Field:
    """f(t) x of the schedule's forward process."""
    return lambda x, t: schedule.drift(torch.tensor(t, dtype=torch.float64)) * x


def diffusion_of(schedule: Schedule) -> Amplitude:
    """g(t) of the schedule's forward process."""
    return lambda t: math.sqrt(max(float(schedule.diffusion_squared(torch.tensor(t, dtype=torch.float64))), 0.0))


def flow_of(denoiser: Denoiser, schedule: Schedule) -> Field:
    """The velocity of the probability flow that a denoiser of data on the line implies, ``alpha' D + sigma' eps``."""

    def field(x: Tensor, t: float) -> Tensor:
        level = level_at([schedule], torch.tensor([t], dtype=torch.float64))
        return velocity(denoiser, x[None, :, None], level)[0, :, 0]

    return field


def score_of(denoiser: Denoiser, schedule: Schedule) -> Field:
    """The score that a denoiser of data on the line implies, ``-eps / sigma``."""

    def field(x: Tensor, t: float) -> Tensor:
        level = level_at([schedule], torch.tensor([t], dtype=torch.float64))
        points = x[None, :, None]
        return -(implied_noise(points, denoiser(points, level.alpha, level.sigma), level) / level.sigma)[0, :, 0]

    return field


# --- asking -----------------------------------------------------------------------------------------------------------

_FIRST = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
_SECOND = (8 / 5, -1 / 5, 8 / 315, -1 / 560)
_MIDDLE = -205 / 72


def _slope(f: Callable[[float], Tensor], step: float) -> Tensor:
    """f'(0), of eighth order."""
    pairs = (c * (f(k * step) - f(-k * step)) for k, c in enumerate(_FIRST, 1))
    return sum(pairs, start=torch.zeros(())) / step


def _curvature(f: Callable[[float], Tensor], step: float) -> Tensor:
    """f''(0), of eighth order."""
    pairs = (c * (f(k * step) + f(-k * step)) for k, c in enumerate(_SECOND, 1))
    return sum(pairs, start=_MIDDLE * f(0.0)) / step**2


def continuity_residual(density: Field, flow: Field, x: Tensor, t: float, *, dx: float, dt: float) -> Tensor:
    """``dq/dt + d(q v)/dx`` at places ``[n]``: zero where the velocity `flow` carries the density along.

    Derivatives are differences over `dx` and `dt`, of eighth order: a few hundredths of the least width of q, and of the time
    in which it changes. With ``flow_of(denoiser, schedule)`` and the target's exact density this is what the error of a learned
    score does to the law; of float32 networks it is known to about 1e-7 / dx.
    """
    change = _slope(lambda e: density(x, t + e), dt)
    return change + _slope(lambda e: density(x + e, t) * flow(x + e, t), dx)


def fokker_planck_residual(
    density: Field, drift: Field, diffusion: Amplitude, x: Tensor, t: float, *, dx: float, dt: float
) -> Tensor:
    """``dq/dt + d(q f)/dx - g^2/2 d^2q/dx^2`` at places ``[n]``; differences as for `continuity_residual`."""
    change = _slope(lambda e: density(x, t + e), dt)
    carried = _slope(lambda e: density(x + e, t) * drift(x + e, t), dx)
    return change + carried - 0.5 * diffusion(t) ** 2 * _curvature(lambda e: density(x + e, t), dx)


def score_residual(
    score: Field, drift: Field, diffusion: Amplitude, x: Tensor, t: float, *, dx: float, dt: float
) -> Tensor:
    """``ds/dt - d/dx [g^2/2 (ds/dx + s^2) - f s - df/dx]`` at places ``[n]``: what a score must obey, with no density asked for.

    Source: Lai et al., FP-Diffusion: Improving Score-Based Diffusion Models by Enforcing the Underlying Score Fokker-Planck
    Equation, ICML 2023. Differences as for `continuity_residual`.
    """
    square = 0.5 * diffusion(t) ** 2
    change = _slope(lambda e: score(x, t + e), dt)
    bend = _curvature(lambda e: score(x + e, t), dx)
    drift_bend = _curvature(lambda e: drift(x + e, t), dx)
    carried = _slope(lambda e: square * score(x + e, t) ** 2 - drift(x + e, t) * score(x + e, t), dx)
    return change - square * bend - carried + drift_bend
