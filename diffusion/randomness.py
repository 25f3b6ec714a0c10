r"""Where every random number comes from.

A draw belongs to a *stream*, named by what it is for and what it may depend on. The stream's name
is hashed to a seed, so that no draw depends on a neighbour, on packing, on workers or on the order
of work. The library never touches the global generators.

Samplers need more: a *sample* must not change when the batch grows, and the noise of a stochastic
sampler must describe one and the same path however finely the way down is divided. `SampleNoise`
gives each sample its own numbers (a counter-based generator, filled sample by sample), and
`BrownianPath` strings them into a Brownian motion W over a clock c that runs with the
noise-to-signal ratio,

    c(nsr) = nsr^p / (1 + nsr^p),   p = 0.2,   0 <= c <= 1,

found by bisection of intervals (Levy's construction), so that W at any c costs some twenty draws
and no memory of the past. The normal number of a move from c to c' < c is
``(W(c) - W(c')) / sqrt(c - c')``: independent for moves that do not overlap, and equal for two
grids that both make the move. In the limit of fine steps any SDE driven by it has one strong
solution.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_DEPTH = 18  # bisections: intervals of 4e-6, far below the steps of any grid, inside which the path is bridged once
_REMEMBERED = 64  # midpoints of a path: enough to walk down a grid without drawing one twice
_CLOCK_POWER = 0.2


def _digest(*name: object) -> bytes:
    return hashlib.sha256("\x1f".join(str(part) for part in name).encode()).digest()


def stream(*name: object) -> torch.Generator:
    """A generator for the stream called `name`, for example ``stream("sample", dataset_id, seed)``.

    The seed is the first 63 bits of SHA-256 of the parts' text; equal names give equal draws, on
    every machine.
    """
    return torch.Generator().manual_seed(int.from_bytes(_digest(*name)[:8], "big") >> 1)


class SampleNoise:
    """Standard normal numbers ``[samples, dim]`` of which row i depends on the stream's name, on i
    and on the draw's number.

    Philox (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), keyed by the
    name; the draw's number is its counter. More samples only append rows.
    """

    def __init__(self, name: tuple[object, ...], samples: int, dim: int) -> None:
        self._key = np.frombuffer(_digest(*name)[:16], dtype=np.uint64)
        self._shape = (samples, dim)

    def draw(self, number: int, purpose: int = 0) -> Tensor:
        """The draw of this number; draws of different number or purpose are independent."""
        counter = np.array([0, 0, number, purpose], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=self._key, counter=counter))
        return torch.from_numpy(generator.standard_normal(self._shape))


def clock(nsr: float) -> float:
    """c(nsr), increasing from 0 (data) to 1 (noise alone)."""
    if math.isinf(nsr):
        return 1.0
    power: float = nsr**_CLOCK_POWER
    return power / (1 + power)


class BrownianPath:
    """A Brownian motion on [0, 1] for every sample, ``W(0) = 0``, looked up at any time in any
    order.
    """

    def __init__(self, noise: SampleNoise, purpose: int = 1) -> None:
        self._noise, self._purpose = noise, purpose
        self._known: OrderedDict[int, Tensor] = OrderedDict()
        self._latest: tuple[float, Tensor] | None = None  # one move ends where the next begins

    def move(self, start: float, end: float) -> Tensor:
        """The normalised increment between two noise-to-signal ratios, ``[samples, dim]``.

        Two times closer than the path's resolution share one bridge and would not be independent of
        their neighbours, or have the same clock: such a move has a draw of its own, named by its
        ends. Finer grids than that no longer refine the path.
        """
        first, last = clock(start), clock(end)
        if abs(first - last) < 0.5**_DEPTH:
            name = hashlib.sha256(struct.pack("<dd", start, end)).digest()
            return self._noise.draw(int.from_bytes(name[:8], "little"), self._purpose + 1)
        return (self.at(first) - self.at(last)) / math.sqrt(abs(first - last))

    def at(self, c: float) -> Tensor:
        """W(c), ``[samples, dim]``."""
        if self._latest is None or self._latest[0] != c:
            self._latest = c, self._find(c)
        return self._latest[1]

    def _find(self, c: float) -> Tensor:
        low, high = 0.0, 1.0
        at_high = self._remember(0, lambda: self._noise.draw(0, self._purpose))
        at_low = torch.zeros_like(at_high)
        node = 1
        for _ in range(_DEPTH):
            middle = 0.5 * (low + high)
            at_middle = self._midpoint(node, at_low, at_high, high - low)
            if c < middle:
                high, at_high, node = middle, at_middle, 2 * node
            else:
                low, at_low, node = middle, at_middle, 2 * node + 1
        share = (c - low) / (high - low)
        spread = math.sqrt(max(share * (1 - share) * (high - low), 0.0))
        return at_low + share * (at_high - at_low) + spread * self._noise.draw(node, self._purpose)

    def _midpoint(self, node: int, at_low: Tensor, at_high: Tensor, length: float) -> Tensor:
        return self._remember(
            node,
            lambda: 0.5 * (at_low + at_high) + 0.5 * math.sqrt(length) * self._noise.draw(node, self._purpose),
        )

    def _remember(self, node: int, make: Callable[[], Tensor]) -> Tensor:
        if node in self._known:
            self._known.move_to_end(node)
            return self._known[node]
        value = self._known[node] = make()
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return value
