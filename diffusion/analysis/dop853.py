"""Many differential equations at once, each with steps of its own: Dormand and Prince's rule of
order 8.

The rule and the control of its steps are those of Hairer, Norsett & Wanner (Solving Ordinary
Differential Equations I, 1993, section II.10) as scipy's `DOP853` has them, which gives the
coefficients. What scipy does for one equation is done here for a stack: every member tries a step
of its own length, and one call of the right-hand side serves all of them. Small systems cost little
more together than one of them alone.

All arithmetic is elementwise and sums run along a member, so that a member's numbers do not depend,
not even in the last bit, on what else is in the stack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

Slope = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``dy/dt [members, size]`` at times ``[members]`` and states ``[members, size]``."""

_SAFETY, _LEAST, _MOST = 0.9, 0.2, 10.0  # of the length of the next step, in units of this one
_EXPONENT = -1 / 8


def followed(
    slope: Slope, first: np.ndarray, last: np.ndarray, y: np.ndarray, rtol: float, atol: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The states at `last`, and which of them were reached.

    Args:
        slope: the right-hand side; members that have arrived are asked along with the others.
        first: where each member begins, ``[members]``.
        last: where it ends, ``[members]``, on either side of `first`.
        y: states at `first`, ``[members, size]`` float64.
        rtol: relative tolerance.
        atol: absolute tolerances, ``[members]``; the root mean square over a member of
            ``error / (atol + rtol |y|)`` is held below 1 in each step.

    Returns:
        States ``[members, size]`` and a mask ``[members]``. A member is lost if its steps shrink
        below the spacing of numbers, which they also do where its slope is not finite; its state is
        the last one that it reached.
    """
    from scipy.integrate import DOP853

    stages = [(float(c), _kept(row[:s])) for s, (row, c) in enumerate(zip(DOP853.A, DOP853.C, strict=True))][1:]
    third, fifth, weights = (_kept(row) for row in (DOP853.E3, DOP853.E5, DOP853.B))
    t, atol = first.copy(), atol[:, None]
    way = np.where(last >= first, 1.0, -1.0)
    with np.errstate(all="ignore"):  # what is not finite is found out by the control of the steps
        k = [slope(t, y)]
        length = _first_length(slope, t, y, k[0], way, np.abs(last - first), rtol, atol)
        going, rejected = t != last, np.zeros(len(t), dtype=bool)
        while going.any():
            going &= length >= 10 * np.abs(np.nextafter(t, way * math.inf) - t)
            then = t + way * np.minimum(length, np.abs(last - t))
            then = np.where(going, np.where(way * (then - last) >= 0, last, then), t)
            h = (then - t)[:, None]
            del k[1:]
            for c, row in stages:
                k.append(slope(t + c * h[:, 0], y + h * _combined(row, k)))
            y_new = y + h * _combined(weights, k)
            k.append(slope(then, y_new))
            scale = atol + rtol * np.maximum(np.abs(y), np.abs(y_new))
            error = np.abs(h[:, 0]) * _norm(_combined(third, k) / scale, _combined(fifth, k) / scale)
            good = going & (error < 1)
            length = _next_length(np.abs(h[:, 0]), error, good, rejected)
            rejected = going & ~good
            t, y = np.where(good, then, t), np.where(good[:, None], y_new, y)
            k[0] = np.where(good[:, None], k[-1], k[0])
            going &= t != last
    return y, (t == last) & np.isfinite(y).all(1)


def _kept(row: Iterable[float]) -> list[tuple[int, float]]:
    return [(i, float(a)) for i, a in enumerate(row) if a]


def _combined(row: list[tuple[int, float]], k: list[np.ndarray]) -> np.ndarray:
    """The sum of the stages, weighted, one after another."""
    i, a = row[0]
    total = a * k[i]
    for i, a in row[1:]:
        total += a * k[i]
    return total


def _mean_square(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.ascontiguousarray(values * values).mean(1)
    return found


def _norm(third: np.ndarray, fifth: np.ndarray) -> np.ndarray:
    """Error per unit of length, of the estimates of orders 3 and 5 together."""
    low, high = _mean_square(third), _mean_square(fifth)
    both = high + 0.01 * low
    return np.where(both == 0, 0.0, high / np.sqrt(np.where(both == 0, 1.0, both)))


def _next_length(h: np.ndarray, error: np.ndarray, good: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """Longer after a good step, unless one was rejected just before; shorter after a bad one."""
    factors = []
    for e, accepted, again in zip(error.tolist(), good.tolist(), rejected.tolist(), strict=True):
        wanted = _MOST if e == 0 else _SAFETY * e**_EXPONENT
        if accepted:
            factors.append(min(wanted, 1.0 if again else _MOST))
        else:
            factors.append(max(_LEAST, wanted) if wanted < 1 else _LEAST)  # an error that is NaN: the shortest
    lengths: np.ndarray = h * np.array(factors)
    return lengths


def _first_length(
    slope: Slope,
    t: np.ndarray,
    y: np.ndarray,
    f: np.ndarray,
    way: np.ndarray,
    most: np.ndarray,
    rtol: float,
    atol: np.ndarray,
) -> np.ndarray:
    """The rule of Hairer, Norsett & Wanner, section II.4."""
    scale = atol + np.abs(y) * rtol
    size, speed = (np.sqrt(_mean_square(part / scale)) for part in (y, f))
    tiny = ~((size >= 1e-5) & (speed >= 1e-5))  # or not finite: a time has to be, whatever the state is
    trial = np.minimum(np.where(tiny, 1e-6, 0.01 * size / np.where(tiny, 1.0, speed)), most)
    ahead = slope(t + way * trial, y + (way * trial)[:, None] * f)
    bend = np.sqrt(_mean_square((ahead - f) / scale)) / trial
    largest = np.maximum(speed, bend)
    lengths = [
        max(1e-6, 1e-3 * h) if most <= 1e-15 else (0.01 / most) ** -_EXPONENT
        for h, most in zip(trial.tolist(), largest.tolist(), strict=True)
    ]
    shortest: np.ndarray = np.minimum(np.minimum(100 * trial, np.array(lengths)), most)
    return shortest
