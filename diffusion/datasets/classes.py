"""Targets given the label of a sample.

A labelled target may know the distribution of one class in closed form (`Dataset.of_class`); where
it does not, the samples of the class are those draws of the whole that have the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.caches import remembered
from diffusion.datasets.base import Dataset, check_label
from diffusion.datasets.rejection import BLOCK, accepted_draws
from diffusion.devices import HOST, to_device
from diffusion.randomness import stream


@remembered(256)
def given_labels(dataset: Dataset, labels: Sequence[int]) -> Dataset:
    """The distribution of the samples with one of these labels, each label as often as any other.

    Raises:
        WrongValue: The data set has no labels, or not one of these.
    """
    for label in labels:
        check_label(dataset, label)
    if len(labels) == 1:
        known = dataset.of_class(labels[0])
        return OneClass(dataset, labels[0]) if known is None else known
    known = dataset.of_classes(labels)
    return EqualClasses(dataset, tuple(labels)) if known is None else known


def has_exact_classes(dataset: Dataset) -> bool:
    """Whether the denoisers of a target and of each of its classes are known."""
    return dataset.exact and dataset.classes > 0 and given_labels(dataset, (0,)).exact


def exact_given_label(dataset: Dataset, x: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
    """E[x_0 | x_t, label].

    Args:
        dataset: A target with exact classes.
        x: Noisy points ``[..., batch, dim]``.
        alpha: Signal, broadcast against ``[..., batch]``.
        sigma: Noise, of the same shape.
        labels: The label of each point, ``[batch]`` int64; -1 where it is not known.

    Returns:
        The posterior means, shaped like `x`.
    """
    out = torch.empty_like(x)
    labels = labels.to(HOST)  # where it is looked up which rows are asked what
    for label in labels.unique().tolist():
        target = dataset if label < 0 else given_labels(dataset, (label,))
        rows = to_device((labels == label).nonzero().squeeze(1), x.device)
        out[..., rows, :] = target.denoise(x[..., rows, :], alpha, sigma)
    return out


@dataclass(frozen=True)
class _KnownByDraws(Dataset):
    """A distribution of which samples are known, and nothing else; its moments are those of a fixed
    large sample.
    """

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], float]:
        x = self.sample(1 << 14, stream("moments", self.identity()))
        mean = x.mean(0)
        return tuple(mean.tolist()), float((x - mean).square().mean().sqrt())

    @property
    def mean(self) -> tuple[float, ...]:
        return self._moments[0]

    @property
    def std(self) -> float:
        return self._moments[1]


@dataclass(frozen=True)
class OneClass(_KnownByDraws):
    """The samples of a labelled target that have one label, found among its draws.

    Raises:
        WrongValue: There is no such label.
    """

    registered_name: ClassVar[str] = "one-class"

    of: Dataset
    label_of: int

    def __post_init__(self) -> None:
        check_label(self.of, self.label_of)

    @property
    def dim(self) -> int:
        return self.of.dim

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        def draw() -> tuple[Tensor, Tensor]:
            x, labels = self.of.sample_labelled(BLOCK, generator)
            return x, labels == self.label_of

        refusal = f"samples of {self.of.registered_name!r} hardly ever have label {self.label_of}"
        return accepted_draws(n, refusal, draw)


@dataclass(frozen=True)
class EqualClasses(_KnownByDraws):
    """The samples of a labelled target that have one of several labels, each label as often as any
    other.
    """

    registered_name: ClassVar[str] = "equal-classes"

    of: Dataset
    labels_of: tuple[int, ...]

    @property
    def dim(self) -> int:
        return self.of.dim

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(len(self.labels_of), (n,), generator=generator)
        x = torch.empty(n, self.dim, dtype=torch.float64)
        for i, label in enumerate(self.labels_of):
            rows = (which == i).nonzero().squeeze(1)
            x[rows] = given_labels(self.of, (label,)).sample(len(rows), generator)
        return x
