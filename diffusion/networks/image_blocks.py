r"""Networks given by what one member does: convolutions and attention.

**On a processor** members are computed one after the other. A convolution of one member is already
as much work as a matrix library wants at once, so nothing is lost, and libraries choose their way by
the shapes that they are given: each member's calls are the same whatever stands beside it. Members
do not touch, to the last bit, because each sees arrays of its own: its points are copied out of the
stack, its parameters begin at the same place of a row that is a whole number of vectors long, and
its outputs, padded to whole vectors, are copied back, so that addresses are equally aligned for
every member, in the gradients as well.

**On any other device** the same operations are done for all members at once (`torch.func.vmap`):
convolutions become grouped ones, products batched ones, and what is started does not grow with the
number of members.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn.functional import pad, silu

from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.networks.base import WHOLE, Image, Network, Parameters, padded

_POINTS = 2048  # of a batch without derivatives, on a processor
_TOUCHED = 2**30  # bytes of one layer's hidden units, of all members and points that a device evaluates at once


@dataclass(frozen=True)
class Array:
    """One array of parameters as it is kept, ``rows x columns``; it starts normal with this
    standard deviation.
    """

    rows: int
    columns: int
    std: float = 0.0


def affine(name: str, inputs: int, outputs: int, gain: float = 1.0) -> dict[str, Array]:
    """A map ``x W + b``; its weights start with variance gain / inputs, its biases at zero."""
    return {f"{name}.weight": Array(inputs, outputs, math.sqrt(gain / inputs)), f"{name}.bias": Array(1, outputs)}


def convolution(name: str, inputs: int, outputs: int, side: int, gain: float = 1.0) -> dict[str, Array]:
    """A convolution with a square kernel; kept as ``[outputs, inputs side side]``."""
    fan = inputs * side * side
    return {f"{name}.weight": Array(outputs, fan, math.sqrt(gain / fan)), f"{name}.bias": Array(1, outputs)}


@dataclass(frozen=True)
class ApartNetwork(Network):
    """A network given by its arrays and by what one member does with them."""

    @property
    @abstractmethod
    def arrays(self) -> dict[str, Array]:
        """The arrays of parameters, in the order in which they are drawn and kept."""

    @abstractmethod
    def member(self, parameters: Parameters, z: Tensor, c: Tensor) -> Tensor:
        """Outputs ``[batch, outputs]`` of one member, from points ``[batch, dim]`` and conditions
        ``[batch or 1, n]``.
        """

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return {name: (array.rows, array.columns) for name, array in self.arrays.items()}

    def points_at_once(self, members: int) -> int:  # noqa: ARG002 - one member after the other
        return _POINTS

    @property
    @abstractmethod
    def units(self) -> int:
        """The numbers that the layer with most of them has for each point."""

    def points_on_device(self, members: int) -> int:
        fitting = _TOUCHED // (4 * members * self.units)
        return min(max(fitting // WHOLE, 1) * WHOLE, super().points_on_device(members))

    def initialise(self, generators: Sequence[torch.Generator]) -> Tensor:
        parameters: Parameters = {}
        for name, array in self.arrays.items():
            shape = (array.rows, array.columns)
            draws = [torch.randn(shape, generator=g) if array.std else torch.zeros(shape) for g in generators]
            parameters[name] = torch.stack(draws) * array.std
        return self.pack(parameters)

    def __call__(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        return (self.one_by_one if z.is_cpu else self.all_at_once)(rows, z, c)

    def all_at_once(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        """The answers of all members, each operation started once."""
        if 1 < c.shape[1] < z.shape[1]:
            c = c.repeat_interleave(z.shape[1] // c.shape[1], 1)
        answers: Tensor = vmap(self.member)(self.views(rows), z, c)
        return answers

    def one_by_one(self, rows: Tensor, z: Tensor, c: Tensor) -> Tensor:
        """The answers of one member after the other, from arrays of its own."""
        named = {name: value.unbind(0) for name, value in self.views(rows).items()}
        answers = []
        for m, (points, condition) in enumerate(zip(z.unbind(0), c.unbind(0), strict=True)):
            parameters = {name: values[m] for name, values in named.items()}
            if 1 < len(condition) < len(points):
                condition = condition.repeat_interleave(len(points) // len(condition), 0)  # noqa: PLW2901 - one each
            answer = self.member(parameters, points.clone(), condition.clone())
            answers.append(pad(answer.flatten(), (0, padded(answer.numel()) - answer.numel())))
        whole: Tensor = torch.stack(answers)[:, : answer.numel()]
        return whole.reshape(len(answers), *answer.shape)


def embedded(parameters: Parameters, c: Tensor) -> Tensor:
    """What a network makes of its conditions, once for all layers: two affine maps (`embed`,
    `deepen`) with silu after each.
    """
    h = silu(torch.addmm(parameters["embed.bias"], c, parameters["embed.weight"]))
    return silu(torch.addmm(parameters["deepen.bias"], h, parameters["deepen.weight"]))


def attention(parameters: Parameters, name: str, h: Tensor, heads: int) -> Tensor:
    """Self-attention among tokens ``[batch, tokens, width]``: softmax(Q K^T / sqrt(d)) V, mixed by
    an affine map.
    """
    batch, tokens, width = h.shape
    joint = torch.mm(h.reshape(-1, width), parameters[f"{name}.joint.weight"])
    q, k, v = joint.reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4).unbind(0)
    share = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(width // heads), dim=-1)
    mixed = (share @ v).transpose(1, 2).reshape(-1, width)
    return torch.addmm(parameters[f"{name}.mix.bias"], mixed, parameters[f"{name}.mix.weight"]).view_as(h)


def attention_arrays(name: str, width: int, gain: float) -> dict[str, Array]:
    """The arrays of `attention`."""
    joint = Array(width, 3 * width, math.sqrt(1 / width))  # without a bias: that of the keys would change nothing
    return {f"{name}.joint.weight": joint, **affine(f"{name}.mix", width, width, gain)}


def not_images(name: str, dataset: Dataset) -> str:
    """The refusal of a target whose points are no images."""
    return (
        f"{name!r} works on images, and the points of {dataset.registered_name!r} are none "
        "(accepted: targets that state an image_shape, such as digits; or network: mlp)"
    )


def image_only(name: str, dim: int, outputs: int | None, image: Image | None) -> Image:
    """The shape that a network of images is built for.

    Raises:
        WrongValue: the network is asked for something else.
    """
    if image is None or outputs not in (None, dim):
        raise WrongValue(f"{name}: it maps images to images of the same shape; 'mlp' serves everything else")
    return image


def heads_of(width: int) -> int:
    """Heads of 16 units or more: as many of 4, 2 and 1 as divide the width."""
    return next(heads for heads in (4, 2, 1) if width % heads == 0 and (heads == 1 or width >= 16 * heads))
