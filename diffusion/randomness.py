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

Training draws more than one processor makes for a GPU. There a stack draws for all its members at
once: `MemberStreams` has for each member a counter-based stream, the same whole numbers on every
device, in which a number's place is its step, its draw and its position. Whoever draws for training
asks `uniform`, `normal`, `integers` or `examples`, and is handed either kind of source.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from diffusion.devices import HOST, indices
from diffusion.philox import Words, normals, philox, uniforms

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


class MemberStreams:
    """The training streams of a stack over a block of steps, drawn on a device for all members.

    Philox 4x32-10, keyed by a member's name; the words of its counter are the position within the
    step, the step, and the draw's number. So a number depends on nothing else: not on the other
    members, on the device, or on the block in which its step is drawn.

    Args:
        keys: one row of two words for each member, `stream_keys`.
        first: the number of the first step.
        steps: how many steps are drawn.
    """

    def __init__(self, keys: Tensor, first: int, steps: int) -> None:
        self._keys, self._first, self._steps = keys, first, steps
        self._made: dict[tuple[int, int, Callable[[Words], Tensor]], Tensor] = {}

    def of(self, members: Sequence[int], sets: Sequence[int] | None = None, held: int | None = None) -> MemberDraws:
        """The numbers of some members in the order of the stack, from the first draw on.

        Training sets of one length lie one after the other, `held` of them; ``sets[i]`` is the
        number of that of the i-th of these members. None: each has its own, in their order.
        """
        chosen = range(len(members)) if sets is None else sets
        return MemberDraws(self, members, self._steps, chosen, held or len(chosen))

    @property
    def device(self) -> torch.device:
        """Where numbers are drawn."""
        return self._keys.device

    def pairs(self, number: int, count: int, make: Callable[[Words], Tensor]) -> Tensor:
        """``[members, steps, count]`` numbers of a draw; made once, whoever asks first."""
        key = number, count, make
        if key not in self._made:
            place = torch.arange(-(-count // 2), device=self.device)
            step = torch.arange(self._first, self._first + self._steps, device=self.device)[:, None]
            draw, rest = torch.full_like(place, number), torch.zeros_like(place)
            words = philox((place, step, draw, rest), (self._keys[:, 0, None, None], self._keys[:, 1, None, None]))
            self._made[key] = make(words).flatten(2)[..., :count]
        return self._made[key]


class MemberDraws:
    """What some members of a stack draw in a block of steps, one draw after the other.

    Shapes are ``[members * steps, ...]``, member by member: to whoever draws, the steps of several
    members are so many steps.
    """

    def __init__(
        self, streams: MemberStreams, members: Sequence[int], steps: int, sets: Sequence[int], held: int
    ) -> None:
        self._streams, self._members, self._steps = streams, members, steps
        self._sets, self._held = sets, held
        self._draws = 0

    @property
    def device(self) -> torch.device:
        """Where numbers are drawn."""
        return self._streams.device

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform in [0, 1), float64."""
        return self._drawn(shape, uniforms)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal, float64."""
        return self._drawn(shape, normals)

    def integers(self, high: int, shape: Sequence[int]) -> Tensor:
        """Whole numbers below `high`, which is small beside 2^53."""
        return (self.uniform(shape) * high).long()

    def examples(self, data: Tensor, shape: Sequence[int]) -> Tensor:
        """Rows of the members' training sets, which are of one length and lie in `data` one after
        the other, each once.
        """
        length = len(data) // self._held
        first = indices([place * length for place in self._sets], self.device).repeat_interleave(self._steps)
        return data[self.integers(length, shape) + first.view(-1, *[1] * (len(shape) - 1))]

    def _drawn(self, shape: Sequence[int], make: Callable[[Words], Tensor]) -> Tensor:
        rows = len(self._members) * self._steps
        if shape[0] != rows:
            raise ValueError(
                f"{len(self._members)} members draw {rows} rows for {self._steps} steps, asked for {shape[0]}"
            )
        found = self._streams.pairs(self._draws, math.prod(shape[1:]), make)
        self._draws += 1
        if len(found) != len(self._members):
            found = found[indices(self._members, self.device)]
        return found.reshape(tuple(shape))


Source = torch.Generator | MemberDraws
"""Where training draws: a generator of the host for one member, or streams of several members on a
device.
"""


def stream_keys(names: Sequence[tuple[object, ...]]) -> Tensor:
    """The keys of counter-based streams, ``[n, 2]`` words: the first 64 bits of SHA-256 of each
    name.
    """
    return torch.tensor([[int.from_bytes(_digest(*name)[i : i + 4], "big") for i in (0, 4)] for name in names])


def drawn_on(source: Source) -> torch.device:
    """Where a source's numbers are."""
    return HOST if isinstance(source, torch.Generator) else source.device


def uniform(shape: Sequence[int], source: Source, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform numbers in [0, 1)."""
    if isinstance(source, torch.Generator):
        return torch.rand(tuple(shape), generator=source, dtype=dtype)
    below_one = 1 - torch.finfo(dtype).eps / 2  # the last number, to which 1 - 2^-53 rounds up otherwise
    return source.uniform(shape).to(dtype).clamp(max=below_one)


def normal(shape: Sequence[int], source: Source, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers."""
    if isinstance(source, torch.Generator):
        return torch.randn(tuple(shape), generator=source, dtype=dtype)
    return source.normal(shape).to(dtype)


def integers(high: int, shape: Sequence[int], source: Source) -> Tensor:
    """Whole numbers below `high`, int64."""
    if isinstance(source, torch.Generator):
        return torch.randint(high, tuple(shape), generator=source)
    return source.integers(high, shape)


def examples(data: Tensor, shape: Sequence[int], source: Source) -> Tensor:
    """Rows of a training set, drawn with replacement: ``[*shape, dim]``."""
    if isinstance(source, torch.Generator):
        return data[integers(len(data), shape, source)]
    return source.examples(data, shape)
