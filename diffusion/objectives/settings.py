"""How a network is trained: the settings that all members of a stack share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from diffusion.errors import WrongValue
from diffusion.networks import Architecture, Perceptron

_WIDEST, _DEEPEST = 4096, 64  # a stack of wider networks does not fit into memory


@dataclass(frozen=True)
class Training:
    """How one network is trained.

    Adam (betas 0.9, 0.99) with 1 % warm-up and cosine decay to zero, gradients clipped to norm 1
    per member; the weights that are kept are an exponential moving average over the fraction `ema`
    of the steps. `data` is the size of the training set, drawn once per target and seed.

    Raises:
        WrongValue: A width or depth that does not fit into memory; `ema` outside (0, 1].
    """

    steps: int = 3000
    batch: int = 512
    width: int = 128
    depth: int = 3
    learning_rate: float = 4e-3
    ema: float = 0.03
    data: int = 200_000
    network: Architecture = Perceptron()

    def spec(self) -> dict[str, Any]:
        """As plain values; the network only where it is not the usual one."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "network"}
        return plain if self.network == Perceptron() else {**plain, "network": self.network.spec()}

    def identity(self, dim: int) -> dict[str, Any]:
        """The spec with the version of the network for points of `dim` coordinates, where there has
        been more than one.
        """
        spec, version = self.spec(), self.network.version_for(dim)
        named = "network" in spec or version > 1
        return {**spec, "network": {**self.network.identity(), "version": version}} if named else spec

    def __post_init__(self) -> None:
        if self.width > _WIDEST or self.depth > _DEEPEST:
            raise WrongValue(
                f"training.width is at most {_WIDEST} and training.depth at most {_DEEPEST}, found {self.width} and {self.depth}"
            )
        if not 0 < self.ema <= 1:
            raise WrongValue(f"training.ema must lie in (0, 1], found {self.ema}")
