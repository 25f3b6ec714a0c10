r"""A small transformer, for images: patches are tokens.

Each patch of p x p pixels becomes a token, to which a learned vector for its place is added. Blocks
of self-attention and of a perceptron with one hidden layer follow; what they see is standardised,
scaled and shifted, and what they give is scaled, by an embedding e of the conditions (Peebles &
Xie, "Scalable diffusion models with transformers", ICCV 2023):

    h = h + gate_1(e) attention(norm(h) (1 + scale_1(e)) + shift_1(e))
    h = h + gate_2(e) perceptron(norm(h) (1 + scale_2(e)) + shift_2(e)),   gates = 0 at the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, silu

from diffusion.datasets import Dataset
from diffusion.errors import WrongValue
from diffusion.networks.base import FEATURES, Architecture, Image, Parameters, architectures
from diffusion.networks.image_blocks import (
    ApartNetwork,
    Array,
    affine,
    attention,
    attention_arrays,
    embedded,
    heads_of,
    image_only,
    not_images,
)

_EMBEDDING = 64
_WIDER = 2  # hidden units of a block's perceptron, per unit of a token
_PLACE = 0.1  # standard deviation of the vectors for places at the start


@dataclass(frozen=True)
class TransformerNetwork(ApartNetwork):
    """The shape of a transformer: `depth` blocks on tokens of `width` numbers."""

    image: Image
    width: int
    depth: int
    patch: int
    conditions: int = FEATURES

    @property
    def _tokens(self) -> int:
        return self.image[1] * self.image[2] // self.patch**2

    @cached_property
    def arrays(self) -> dict[str, Array]:
        pixels, width = self.image[0] * self.patch**2, self.width
        arrays = {
            **affine("embed", self.conditions, _EMBEDDING),
            **affine("deepen", _EMBEDDING, _EMBEDDING),
            **affine("input", pixels, width),
            "place": Array(self._tokens, width, _PLACE),
        }
        for i in range(self.depth):
            arrays |= affine(f"block{i}.condition", _EMBEDDING, 6 * width, 0.0)
            arrays |= attention_arrays(f"block{i}", width, 1.0)
            arrays |= affine(f"block{i}.hidden", width, _WIDER * width)
            arrays |= affine(f"block{i}.back", _WIDER * width, width)
        return {**arrays, **affine("last", _EMBEDDING, 2 * width, 0.0), **affine("output", width, pixels, 0.0)}

    @property
    def units(self) -> int:
        """Of queries, keys and values, of a block's perceptron, or of the shares of attention."""
        return self._tokens * max(3 * self.width, _WIDER * self.width, heads_of(self.width) * self._tokens)

    def member(self, parameters: Parameters, z: Tensor, c: Tensor) -> Tensor:
        e = embedded(parameters, c)

        def apply(name: str, h: Tensor) -> Tensor:
            weight = parameters[f"{name}.weight"]
            mapped = torch.addmm(parameters[f"{name}.bias"], h.reshape(-1, len(weight)), weight)
            return mapped.view(*h.shape[:-1], -1)

        def standard(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
            return layer_norm(h, (self.width,)) * (1 + scale) + shift

        h = apply("input", self._patches(z)) + parameters["place"]
        for i in range(self.depth):
            scale1, shift1, gate1, scale2, shift2, gate2 = apply(f"block{i}.condition", e)[:, None].chunk(6, dim=-1)
            h = h + gate1 * attention(parameters, f"block{i}", standard(h, scale1, shift1), heads_of(self.width))
            hidden = silu(apply(f"block{i}.hidden", standard(h, scale2, shift2)))
            h = h + gate2 * apply(f"block{i}.back", hidden)
        return self._pixels(apply("output", standard(h, *apply("last", e)[:, None].chunk(2, dim=-1))))

    def _patches(self, z: Tensor) -> Tensor:
        """``[batch, tokens, channels p p]`` of points ``[batch, dim]``."""
        colours, height, width = self.image
        p = self.patch
        parts = z.reshape(-1, colours, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5)
        return parts.reshape(len(z), self._tokens, colours * p * p)

    def _pixels(self, tokens: Tensor) -> Tensor:
        """The inverse of `_patches`."""
        colours, height, width = self.image
        p = self.patch
        parts = tokens.reshape(-1, height // p, width // p, colours, p, p).permute(0, 3, 1, 4, 2, 5)
        return parts.reshape(len(tokens), colours * height * width)

    def flops(self) -> int:
        width, tokens, pixels = self.width, self._tokens, self.image[0] * self.patch**2
        block = (4 + 2 * _WIDER) * width**2 + 2 * tokens * width
        return 2 * tokens * (self.depth * block + 2 * pixels * width)


@architectures.register(
    "transformer",
    formula="h + g_1 attention(norm(h) (1 + a_1) + b_1), then h + g_2 mlp(norm(h) (1 + a_2) + b_2); a, b, g affine in e",
    source="Peebles & Xie, Scalable Diffusion Models with Transformers, ICCV 2023",
)
@dataclass(frozen=True)
class Transformer(Architecture):
    """Patches of an image attend to one another; `patch` is their side in pixels, of which height
    and width are multiples.

    `training.width` is the length of a token, `training.depth` the number of blocks.
    """

    of_images: ClassVar[bool] = True

    patch: int = 2

    def __post_init__(self) -> None:
        if self.patch < 1:
            raise WrongValue(f"transformer: patch = {self.patch}; needed: 1 or more")

    def refuses(self, dataset: Dataset) -> str | None:
        if dataset.image_shape is None:
            return not_images("transformer", dataset)
        _, height, width = dataset.image_shape
        if height % self.patch or width % self.patch:
            return f"'transformer' with patch = {self.patch} does not divide images of {height} x {width} pixels"
        return None

    def build(
        self,
        dim: int,
        width: int,
        depth: int,
        conditions: int = FEATURES,
        outputs: int | None = None,
        image: Image | None = None,
    ) -> TransformerNetwork:
        image = image_only("transformer", dim, outputs, image)
        return TransformerNetwork(image, width, depth, self.patch, conditions)
