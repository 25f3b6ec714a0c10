"""Several networks of one shape as one: the parameters of a member are theirs, end to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion.networks.base import Network, Parameters


@dataclass(frozen=True)
class SeparateNetworks(Network):
    """`count` networks of the shape `one`; a batch is their equal consecutive parts, each answered
    by its own network.

    To the products they are so many more members of the stack.
    """

    one: Network
    count: int

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return {f"{k}.{name}": shape for k in range(self.count) for name, shape in self.one.shapes.items()}

    @cached_property
    def size(self) -> int:
        """Length of one member's row of parameters, the padding of each network included."""
        return self.count * self.one.size

    def pack(self, parameters: Parameters) -> Tensor:
        rows = [self.one.pack({name: parameters[f"{k}.{name}"] for name in self.one.shapes}) for k in range(self.count)]
        return torch.cat(rows, 1)

    def unpack(self, rows: Tensor) -> Parameters:
        each = rows.unflatten(1, (self.count, self.one.size)).unbind(1)
        return {f"{k}.{name}": value for k, part in enumerate(each) for name, value in self.one.unpack(part).items()}

    def views(self, rows: Tensor) -> Parameters:
        each = rows.unflatten(1, (self.count, self.one.size)).unbind(1)
        return {f"{k}.{name}": value for k, part in enumerate(each) for name, value in self.one.views(part).items()}

    def initialise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Fresh parameters, ``[members, size]``: each member's generator draws its networks one
        after the other.
        """
        return torch.cat([self.one.initialise(generators) for _ in range(self.count)], 1)

    def of_level(self, rows: Tensor, which: Tensor) -> Tensor:
        """The parameters of one network of each member, ``[members, one.size]``, by number
        ``[members]``.
        """
        each: Tensor = rows.unflatten(1, (self.count, self.one.size))
        return each[torch.arange(len(rows), device=rows.device), which]

    def __call__(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        """Answers ``[members, batch, outputs]``; the batch must be a multiple of `count`,
        conditions one for each point.
        """
        return self._each(self.one, rows, z, c)

    def fit(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        return self._each(self.one.fit, rows, z, c)

    def _each(self, one: Callable[[Tensor, Tensor, Tensor], Tensor], rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        members, batch = z.shape[:2]
        if batch % self.count or c.shape[1] != batch:
            raise ValueError(f"a batch of {batch} with {c.shape[1]} conditions is not {self.count} equal parts")
        parts = (members * self.count, batch // self.count)
        answer = one(rows.reshape(members * self.count, self.one.size), z.reshape(*parts, -1), c.reshape(*parts, -1))
        return answer.reshape(members, batch, -1)

    def flops(self) -> int:
        """Of one evaluation at one point: one network answers it."""
        return self.one.flops()
