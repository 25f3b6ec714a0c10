r"""The multilayer perceptron, stacked.

`StackedMLP` maps noisy points z ``[members, batch, dim]`` and Fourier features c of the noise label
to outputs ``[members, batch, dim]``. With e = silu(W_e c + b_e):

    h_1     = silu((W_1 z + V e + b_1) * (1 + G_1 e))
    h_{l+1} = silu((W_l h_l + b_l)     * (1 + G_l e))
    F       = W_o h_depth + b_o,   W_o = 0 at the start

The gains G make products of input and noise level easy to learn; without them a network that sees
unscaled inputs (`ve`) hardly learns to divide by sigma. (Perez et al., "FiLM", AAAI 2018.)

Members do not touch (see `base`): points and outputs have at least two columns, and beyond four
come in blocks of four; hidden widths are padded to whole vectors with units that are zero and stay
zero; noise labels are expanded to features member by member.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad, silu

from diffusion.networks.base import FEATURES, Architecture, Image, Network, Parameters, architectures, blocked, padded
from diffusion.networks.mlp_fit import Fit

_EMBEDDING = 32


@dataclass(frozen=True)
class StackedMLP(Network):
    """The shape of a multilayer perceptron; its parameters are held apart, as rows
    ``[members, size]``.
    """

    dim: int
    width: int
    depth: int
    conditions: int = FEATURES
    outputs: int | None = None  # as many as coordinates, if None

    @property
    def _answers(self) -> int:
        return self.dim if self.outputs is None else self.outputs

    @cached_property
    def _maps(self) -> dict[str, tuple[int, int, float]]:
        """Each affine map's inputs, outputs and gain: its weights start with variance gain /
        inputs.
        """
        maps = {
            "embed": (self.conditions, _EMBEDDING, 1.0),
            "input": (self.dim, self.width, 1.0),
            "shift": (_EMBEDDING, self.width, 1.0),
            "output": (self.width, self._answers, 0.0),
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
    def padded_shapes(self) -> dict[str, tuple[int, int]]:
        shapes = {}
        for name, (inputs, outputs) in self.shapes.items():
            if name.startswith(("hidden", "output")) and name.endswith("weight"):
                inputs = padded(inputs)  # noqa: PLW2901 - from a padded layer
            if name == "input.weight":
                inputs = blocked(self.dim)  # noqa: PLW2901 - of a padded point
            columns = blocked(outputs) if name.startswith("output") else padded(outputs)
            shapes[name] = (inputs, columns)
        return shapes

    def initialise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Fresh float32 parameters, ``[members, size]``; row m comes from ``generators[m]`` alone."""
        parameters: Parameters = {name: torch.zeros(len(generators), *shape) for name, shape in self.shapes.items()}
        for name, (inputs, outputs, gain) in self._maps.items():
            draws = [torch.randn(inputs, outputs, generator=generator) for generator in generators]
            parameters[f"{name}.weight"] = torch.stack(draws) * math.sqrt(gain / inputs)
        return self.pack(parameters)

    def __call__(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        """Outputs ``[members, batch, dim]``; conditions `c` ``[members, groups, conditions]``, of
        equal consecutive parts of the batch.
        """
        parameters = self.views(rows)
        if 1 < c.shape[1] < z.shape[1]:
            c = c.repeat_interleave(z.shape[1] // c.shape[1], 1)
        shared = c.shape[1] == 1  # as in sampling: then the gains act on the weights, not on every hidden unit
        fresh = not torch.is_grad_enabled()  # nobody needs the values before the activation

        def affine(name: str, h: Tensor) -> Tensor:
            return torch.baddbmm(parameters[f"{name}.bias"], h, parameters[f"{name}.weight"])

        z = self._blocked(z)
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
        return affine("output", h)[..., : self._answers]

    def fit(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        if not rows.is_cpu:  # elsewhere memory is kept by torch, and what it holds is not written in turn
            return self(rows, z, c)
        answers: Tensor = Fit.apply(self.views, self.depth, rows, self._blocked(z), c)  # type: ignore[no-untyped-call]
        return answers[..., : self._answers]

    def _blocked(self, z: Tensor) -> Tensor:
        """Points with the columns that they are multiplied with."""
        return pad(z, (0, blocked(self.dim) - self.dim)) if blocked(self.dim) > self.dim else z

    def flops(self) -> int:
        """Multiplications and additions of one evaluation at one point, when the noise label is
        shared by the batch.
        """
        return 2 * (self.dim * self.width + (self.depth - 1) * self.width**2 + self.width * max(self._answers, 2))


@architectures.register(
    "mlp",
    formula="h = silu((W h + b) (1 + G e)) for each layer, e an embedding of the noise label",
    source="the gains: Perez et al., FiLM, AAAI 2018",
)
@dataclass(frozen=True)
class Perceptron(Architecture):
    """Fully connected layers of equal width; the noise level scales every hidden unit."""

    def version_for(self, dim: int) -> int:
        return 2 if dim == 1 else self.version  # points on the line have two columns since version 2

    def build(
        self,
        dim: int,
        width: int,
        depth: int,
        conditions: int = FEATURES,
        outputs: int | None = None,
        image: Image | None = None,  # noqa: ARG002 - pixels are coordinates as any other
    ) -> StackedMLP:
        return StackedMLP(dim, width, depth, conditions, None if outputs == dim else outputs)
