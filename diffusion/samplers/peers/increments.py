"""Increments of a library's own Brownian motion, made of ours.

A rule that draws for t -> s and again for t -> t_next asks for two increments that overlap. The
library looks both up on one Brownian motion whose time is nsr, so that for nsr_t > nsr_s > nsr_next

    dW(t, next) / sqrt(nsr_t - nsr_next) = sqrt(r) z(t, s) + sqrt(1 - r) z(s, next)
    r = (nsr_t - nsr_s) / (nsr_t - nsr_next)

with z the normalised increments, which are independent. The time of our paths is another function
of nsr: looked up on them, the two would be correlated otherwise, and the samples of another law. So
z(t, s) and z(s, next) are ours, and the sum is the library's.

The other order, a second move that ends before the first one did, is refused: z(t, next) given
z(t, s) needs a number that belongs to no move of ours, and the move after it would see a part of
z(t, s) again, which our path and the library's correlate differently. No rule that is wrapped asks
for it: the first of their two moves ends within the second, at 0 < r <= 1 of it in log sigma.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion.errors import WrongValue
from diffusion.samplers.peers.base import WayDown

_SAME = 1e-5  # relative


class OverlappingMoves:
    """A library's noise sampler, called with the ratios at which a move begins and ends; zeros where
    the rule does not draw.

    Overlap is known where a move begins at the ratio at which the last one began.

    Raises:
        WrongValue: a move begins there and ends before the last one did.
    """

    def __init__(self, walk: WayDown, like: Tensor, *, draws: bool) -> None:
        self._walk, self._like, self._draws = walk, like, draws
        self._last: tuple[float, float, Tensor] | None = None  # start, end, what was drawn

    def __call__(self, start: Tensor | float, end: Tensor | float) -> Tensor:
        if not self._draws:
            return torch.zeros_like(self._like)
        a, b = float(start), float(end)
        found = self._move(a, b)
        self._last = a, b, found
        return found

    def _move(self, a: float, b: float) -> Tensor:
        if self._last is None or self._last[0] != a:
            return self._walk.drawn(a, b)
        _, s, drawn = self._last
        if math.isclose(s, b, rel_tol=_SAME):  # both end at one level
            return drawn
        if s < b:
            raise WrongValue(
                f"noise was asked from ratio {a:g} to {b:g} after a move from there to {s:g}; a rule whose second move "
                "ends before its first cannot be given its library's noise"
            )
        share = (a - s) / (a - b)
        return math.sqrt(share) * drawn + math.sqrt(1 - share) * self._walk.drawn(s, b)
