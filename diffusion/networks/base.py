"""What a network owes the rest of the atlas: parameters of a whole stack as rows, and answers that
members do not share.

A *network* is a shape: a frozen value that says which arrays of parameters there are and how they
act. The parameters of a stack are held apart, as rows ``[members, size]`` of one flat, padded
array, so that one optimiser steps all of them, one norm per row clips them, and a member's row can
be taken out, stored and put into another stack.

**Members do not touch**, to the last bit: what one member gives does not depend on who is beside
it. Batched matrix products keep that promise but for what is padded away: where there is a single
member, a single row or column takes a path of its own; rows that start at odd addresses are
multiplied by other instructions (`blocked`); and elementwise functions treat the last few numbers
of an array otherwise than the rest, so that a value could depend on its position (`padded`).

An *architecture* is the name that a study gives to a family of networks; with a target's dimension
and the training settings it builds one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.registry import Component, Registry

architectures: Registry[Architecture] = Registry("architecture")

Parameters = dict[str, Tensor]
"""Named arrays ``[members, inputs, outputs]`` (weights) and ``[members, 1, outputs]`` (biases)."""

Image = tuple[int, int, int]
"""Channels, height and width; a point's coordinates are its pixels, row by row, channel by channel.
"""

_FREQUENCIES = 6
_BLOCK = 4  # coordinates
_VECTOR = 32  # numbers; no processor's vectors are longer
_CACHED, _SHARE = 2**22, 2**19  # bytes
WHOLE = 64
"""Points of a batch are evaluated in multiples of so many."""

_ON_DEVICE = 2**15  # points

FEATURES = 1 + 2 * _FREQUENCIES


def features(label: Tensor) -> Tensor:
    """Fourier features of noise labels in [-1, 1]: shape ``[..., FEATURES]``."""
    angles = label[..., None] * (0.5 * torch.pi * 2.0 ** torch.arange(_FREQUENCIES, device=label.device))
    return torch.cat([label[..., None], angles.sin(), angles.cos()], -1)


def padded(n: int) -> int:
    """The next whole number of vectors."""
    return -(-n // _VECTOR) * _VECTOR


def blocked(n: int) -> int:
    """Coordinates as they are multiplied: at least two, because products of a single one take a
    path of their own where there is one member only; beyond four in whole blocks of four, because
    other rows start unaligned.
    """
    return max(n, 2) if n <= _BLOCK else -(-n // _BLOCK) * _BLOCK


@dataclass(frozen=True)
class Network:
    """The shape of a network; its parameters are held apart, as rows ``[members, size]``."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Name and shape of each array of one member, without padding."""

    @property
    def padded_shapes(self) -> dict[str, tuple[int, int]]:
        """The same with padding: arrays that are never smaller, whose additional entries are zero
        and stay zero.
        """
        return self.shapes

    @abstractmethod
    def initialise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Fresh float32 parameters, ``[members, size]``; row m comes from ``generators[m]`` alone."""

    @abstractmethod
    def __call__(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        """Outputs ``[members, batch, outputs]`` for points z ``[members, batch, dim]`` and
        conditions c ``[members, groups, n]``.

        The batch is so many equal consecutive groups of points, each of which shares a condition:
        one group, as many as points, or between.
        """

    def fit(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        """The same, where first derivatives in the rows are all that is asked for: a network may
        have a shorter way to them.
        """
        return self(rows, z, c)

    @abstractmethod
    def flops(self) -> int:
        """Multiplications and additions of one evaluation at one point, when the noise label is
        shared by the batch.
        """

    @cached_property
    def size(self) -> int:
        """Length of one member's row of parameters, padding included."""
        return padded(sum(a * b for a, b in self.padded_shapes.values()))

    @cached_property
    def widest(self) -> int:
        """Columns of the widest array: about as many hidden units as a layer has for each point."""
        return max(columns for _, columns in self.padded_shapes.values())

    def points_at_once(self, members: int) -> int:
        """Of a batch without derivatives: as many as the hidden units of a layer find room in the
        cache, all members' together and one member's in its share.
        """
        bytes_of_one = 4 * self.widest
        fitting = min(_CACHED // (members * bytes_of_one), _SHARE // bytes_of_one)
        return max(fitting // WHOLE, 1) * WHOLE

    def points_on_device(self, members: int) -> int:  # noqa: ARG002
        """The same where few large products are quicker than many small ones, and there is memory
        for them.
        """
        return _ON_DEVICE

    def pack(self, parameters: Parameters) -> Tensor:
        """Rows ``[members, size]`` from named arrays without padding."""
        members = len(next(iter(parameters.values())))
        parts = []
        for name, (inputs, outputs) in self.padded_shapes.items():
            part = torch.zeros(members, inputs, outputs)
            value = parameters[name]
            part[:, : value.shape[1], : value.shape[2]] = value
            parts.append(part.flatten(1))
        rest = self.size - sum(part.shape[1] for part in parts)
        return torch.cat([*parts, torch.zeros(members, rest)], 1)

    def unpack(self, rows: Tensor) -> Parameters:
        """Named arrays without padding, the inverse of `pack`."""
        return {
            name: value[:, : self.shapes[name][0], : self.shapes[name][1]] for name, value in self.views(rows).items()
        }

    def views(self, rows: Tensor) -> Parameters:
        """Named arrays with their padding, sharing memory and gradients with the rows."""
        sizes = [a * b for a, b in self.padded_shapes.values()]
        parts = rows.split([*sizes, self.size - sum(sizes)], dim=1)
        return {
            name: part.unflatten(1, shape)
            for (name, shape), part in zip(self.padded_shapes.items(), parts, strict=False)
        }


@dataclass(frozen=True)
class Architecture(Component):
    """A family of networks with a name; its fields are what a study may choose besides width and
    depth.
    """

    of_images: ClassVar[bool] = False  # builds networks from images to images of the same shape, and no others

    def refuses(self, dataset: Dataset) -> str | None:  # noqa: ARG002
        """Why a network of this kind cannot serve the target, or None."""
        return None

    def version_for(self, dim: int) -> int:  # noqa: ARG002
        """The version of its numbers for points of `dim` coordinates."""
        return self.version

    @abstractmethod
    def build(
        self,
        dim: int,
        width: int,
        depth: int,
        conditions: int = FEATURES,
        outputs: int | None = None,
        image: Image | None = None,
    ) -> Network:
        """The network for points of `dim` coordinates; `outputs` is `dim` if None, `conditions` the
        length of its condition.

        `image` is the shape of a point where it is one: the target's `image_shape`.
        """
