r"""Plain layers without a noise label, and two networks in one row: an encoder and a decoder.

`StackedLayers` maps points z ``[members, batch, dim]`` to ``[members, batch, outputs]``,

    h_1 = silu(W_1 z + b_1),   h_{l+1} = silu(W_l h_l + b_l),   F = W_o h_depth + b_o,

and is one affine map for depth 0. `EncoderDecoder` holds two of them and one number besides, the
logarithm of the decoder's spread, as one row of parameters, so that one optimiser step and one
clipped norm take in the whole model.

Members do not touch (see `base`): points have at least two columns, beyond four in blocks of four,
hidden widths and the last layer's columns are whole vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad, silu

from diffusion.networks.base import Network, Parameters, blocked, padded

_SPREAD = "log_spread"
FIRST_SPREAD = 0.1


@dataclass(frozen=True)
class StackedLayers(Network):
    """Fully connected layers of equal width; depth 0 is one affine map. The last layer's weights
    start with variance gain / inputs.
    """

    dim: int
    width: int
    depth: int
    outputs: int
    gain: float = 0.0

    @cached_property
    def _maps(self) -> dict[str, tuple[int, int, float]]:
        """Each affine map's inputs, outputs and gain."""
        sizes = [self.dim, *[self.width] * self.depth]
        hidden = {f"layer{i}": (a, self.width, 2.0 if i else 1.0) for i, a in enumerate(sizes[:-1])}
        return {**hidden, "output": (sizes[-1], self.outputs, self.gain)}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        shapes: dict[str, tuple[int, int]] = {}
        for name, (inputs, outputs, _) in self._maps.items():
            shapes |= {f"{name}.weight": (inputs, outputs), f"{name}.bias": (1, outputs)}
        return shapes

    @cached_property
    def padded_shapes(self) -> dict[str, tuple[int, int]]:
        shapes: dict[str, tuple[int, int]] = {}
        for i, (name, (inputs, outputs, _)) in enumerate(self._maps.items()):
            rows = padded(inputs) if i else blocked(inputs)
            shapes |= {f"{name}.weight": (rows, padded(outputs)), f"{name}.bias": (1, padded(outputs))}
        return shapes

    def initialise(self, generators: Sequence[torch.Generator]) -> Tensor:
        parameters: Parameters = {name: torch.zeros(len(generators), *shape) for name, shape in self.shapes.items()}
        for name, (inputs, outputs, gain) in self._maps.items():
            draws = [torch.randn(inputs, outputs, generator=generator) for generator in generators]
            parameters[f"{name}.weight"] = torch.stack(draws) * math.sqrt(gain / inputs)
        return self.pack(parameters)

    def __call__(self, rows: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Outputs ``[members, batch, outputs]``; there are no conditions."""
        return self.whole(rows, z)[..., : self.outputs]

    def whole(self, rows: Tensor, z: Tensor) -> Tensor:
        """The same with the last layer's padding, whole vectors of columns."""
        parameters = self.views(rows)
        h = pad(z, (0, blocked(self.dim) - self.dim)) if blocked(self.dim) > self.dim else z
        for name in self._maps:
            h = torch.baddbmm(parameters[f"{name}.bias"], h, parameters[f"{name}.weight"])
            if name != "output":
                h = silu(h)
        return h

    def flops(self) -> int:
        return 2 * sum(a * b for a, b, _ in self._maps.values())


@dataclass(frozen=True)
class EncoderDecoder(Network):
    """Two networks and the logarithm of the decoder's spread in one row; as a network it is its
    decoder.
    """

    encoder: StackedLayers
    decoder: StackedLayers

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        named = {f"{part}.{name}": shape for part, net in parts.items() for name, shape in net.shapes.items()}
        return {**named, _SPREAD: (1, 1)}

    @cached_property
    def size(self) -> int:
        return self.encoder.size + self.decoder.size + padded(1)

    def parts(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the encoder, rows of the decoder, and the vector ``[members, n]`` that begins
        with the logarithm of the spread.
        """
        encoder, decoder, spread = rows.split([self.encoder.size, self.decoder.size, padded(1)], dim=1)
        return encoder, decoder, spread

    def pack(self, parameters: Parameters) -> Tensor:
        def part(of: str) -> Parameters:
            return {
                name.removeprefix(f"{of}."): value for name, value in parameters.items() if name.startswith(f"{of}.")
            }

        spread = pad(parameters[_SPREAD][:, 0], (0, padded(1) - 1))
        return torch.cat([self.encoder.pack(part("encoder")), self.decoder.pack(part("decoder")), spread], 1)

    def unpack(self, rows: Tensor) -> Parameters:
        encoder, decoder, spread = self.parts(rows)
        return {
            **{f"encoder.{name}": value for name, value in self.encoder.unpack(encoder).items()},
            **{f"decoder.{name}": value for name, value in self.decoder.unpack(decoder).items()},
            _SPREAD: spread[:, None, :1],
        }

    def initialise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """The spread starts at a tenth: from one, the divergence closes the code before the decoder
        has learned to read it.
        """
        encoder, decoder = self.encoder.initialise(generators), self.decoder.initialise(generators)
        spread = torch.zeros(len(generators), padded(1))
        spread[:, 0] = math.log(FIRST_SPREAD)
        return torch.cat([encoder, decoder, spread], 1)

    def __call__(self, rows: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return self.decoder(self.parts(rows)[1], z)

    def flops(self) -> int:
        """Of one evaluation of both, as in training: in sampling there is the decoder alone."""
        return self.encoder.flops() + self.decoder.flops()
