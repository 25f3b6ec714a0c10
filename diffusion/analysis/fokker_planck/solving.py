"""Masses of the cells of a grid, moved by the Fokker-Planck equation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion.analysis.fokker_planck.fields import Amplitude, Field
from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.schedules import Schedule

Rates = tuple[np.ndarray, np.ndarray]
"""Jumps per time up and down across each inner face."""

_JUMPS = 400.0  # of the uniformised process at once: the weight of none, e^-400, is still a number
_SETTLED = 60.0  # of tau: what is left of the start is e^-30 of it
_ONE_WAY = 500.0  # f h / D: of jumps against such a drift, e^-500 are left
_PARTS = 64  # into which a cell is divided where the law of the data is put on the grid


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

    Each part of it is shared by the centres of the two nearest cells so that its mean stays where
    it is, atoms included; what lies beyond the outer centres goes to the outer cells. The variance
    grows by about h^2/6.

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
    """Masses ``[K, n]`` at increasing `times` of a process ``dx = f(x, t) dt + g(t) dw`` that has
    `masses` ``[n]`` at the first.

    `drift` is f, `diffusion` is g, `edges` ``[n + 1]`` are those of even cells; choose them so wide
    that nothing of note reaches the ends, which reflect. Steps in time are halved until their
    error, summed over the cells, stays below `tolerance` over the whole span; where f and g do not
    depend on time, one step does. Every row is nowhere negative and has the sum of the first. The
    cost grows as ``g^2 (t_K - t_1) n^3``.

    Raises:
        WrongValue: shapes that do not fit, cells that are not even, times that do not increase,
            negative masses, or a drift or diffusion that is not finite.
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
    """The laws of ``x_t = alpha x_0 + sigma eps`` at the schedule's `times`, by the Fokker-Planck
    equation.

    Cells are even in ``(x - alpha m) / c`` (see the module) between -reach and +reach, and follow
    the law as it moves and widens. They start from the law of the clean data, atoms included. Noise
    that is narrower than a cell, ``2 reach c / cells``, is not resolved; probabilities of cells are
    right even there, up to neighbours.

    Raises:
        WrongValue: the target has no distribution function, or a time lies outside ``[0, t_max]``.
    """
    if min(times) < 0 or max(times) > schedule.t_max * (1 + 1e-9):
        raise WrongValue(f"times = {list(times)}; needed: from 0 to t_max = {schedule.t_max}")
    from scipy.stats import norm

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
            m = norm.pdf(0.5 * (frame[1:] + frame[:-1]).numpy())
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
    """The masses after a step of fourth order; None if the rates change so much in it that one
    would be negative.
    """
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
    from scipy.stats import poisson

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
    weights = poisson.pmf(np.arange(first, last + 1), jumps)
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
