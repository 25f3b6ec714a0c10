r"""A small U-Net, for images.

Images pass through residual blocks at the full resolution, at half of it and so on, and back up,
where each block also sees what its resolution had on the way down (Ronneberger et al., MICCAI
2015). A block adds to its input h

    W_2 * silu( norm(W_1 * silu(norm(h))) (1 + G e + g) + S e + s ),   W_2 = 0 at the start,

where ``*`` is a convolution with 3 x 3 kernels, `norm` makes groups of channels standard over the
image, and e, an embedding of the conditions, scales and shifts every channel (Perez et al., "FiLM",
AAAI 2018; Dhariwal & Nichol, NeurIPS 2021). At the bottom the pixels attend to one another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, group_norm, interpolate, silu

from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.networks.base import FEATURES, Architecture, Image, Parameters, architectures
from diffusion.networks.image_blocks import (
    ApartNetwork,
    Array,
    affine,
    attention,
    attention_arrays,
    convolution,
    embedded,
    heads_of,
    image_only,
    not_images,
)

_EMBEDDING = 64
_MOST_LEVELS = 6


@dataclass(frozen=True)
class UNetwork(ApartNetwork):
    """The shape of a U-Net: `width` channels at the full resolution, twice as many below, `depth`
    blocks for each resolution.
    """

    image: Image
    width: int
    depth: int
    levels: int
    attention: bool
    conditions: int = FEATURES

    @property
    def _channels(self) -> list[int]:
        return [self.width * (2 if level else 1) for level in range(self.levels)]

    @cached_property
    def _blocks(self) -> dict[str, tuple[int, int]]:
        """Channels in and out of each block, in the order in which they are passed."""
        blocks, now, channels = {}, self.width, self._channels
        for level in range(self.levels):
            for i in range(self.depth):
                blocks[f"down{level}.{i}"] = (now, channels[level])
                now = channels[level]
        for level in reversed(range(self.levels - 1)):
            for i in range(self.depth):
                blocks[f"up{level}.{i}"] = (now + (0 if i else channels[level]), channels[level])
                now = channels[level]
        return blocks

    @cached_property
    def arrays(self) -> dict[str, Array]:
        colours = self.image[0]
        arrays = {
            **affine("embed", self.conditions, _EMBEDDING),
            **affine("deepen", _EMBEDDING, _EMBEDDING),
            **convolution("input", colours, self.width, 3),
        }
        for name, (inputs, outputs) in self._blocks.items():
            arrays |= convolution(f"{name}.first", inputs, outputs, 3)
            arrays |= affine(f"{name}.film", _EMBEDDING, 2 * outputs, 0.1)
            arrays |= convolution(f"{name}.second", outputs, outputs, 3, 0.0)
            if inputs != outputs:
                arrays |= convolution(f"{name}.across", inputs, outputs, 1)
        if self.attention:
            arrays |= attention_arrays("attention", self._channels[-1], 0.0)
        return {**arrays, **convolution("output", self.width, colours, 3, 0.0)}

    @property
    def units(self) -> int:
        """Of a block, or of attention: its queries, keys and values, or its shares."""
        pixels = self.image[1] * self.image[2]
        found = [(pixels >> 2 * _level(name)) * max(channels) for name, channels in self._blocks.items()]
        if self.attention:
            tokens, width = pixels >> 2 * (self.levels - 1), self._channels[-1]
            found.append(tokens * max(3 * width, heads_of(width) * tokens))
        return max(found)

    def member(self, parameters: Parameters, z: Tensor, c: Tensor) -> Tensor:
        e = embedded(parameters, c)
        h = _convolve(parameters, "input", z.unflatten(1, self.image), 3)
        seen = []
        for level in range(self.levels):
            if level:
                seen.append(h)
                h = avg_pool2d(h, 2)
            for i in range(self.depth):
                h = self._block(parameters, f"down{level}.{i}", h, e)
        if self.attention:
            tokens = _standard(h).flatten(2).transpose(1, 2)
            h = h + attention(parameters, "attention", tokens, heads_of(h.shape[1])).transpose(1, 2).reshape(h.shape)
        for level in reversed(range(self.levels - 1)):
            h = interpolate(h, scale_factor=2.0, mode="nearest")
            for i in range(self.depth):
                h = self._block(parameters, f"up{level}.{i}", h if i else torch.cat([h, seen.pop()], 1), e)
        return _convolve(parameters, "output", silu(_standard(h)), 3).flatten(1)

    def _block(self, parameters: Parameters, name: str, h: Tensor, e: Tensor) -> Tensor:
        inner = _convolve(parameters, f"{name}.first", silu(_standard(h)), 3)
        film = torch.addmm(parameters[f"{name}.film.bias"], e, parameters[f"{name}.film.weight"])
        gain, shift = film[:, :, None, None].chunk(2, dim=1)
        inner = _convolve(parameters, f"{name}.second", silu(_standard(inner) * (1 + gain) + shift), 3)
        if f"{name}.across.weight" in parameters:
            h = _convolve(parameters, f"{name}.across", h, 1)
        return h + inner

    def flops(self) -> int:
        _, height, width = self.image
        pixels = [(height * width) >> (2 * level) for level in range(self.levels)]
        work = [(pixels[0], self.arrays[f"{end}.weight"]) for end in ("input", "output")]
        for name in self._blocks:
            parts = (self.arrays.get(f"{name}.{part}.weight") for part in ("first", "second", "across"))
            work += [(pixels[_level(name)], array) for array in parts if array]
        total = sum(2 * places * array.rows * array.columns for places, array in work)
        if self.attention:
            tokens, inner = pixels[-1], self._channels[-1]
            total += 2 * tokens * (4 * inner**2 + 2 * tokens * inner)
        return total


def _level(block: str) -> int:
    return int(block.partition(".")[0].lstrip("downup"))


def _convolve(parameters: Parameters, name: str, h: Tensor, side: int) -> Tensor:
    weight = parameters[f"{name}.weight"]
    kernels = weight.view(len(weight), h.shape[1], side, side)
    return conv2d(h, kernels, parameters[f"{name}.bias"][0], padding=side // 2)


def _standard(h: Tensor) -> Tensor:
    """Groups of channels with mean 0 and variance 1 over the image."""
    return group_norm(h, math.gcd(8, h.shape[1]))


@architectures.register(
    "unet",
    formula="h + W_2 * silu(norm(W_1 * silu(norm h)) (1 + G e) + S e) at each resolution, down and up with shortcuts",
    source="Ronneberger et al., U-Net, MICCAI 2015; Ho et al., NeurIPS 2020; the gains: Perez et al., FiLM, AAAI 2018",
)
@dataclass(frozen=True)
class UNet(Architecture):
    """Convolutions at several resolutions, for images: `levels` of them, with attention at the
    lowest if asked.

    `training.width` counts the channels at the full resolution (twice as many below),
    `training.depth` the residual blocks that a resolution has on each way. Height and width of the
    image must be divisible by ``2^(levels - 1)``.
    """

    of_images: ClassVar[bool] = True

    levels: int = 2
    attention: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= _MOST_LEVELS:
            raise WrongValue(f"unet: levels = {self.levels}; needed: from 1 to {_MOST_LEVELS}")

    def refuses(self, dataset: Dataset) -> str | None:
        if dataset.image_shape is None:
            return not_images("unet", dataset)
        _, height, width = dataset.image_shape
        if (height | width) % 2 ** (self.levels - 1):
            return f"'unet' with levels = {self.levels} halves images {self.levels - 1} times, which {height} x {width} do not allow"
        return None

    def build(
        self,
        dim: int,
        width: int,
        depth: int,
        conditions: int = FEATURES,
        outputs: int | None = None,
        image: Image | None = None,
    ) -> UNetwork:
        image = image_only("unet", dim, outputs, image)
        return UNetwork(image, width, depth, self.levels, self.attention, conditions)
