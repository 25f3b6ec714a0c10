"""What guidance by known coordinates has in common: which coordinates, and where their values come
from.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch

from diffusion.caches import remembered
from diffusion.datasets import Dataset, Observation, observed
from diffusion.errors import WrongValue
from diffusion.formulations import Formulation
from diffusion.guidance.base import Guidance
from diffusion.randomness import stream
from diffusion.registry import identity_text

Coordinates = int | tuple[int, ...] | Literal["first-half", "second-half"]
Values = float | tuple[float, ...] | None

_SPELLED = 4  # values up to which a condition is written out


@dataclass(frozen=True)
class KnownCoordinates(Guidance):
    """Some coordinates of x_0 are known, up to noise: `values` for them, or those of an example
    that is drawn from the target.

    Raises:
        WrongValue: not one finite value for each coordinate; a coordinate twice or negative; both
            values and an example.
    """

    coordinates: Coordinates = 0
    values: Values = None
    example: int = 0

    def __post_init__(self) -> None:
        if self.example < 0 or (self.values is not None and self.example != 0):
            raise WrongValue(f"example = {self.example}; needed: an integer from 0 on, and none beside values")
        if isinstance(self.coordinates, str):
            if self.values is not None:
                raise WrongValue("the halves are known by an example; leave out values, or list the coordinates")
            return
        listed, given = self._listed(1), self._given()
        Observation(listed, given if given is not None else (0.0,) * len(listed), self.noise)  # refuses what is none

    @property
    @abstractmethod
    def noise(self) -> float:
        """The standard deviation of the noise in the values."""

    def _listed(self, dim: int) -> tuple[int, ...]:
        match self.coordinates:
            case "first-half":
                return tuple(range(dim // 2))
            case "second-half":
                return tuple(range(dim // 2, dim))
            case int():
                return (self.coordinates,)
            case _:
                return self.coordinates

    def _given(self) -> tuple[float, ...] | None:
        return self.values if isinstance(self.values, tuple) or self.values is None else (float(self.values),)

    def observation(self, dataset: Dataset) -> Observation:
        """What is known of a sample of the target."""
        listed, given = self._listed(dataset.dim), self._given()
        if given is None:
            x, eps = _example(dataset, self.example)
            given = tuple(x[j] + self.noise * eps[j] for j in listed)
        return Observation(listed, given, self.noise)

    def condition(self) -> str:
        given = self._given()
        noise = f" +- {self.noise!r}" if self.noise else ""
        if isinstance(self.coordinates, str):
            return f"{self.coordinates} of example {self.example}{noise}"
        listed = self._listed(1)
        names = ",".join(f"x{j}" for j in listed) if len(listed) <= _SPELLED else self._digest(len(listed))
        if given is None:
            return f"{names} of example {self.example}{noise}"
        return f"{names} = {','.join(map(repr, given))}{noise}" if len(given) <= _SPELLED else f"{names}{noise}"

    def _digest(self, n: int) -> str:
        digest = hashlib.sha256(repr((self.coordinates, self.values)).encode()).hexdigest()
        return f"{n} coordinates #{digest[:6]}"

    def refuses(self, dataset: Dataset, formulation: Formulation) -> str | None:  # noqa: ARG002
        if dataset.frame is not None:
            return (
                f"what is observed is in the data's units, and models of {dataset.registered_name!r} see others; "
                "accepted: the data set itself, not standardised"
            )
        listed = self._listed(dataset.dim)
        if not listed:
            return f"dataset {dataset.registered_name!r} has one coordinate, which is no half"
        if max(listed) >= dataset.dim:
            return f"dataset {dataset.registered_name!r} has no coordinate {max(listed)} (accepted: 0 to {dataset.dim - 1})"
        return None

    def target(self, dataset: Dataset) -> Dataset:
        return observed(dataset, self.observation(dataset))


@remembered(256)
def _example(dataset: Dataset, number: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A draw of the target that is part of no training set, and standard normal numbers of the same
    size.
    """
    generator = stream("example", identity_text(dataset), number)
    x = dataset.sample(1, generator)[0]
    return tuple(x.tolist()), tuple(torch.randn(len(x), generator=generator, dtype=torch.float64).tolist())
