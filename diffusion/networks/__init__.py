"""Networks, stacked: one array with a leading member axis holds a whole shard of models.

- `base`: what every network owes (rows of parameters, members that do not touch), and the registry
  of architectures;
- `mlp`: the multilayer perceptron, which serves every target; `mlp_fit`: its derivative in
  the parameters;
- `unet`, `transformer`: for images (`apart`: what they share);
- `separate`: several networks of one shape as one;
- `layers`: plain layers, and an encoder with a decoder.
"""

from __future__ import annotations

from diffusion.networks.base import FEATURES, Architecture, Network, Parameters, architectures, features
from diffusion.networks.layers import EncoderDecoder, StackedLayers
from diffusion.networks.mlp import Perceptron, StackedMLP
from diffusion.networks.transformer import Transformer
from diffusion.networks.unet import UNet

__all__ = [
    "FEATURES",
    "Architecture",
    "EncoderDecoder",
    "Network",
    "Parameters",
    "Perceptron",
    "StackedLayers",
    "StackedMLP",
    "Transformer",
    "UNet",
    "architectures",
    "features",
]
