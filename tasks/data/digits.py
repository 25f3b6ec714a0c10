"""Handwritten digits of 8 x 8 pixels: small enough to train on in minutes, and still images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from diffusion.datasets import PointSet, datasets
from diffusion.datasets.base import check_label

CLASSES = 10
SIDE = 8
_ROWS = 1024  # samples compared with all images at once


@cache
def _all() -> tuple[Tensor, Tensor]:
    """Images ``[1797, 64]`` float64 in [-1, 1] and their labels ``[1797]`` int64."""
    from sklearn.datasets import load_digits  # a second; only who asks for digits waits for it

    held = load_digits()
    return torch.from_numpy(held.data / 8 - 1), torch.from_numpy(held.target).long()


@datasets.register(
    "digits",
    formula="p(x) = mean over 1797 images of N(x; alpha x_k, sigma^2 I),  pixels v / 8 - 1, v = 0 ... 16",
    source="E. Alpaydin & C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test set, as in scikit-learn)",
)
@dataclass(frozen=True)
class Digits(PointSet):
    """The 1797 handwritten digits of scikit-learn, 8 x 8 pixels in [-1, 1], each as likely as any
    other.

    A point is an image, row by row: white on black, -1 is the paper, 1 the stroke, in 17 grey
    levels. Mean pixel -0.39, standard deviation about the mean image 0.54. `digit` keeps one of the
    ten classes only, 174 to 183 images: the law that a model asked for that digit should follow.

    The exact denoiser is the empirical one: sampling with it gives the images themselves. Modes are
    the classes, an image belonging to the class of the nearest one of the data.

    Raises:
        ValueError: a digit that is none of 0 to 9.
    """

    digit: int | None = None

    def __post_init__(self) -> None:
        if self.digit is not None and not 0 <= self.digit < CLASSES:
            raise ValueError(f"digits: digit = {self.digit}; accepted: 0 to {CLASSES - 1}, or null for all")

    def __getstate__(self) -> dict[str, int | None]:
        return {"digit": self.digit}  # every machine has the images; what was computed from them need not travel

    @property
    def points(self) -> Tensor:
        images, labels = _all()
        return images if self.digit is None else images[labels == self.digit]

    @property
    def labels(self) -> Tensor:
        """The digit that each of the `points` shows, ``[n]`` int64."""
        _, labels = _all()
        return labels if self.digit is None else labels[labels == self.digit]

    @property
    def dim(self) -> int:
        return SIDE**2  # who asks no more waits for no image

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, SIDE, SIDE

    @property
    def classes(self) -> int:
        return CLASSES if self.digit is None else 0

    def sample_labelled(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(self.points), (n,), generator=generator)
        return self.points[index], self.labels[index]

    def of_class(self, label: int) -> Digits:
        check_label(self, label)
        return Digits(label)

    @property
    def mode_weights(self) -> tuple[float, ...] | None:
        if self.digit is not None:
            return None
        counts = torch.bincount(self.labels, minlength=CLASSES)
        return tuple((counts.double() / len(self.points)).tolist())

    def mode_of(self, x: Tensor) -> Tensor:
        points, labels = self.points.to(x.device), self.labels.to(x.device)
        return torch.cat([labels[torch.cdist(part, points).argmin(1)] for part in x.split(_ROWS)])
