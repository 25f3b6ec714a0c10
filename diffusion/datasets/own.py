"""Data of somebody's own: points in memory as a target, and the place of data of which nothing is
said.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusion.arguments import array_of
from diffusion.datasets.base import Dataset
from diffusion.datasets.points import PointSet, deviations
from diffusion.errors import WrongValue

MOST_EXACT = 5000
"""Points up to which the ideal denoiser is offered: it compares every sample with every point."""


@dataclass(frozen=True)
class OwnPoints(PointSet):
    """Points in memory, each as likely as any other. Made by `own_points`.

    What it is known by is a digest of its content; mean, standard deviation and the number of
    classes stand beside it, so that a model that was trained on them can be read back without them:
    then nothing can be drawn.
    """

    registered_name: ClassVar[str] = "points"

    digest: str
    means: tuple[float, ...]
    sigma_data: float
    classes: int = 0
    stds: tuple[float, ...] | None = None  # of each coordinate; of models saved by earlier versions not known

    @property
    def points(self) -> Tensor:
        return self._held[0]

    @property
    def labels(self) -> Tensor | None:
        return self._held[1]

    @property
    def _held(self) -> tuple[Tensor, Tensor | None]:
        if "_content" not in self.__dict__:
            raise WrongValue(
                f"the points of {self.label()} are not here: a saved model has their mean and deviation alone"
            )
        content: tuple[Tensor, Tensor | None] = self.__dict__["_content"]
        return content

    @property
    def exact(self) -> bool:
        return "_content" in self.__dict__ and len(self.points) <= MOST_EXACT

    @property
    def dim(self) -> int:
        return len(self.means)

    @property
    def has_cdf(self) -> bool:
        return self.dim == 1 and "_content" in self.__dict__

    @property
    def mean(self) -> tuple[float, ...]:
        return self.means

    @property
    def std(self) -> float:
        return self.sigma_data

    def identity(self) -> dict[str, Any]:
        """The content alone."""
        return {"name": self.registered_name, "digest": self.digest, "version": self.version}

    def stream_spec(self) -> dict[str, Any]:
        """The content alone, not what an earlier version did not save beside it."""
        return {"name": self.registered_name, "digest": self.digest}

    def label(self) -> str:
        return f"points@{self.digest[:8]}"


def own_points(points: Tensor, labels: Tensor | None = None) -> OwnPoints:
    """A target from points ``[n, dim]`` and, if they have any, their labels ``[n]``, whole numbers
    from 0 on.

    Raises:
        WrongValue: not two points or more of real finite numbers, all points the same, other labels
            than one for each point.
    """
    if points.ndim != 2 or len(points) < 2 or points.shape[1] == 0:
        raise WrongValue(
            f"the data have shape {list(points.shape)}; accepted: [n, dim] with n >= 2 (images are flattened)"
        )
    if points.is_complex() or not bool(torch.isfinite(points).all()):
        raise WrongValue(
            f"{int((~torch.isfinite(points)).sum())} of the data's numbers are not finite; accepted: real finite numbers"
        )
    held = points.detach().to("cpu", torch.float64).contiguous().clone()
    mean = held.mean(0)
    std, each = float((held - mean).square().mean().sqrt()), tuple(deviations(held).tolist())
    if not any(each):
        raise WrongValue("all points of the data are the same one; accepted: data with a positive standard deviation")
    hashed = hashlib.sha256(f"{list(held.shape)}".encode() + held.numpy().astype("<f8").tobytes())
    classes = 0
    if labels is not None:
        whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
        if labels.shape != (len(held),) or not whole or int(labels.min()) < 0:
            raise WrongValue(
                f"the labels have shape {list(labels.shape)} and type {labels.dtype}; accepted: [{len(held)}], whole numbers from 0 on"
            )
        labels = labels.detach().to("cpu", torch.int64).clone()
        classes = int(labels.max()) + 1
        hashed.update(labels.numpy().astype("<i8").tobytes())
    made = OwnPoints(hashed.hexdigest(), tuple(mean.tolist()), std, classes, each)
    made.__dict__["_content"] = (held, labels)
    return made


def own_array(given: Any, labels: Any = None) -> OwnPoints:
    """The same of arrays, tensors or lists: points ``[n, dim]``, on the line also ``[n]``.

    Raises:
        WrongValue: they hold no numbers or masked ones, or as of `own_points`.
    """
    points = array_of("the data", given)
    known = None if labels is None else array_of("the labels", labels)
    return own_points(points[:, None] if points.ndim == 1 else points, known)


@dataclass(frozen=True)
class UnknownData(Dataset):
    """Data in `dim` dimensions of which nothing is known: those behind a denoiser that somebody
    brings.
    """

    registered_name: ClassVar[str] = "unknown"

    dim: int = 1

    @property
    def mean(self) -> tuple[float, ...]:
        raise self._unknown("mean")

    @property
    def std(self) -> float:
        raise self._unknown("deviation")

    def sample(self, n: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        raise self._unknown("draws")

    def _unknown(self, what: str) -> WrongValue:
        return WrongValue(
            f"{what} of the data behind a denoiser of one's own are asked for and not known; name them (target=...)"
        )
