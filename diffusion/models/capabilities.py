r"""What a model can be asked, each capability as a protocol.

A *model* here is a stack of ``members`` models of one kind that are asked together: points are
``[members, batch, dim]``, noise levels alpha and sigma ``[members]``, everything float64.

What a model can do is its type. A formulation names the class of its models, a sampler or a metric
the capability that it needs, and ``issubclass(the class, the capability)`` says whether they fit. A
class has a capability if it has the methods, whoever wrote it. A new capability is a protocol of
methods with the decorators of those here: its phrase stands in the sentences that say why a
question has no answer, and its evaluations are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.models.answers import EvidenceBound, Motion

C = TypeVar("C", bound=type)

_PHRASES: dict[type, str] = {}
_EVALUATIONS: dict[type, frozenset[str]] = {}


def capability(phrase: str, *evaluations: str) -> Callable[[C], C]:
    """Class decorator of a protocol that is a capability.

    Args:
        phrase: What is asked for, to follow "asks a model for".
        *evaluations: The methods, among its own, that evaluate the model and are counted.
    """

    def add(cls: C) -> C:
        _PHRASES[cls] = phrase
        _EVALUATIONS[cls] = frozenset(evaluations)
        return cls

    return add


def phrase_of(needed: type) -> str:
    """What a capability is called in a sentence that goes "asks a model for ..."."""
    return _PHRASES.get(needed, f"what a {needed.__name__} gives")


def capabilities_of(model: type) -> list[type]:
    """The capabilities that a class of models has, in the order in which they were declared."""
    return [one for one in _PHRASES if issubclass(model, one)]


def methods_of(capability: type) -> Iterator[tuple[str, bool]]:
    """The methods that a capability adds to those it derives from, and whether they evaluate the
    model.
    """
    for name, value in vars(capability).items():
        if callable(value) and (name == "__call__" or not name.startswith("_")):
            yield name, name in _EVALUATIONS[capability]


@capability("the clean data behind a noisy point", "__call__")
@runtime_checkable
class Denoiser(Protocol):
    """E[x_0 | x_t]."""

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The posterior mean.

        Args:
            x: Noisy points ``[members, batch, dim]``.
            alpha: Signal ``[members]``.
            sigma: Noise ``[members]``.

        Returns:
            ``[members, batch, dim]``.
        """


@capability("the density of noisy data", "log_density")
@runtime_checkable
class DensityModel(Denoiser, Protocol):
    """A denoiser that knows the density of noisy data."""

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log p(x_t) ``[members, batch]``."""


@capability("the divergence of a denoiser", "divergence")
@runtime_checkable
class DivergenceModel(Denoiser, Protocol):
    """A denoiser that knows the divergence of its answer."""

    def divergence(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``div_x D`` ``[members, batch]``."""


@capability("answers that depend on a label", "labelled")
@runtime_checkable
class LabelledDenoiser(Denoiser, Protocol):
    """A denoiser that can be conditioned on a label."""

    def labelled(self, x: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """E[x_0 | x_t, label] for labels ``[batch]`` int64, -1 for a sample of which nothing is
        known.
        """


@capability("the noise of stochastic restoration")
@runtime_checkable
class RestorationModel(Denoiser, Protocol):
    """A model of incremental restoration, which knows the noise of its stochastic form."""

    def perturbation(self, time: Tensor) -> Tensor:
        """eps_t at times ``[members]``."""


@capability("the gradient of an action", "action")
@runtime_checkable
class ActionModel(Protocol):
    """A model whose samples follow the gradient of an action."""

    def action(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Motion:
        """What the action says of points x ``[members, batch, dim]``, alpha and sigma
        ``[members]``.
        """


@capability("a decoder of latent points", "decode")
@runtime_checkable
class Decoder(Protocol):
    """A model that turns latent points into data, the means of normal distributions."""

    def latent_dim(self) -> int:
        """Number of a latent point's coordinates."""

    def decode(self, z: Tensor) -> Tensor:
        """Data ``[members, batch, dim]`` for latent points ``[members, batch, latent]``."""

    def decoder_std(self) -> Tensor:
        """Standard deviation of the normal distributions in the units of the data, ``[members]``."""


@capability("an encoder of data", "encode")
@runtime_checkable
class Encoder(Protocol):
    """A model that turns data into normal distributions of latent points."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation ``[members, batch, latent]`` for data
        ``[members, batch, dim]``.
        """


@capability("an evidence lower bound of its own", "bound")
@runtime_checkable
class LatentVariableModel(Protocol):
    """A model with one latent variable and an evidence lower bound of its own."""

    def latent_dim(self) -> int:
        """Number of a latent point's coordinates."""

    def bound(self, x: Tensor, noise: Tensor) -> EvidenceBound:
        """The bound at data x ``[members, n, dim]`` for one draw of the latent noise
        ``[members, n, latent]``.
        """


@capability("the law of the data")
@runtime_checkable
class KnownDistribution(Protocol):
    """A model that is the distribution of the data itself."""

    def targets(self) -> tuple[Dataset, ...]:
        """The distribution of each member."""
