r"""Networks, stacked: one array with a leading member axis holds a whole shard of models.

`StackedMLP` maps noisy points z ``[members, batch, dim]`` and Fourier features c of the noise label to outputs
``[members, batch, dim]``. With e = silu(W_e c + b_e):

    h_1     = silu((W_1 z + V e + b_1) * (1 + G_1 e))
    h_{l+1} = silu((W_l h_l + b_l)     * (1 + G_l e))
    F       = W_o h_depth + b_o,   W_o = 0 at the start

The gains G make products of input and noise level easy to learn; without them a network that sees unscaled inputs (`ve`)
hardly learns to divide by sigma. (Perez et al., "FiLM", AAAI 2018.)

**Members do not touch**, to the last bit. Batched matrix products do not depend on the number of members, but for what is
padded away here: a single member with a single output column takes a matrix-vector path of its own; rows that start at odd
addresses are multiplied by other instructions; and elementwise functions treat the last few numbers of an array otherwise
than the rest, so that a value could depend on its position. Therefore outputs have at least two columns, points of more than
four coordinates come in blocks of four, hidden widths are padded to whole vectors with units that are zero and stay zero,
noise labels are expanded to features member by member, and a member's parameters are one row of a flat, padded array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad, silu

Parameters = dict[str, Tensor]
"""Named arrays ``[members, inputs, outputs]`` (weights) and ``[members, 1, outputs]`` (biases)."""

_FREQUENCIES = 6
_EMBEDDING = 32
_BLOCK = 4  # coordinates
_VECTOR = 32  # numbers; no processor's vectors are longer

FEATURES = 1 + 2 * _FREQUENCIES


def features(label: Tensor) -> Tensor:
    """Fourier features of noise labels in [-1, 1]: shape ``[..., FEATURES]``."""
    angles = label[..., None] * (0.5 * torch.pi * 2.0 ** torch.arange(_FREQUENCIES))
    return torch.cat([label[..., None], angles.sin(), angles.cos()], -1)


def _padded(n: int) -> int:
    return -(-n // _VECTOR) * _VECTOR


@dataclass(frozen=True)
class StackedMLP:
    """The shape of a multilayer perceptron; its parameters are held apart, as rows ``[members, size]``."""

    dim: int
    width: int
    depth: int

    @cached_property
    def _maps(self) -> dict[str, tuple[int, int, float]]:
        """Each affine map's inputs, outputs and gain: its weights start with variance gain / inputs."""
        maps = {
            "embed": (FEATURES, _EMBEDDING, 1.0),
            "input": (self.dim, self.width, 1.0),
            "shift": (_EMBEDDING, self.width, 1.0),
            "output": (self.width, self.dim, 0.0),
        }
        for layer in range(self.depth):
            maps[f"gain{layer}"] = (_EMBEDDING, self.width, 0.1)
            if layer:
                maps[f"hidden{layer}"] = (self.width, self.width, 2.0)
        return maps

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Name and shape of each array of one member, without padding."""
        shapes = {}
        for name, (inputs, outputs, _) in self._maps.items():
            shapes[f"{name}.weight"] = (inputs, outputs)
            if name != "shift":  # added to `input`, which has a bias
                shapes[f"{name}.bias"] = (1, outputs)
        return shapes

    @cached_property
    def _padded_shapes(self) -> dict[str, tuple[int, int]]:
        padded = {}
        for name, (inputs, outputs) in self.shapes.items():
            if name.startswith(("hidden", "output")) and name.endswith("weight"):
                inputs = _padded(inputs)  # noqa: PLW2901 - from a padded layer
            if name == "input.weight":
                inputs = self._columns  # noqa: PLW2901 - of a padded point
            padded[name] = (inputs, max(self._columns, 2) if name.startswith("output") else _padded(outputs))
        return padded

    @property
    def _columns(self) -> int:
        """Coordinates of a point, in whole blocks of four beyond four: matrices with other rows start unaligned."""
        return self.dim if self.dim <= _BLOCK else -(-self.dim // _BLOCK) * _BLOCK

    @property
    def size(self) -> int:
        """Length of one member's row of parameters, padding included."""
        return _padded(sum(a * b for a, b in self._padded_shapes.values()))

    def pack(self, parameters: Parameters) -> Tensor:
        """Rows ``[members, size]`` from named arrays without padding."""
        members = len(next(iter(parameters.values())))
        parts = []
        for name, (inputs, outputs) in self._padded_shapes.items():
            part = torch.zeros(members, inputs, outputs)
            value = parameters[name]
            part[:, : value.shape[1], : value.shape[2]] = value
            parts.append(part.flatten(1))
        rest = self.size - sum(part.shape[1] for part in parts)
        return torch.cat([*parts, torch.zeros(members, rest)], 1)

    def unpack(self, rows: Tensor) -> Parameters:
        """Named arrays without padding, the inverse of `pack`."""
        return {
            name: value[:, : self.shapes[name][0], : self.shapes[name][1]] for name, value in self._views(rows).items()
        }

    def _views(self, rows: Tensor) -> Parameters:
        sizes = [a * b for a, b in self._padded_shapes.values()]
        parts = rows.split([*sizes, self.size - sum(sizes)], dim=1)
        return {
            name: part.unflatten(1, shape)
            for (name, shape), part in zip(self._padded_shapes.items(), parts, strict=False)
        }

    def initialise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Fresh float32 parameters, ``[members, size]``; row m comes from ``generators[m]`` alone."""
        parameters: Parameters = {name: torch.zeros(len(generators), *shape) for name, shape in self.shapes.items()}
        for name, (inputs, outputs, gain) in self._maps.items():
            draws = [torch.randn(inputs, outputs, generator=generator) for generator in generators]
            parameters[f"{name}.weight"] = torch.stack(draws) * math.sqrt(gain / inputs)
        return self.pack(parameters)

    def __call__(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        """Outputs ``[members, batch, dim]``; features `c` ``[members, batch or 1, FEATURES]``."""
        parameters = self._views(rows)
        shared = c.shape[1] == 1  # as in sampling: then the gains act on the weights, not on every hidden unit
        fresh = not torch.is_grad_enabled()  # nobody needs the values before the activation

        def affine(name: str, h: Tensor) -> Tensor:
            return torch.baddbmm(parameters[f"{name}.bias"], h, parameters[f"{name}.weight"])

        if self._columns > self.dim:
            z = pad(z, (0, self._columns - self.dim))
        e = silu(affine("embed", c))
        shift = torch.bmm(e, parameters["shift.weight"])
        h = z
        for layer in range(self.depth):
            weight = parameters[f"hidden{layer}.weight" if layer else "input.weight"]
            bias = parameters[f"hidden{layer}.bias"] if layer else parameters["input.bias"] + shift
            gain = 1 + affine(f"gain{layer}", e)
            if shared:
                h = torch.baddbmm(bias * gain, h, weight * gain)
            elif layer:
                h = torch.baddbmm(bias, h, weight) * gain
            else:
                h = (torch.bmm(h, weight) + bias) * gain
            h = silu(h, inplace=fresh)
        return affine("output", h)[..., : self.dim]

    def flops(self) -> int:
        """Multiplications and additions of one evaluation at one point, when the noise label is shared by the batch."""
        return 2 * (self.dim * self.width + (self.depth - 1) * self.width**2 + self.width * max(self.dim, 2))
