r"""What guidance owes the rest of the atlas: Bayes' rule for scores, at every noise level.

Something is known of the sample that is to be drawn, say ``y``. Of the law of x_t given y Bayes'
rule says

    score(x_t | y) = score(x_t) + grad log p_t(y | x_t),      p_t(y | x_t) = E[p(y | x_0) | x_t]

where `p_t(y | x_t)` is what a *noisy* x_t says of y: p(y | x_0) at the place x_t is another
function, and a wrong one but where the noise is gone. In terms of denoisers,
``D = (x_t + sigma^2 score) / alpha``,

    D_guided = D + w (sigma^2 / alpha) grad log p_t(y | x_t)

with a weight w: 1 is Bayes' rule, a larger one sharpens ``p_t(y | x_t)^w``, which is the law of no
forward process. The shift ``(sigma^2 / alpha) grad log p_t(y | x_t)`` equals ``D_y - D``, the
difference of two posterior means, finite also where alpha = 0.

A guidance wraps the denoiser of a point of the space; samplers, schedules and grids do not know of
it. Its `target` is the conditioned law, which metrics, floors and the limit of many steps compare
with.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffusion.datasets import Dataset, given_labels
from diffusion.devices import device_of, indices
from diffusion.errors import WrongValue
from diffusion.formulations import Formulation
from diffusion.models import Denoiser
from diffusion.registry import Component, Registry

guidances: Registry[Guidance] = Registry("guidance")

LEAST_SIGNAL = 1e-6
"""alpha / sigma below which gradients are taken there: at alpha = 0 a gradient and 1 / alpha are 0
and infinite.
"""


@dataclass(frozen=True)
class Guidance(Component):
    """Something known of the sample, and how it shifts a denoiser."""

    cost: ClassVar[float] = 1.0  # of one guided evaluation beside a plain one, for planning

    @abstractmethod
    def refuses(self, dataset: Dataset, formulation: Formulation) -> str | None:
        """Why it cannot steer models of the formulation trained on this target, or None."""

    @abstractmethod
    def condition(self) -> str:
        """What is known, in a few words that follow a data set's name: ``label 2``."""

    @abstractmethod
    def target(self, dataset: Dataset) -> Dataset:
        """The law of x_0 given what is known, which samples should follow.

        Raises:
            WrongValue: the guidance refuses the target (`refuses_target`).
        """

    def refuses_target(self, dataset: Dataset) -> str | None:
        """Why there is no law to compare samples with, or None."""
        try:
            self.target(dataset)
        except ValueError as error:
            return f"the law given {self.label()} is not known: {error}"
        return None

    @abstractmethod
    def denoise(
        self, denoiser: Denoiser, datasets: Sequence[Dataset], x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Tensor:
        """The guided denoiser of a stack: x ``[members, batch, dim]``, alpha and sigma
        ``[members]``, a data set for each.
        """


@dataclass(frozen=True)
class Guided:
    """A denoiser under guidance; it gives nothing else, since whatever else the model knows is not
    of the conditioned law.
    """

    guidance: Guidance
    denoiser: Denoiser
    datasets: tuple[Dataset, ...]

    @property
    def device(self) -> torch.device:
        """That of the denoiser."""
        return device_of(self.denoiser)

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """See `diffusion.samplers.Denoiser`."""
        return self.guidance.denoise(self.denoiser, self.datasets, x, alpha, sigma)


Shift = Callable[[Dataset, Tensor, Tensor, Tensor], Tensor]  # (dataset, x [..., batch, dim], alpha, sigma [..., 1])


def by_dataset(datasets: Sequence[Dataset], shift: Shift, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What `shift` says of every member, asked once for each data set; shaped like x."""
    groups: list[tuple[Dataset, list[int]]] = []
    for m, dataset in enumerate(datasets):
        same = next((of_known for known, of_known in groups if known == dataset), None)
        if same is None:
            groups.append((dataset, [m]))
        else:
            same.append(m)
    out = torch.empty_like(x)
    for dataset, members in groups:
        rows = indices(members, x.device)
        out[rows] = shift(dataset, x[rows], alpha[rows, None], sigma[rows, None])
    return out


def with_signal(alpha: Tensor, sigma: Tensor) -> Tensor:
    """alpha, or where there is next to no signal as much of it as gradients need."""
    return torch.maximum(alpha, LEAST_SIGNAL * sigma)


Labels = int | tuple[int, ...] | Literal["all"]


@dataclass(frozen=True)
class LabelGuidance(Guidance):
    """The label is known: one for all samples, several or ``all`` among which they are divided
    evenly, in turn.

    Raises:
        WrongValue: no labels, a negative one or one twice; a weight that is not finite.
    """

    labels: Labels = 0
    weight: float = 1.0

    def __post_init__(self) -> None:
        listed = self.labels if isinstance(self.labels, tuple) else ()
        if isinstance(self.labels, tuple) and (not listed or len(set(listed)) != len(listed)):
            raise WrongValue(f"labels = {list(listed)}; needed: different labels, at least one")
        if any(label < 0 for label in (listed or (self.labels,)) if isinstance(label, int)):
            raise WrongValue(f"labels = {self.labels!r}; needed: labels from 0 on, or all")
        if not math.isfinite(self.weight):
            raise WrongValue(f"weight = {self.weight!r}; needed: a finite number")

    def condition(self) -> str:
        if isinstance(self.labels, int):
            return f"label {self.labels}"
        return "all labels" if self.labels == "all" else f"labels {','.join(map(str, self.labels))}"

    def requested(self, dataset: Dataset) -> tuple[int, ...]:
        """The labels in turn: sample i is to have ``requested[i mod n]``."""
        if self.labels == "all":
            return tuple(range(dataset.classes))
        return self.labels if isinstance(self.labels, tuple) else (int(self.labels),)

    def refuses(self, dataset: Dataset, formulation: Formulation) -> str | None:  # noqa: ARG002
        if dataset.classes == 0:
            return f"dataset {dataset.registered_name!r} has no labels"
        wrong = [label for label in self.requested(dataset) if label >= dataset.classes]
        if wrong:
            return f"dataset {dataset.registered_name!r} has no label {wrong[0]} (accepted: 0 to {dataset.classes - 1}, all)"
        return None

    def target(self, dataset: Dataset) -> Dataset:
        if dataset.classes == 0:
            raise WrongValue(f"dataset {dataset.registered_name!r} has no labels")
        return given_labels(dataset, self.requested(dataset))

    def in_turn(self, shift: Callable[[int, Tensor], Tensor], dataset: Dataset, x: Tensor) -> Tensor:
        """``shift(label, samples)`` of the samples of each label, put back in their places; x is
        ``[..., batch, dim]``.
        """
        requested = self.requested(dataset)
        if len(requested) == 1:
            return shift(requested[0], x)
        out = torch.empty_like(x)
        for i, label in enumerate(requested[: x.shape[-2]]):
            out[..., i :: len(requested), :] = shift(label, x[..., i :: len(requested), :])
        return out
