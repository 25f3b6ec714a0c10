r"""A small classifier of handwritten digits: the eyes of the image metrics.

Two convolutions, a mean over 2 x 2 pixels, a layer of 32 units (the *features* that laws of images
are compared in) and ten logits, all with silu. It is trained by `train_classifier`, in seconds,
from one fixed stream and in float64, so that the same weights come out on every machine but for
rounding; those that the package ships beside this file (``digits_classifier.safetensors``) are its
result in float32. Every fifth image is held out.

Run ``python -m tasks.data.digits_classifier`` to train it again and write the file.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, cross_entropy, pad, silu

from diffusion.randomness import stream

FEATURES = 32
WEIGHTS = Path(__file__).with_name("digits_classifier.safetensors")
_SIDE = 8
_CHANNELS = (16, 32)
_EPOCHS, _BATCH, _RATE = 30, 96, 4e-3
_BLUR = 0.2  # standard deviation of the noise that is added in training
_SHIFTED = 0.5  # share of images that are moved by up to one pixel
_ROWS = 512  # images looked at together
_GREYS = 16  # steps between black and white

_SHAPES: dict[str, tuple[int, ...]] = {
    "first.weight": (_CHANNELS[0], 1, 3, 3),
    "first.bias": (_CHANNELS[0],),
    "second.weight": (_CHANNELS[1], _CHANNELS[0], 3, 3),
    "second.bias": (_CHANNELS[1],),
    "features.weight": (FEATURES, _CHANNELS[1] * (_SIDE // 2) ** 2),
    "features.bias": (FEATURES,),
    "logits.weight": (10, FEATURES),
    "logits.bias": (10,),
}


class Seen(NamedTuple):
    """What the classifier makes of images: features ``[n, 32]`` and logits ``[n, 10]``, float64."""

    features: Tensor
    logits: Tensor


def look(weights: dict[str, Tensor], x: Tensor) -> Seen:
    """The classifier's answer to images ``[n, 64]`` with pixels in [-1, 1], differentiable in both."""
    h = x.reshape(-1, 1, _SIDE, _SIDE)
    h = silu(conv2d(h, weights["first.weight"], weights["first.bias"], padding=1))
    h = silu(conv2d(h, weights["second.weight"], weights["second.bias"], padding=1))
    h = avg_pool2d(h, 2).flatten(1)
    features = silu(torch.addmm(weights["features.bias"], h, weights["features.weight"].T))
    return Seen(features, torch.addmm(weights["logits.bias"], features, weights["logits.weight"].T))


@cache
def stored_classifier() -> dict[str, Tensor]:
    """The weights that the package ships, as float64."""
    return {name: value.double() for name, value in load_file(WEIGHTS).items()}


def seen(x: Tensor) -> Seen:
    """What the shipped classifier makes of samples ``[n, 64]``, taken as images: see `as_images`."""
    with torch.no_grad():
        parts = [look(stored_classifier(), part) for part in as_images(x).split(_ROWS)]
    return Seen(torch.cat([part.features for part in parts]), torch.cat([part.logits for part in parts]))


def as_images(x: Tensor) -> Tensor:
    """Samples as they can be shown: pixels within [-1, 1], in the 17 grey levels that the data
    have.
    """
    return (x.clamp(-1, 1) * (_GREYS / 2)).round() / (_GREYS / 2)


def held_out(n: int) -> Tensor:
    """Which of the data the classifier has never seen, ``[n]`` bool: every fifth."""
    return torch.arange(n) % 5 == 4


def train_classifier(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Weights from images ``[n, 64]`` float64 and labels ``[n]``; those of `held_out` are not
    looked at.

    AdamW with 1 % decay of the weights, cosine learning rate, cross entropy; half of the images of
    a batch are moved by up to one pixel, and all get noise, so that features speak of shapes rather
    than of single pixels.
    """
    generator = stream("digits classifier")
    weights = {name: _initial(shape, generator).requires_grad_() for name, shape in _SHAPES.items()}
    optimiser = torch.optim.AdamW(weights.values(), lr=_RATE, weight_decay=1e-2)
    images, labels = images[~held_out(len(images))], labels[~held_out(len(labels))]
    batches = len(images) // _BATCH
    for epoch in range(_EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for i in range(batches):
            chosen = order[i * _BATCH : (i + 1) * _BATCH]
            x = _moved(images[chosen], generator)
            x = x + _BLUR * torch.randn(x.shape, generator=generator, dtype=torch.float64)
            loss = cross_entropy(look(weights, x).logits, labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            step = epoch * batches + i
            warm_up = min(1.0, (step + 1) / 20)
            optimiser.param_groups[0]["lr"] = (
                _RATE * warm_up * 0.5 * (1 + math.cos(math.pi * step / (_EPOCHS * batches)))
            )
            optimiser.step()
    return {name: value.detach() for name, value in weights.items()}


def accuracy(weights: dict[str, Tensor], images: Tensor, labels: Tensor) -> float:
    """Share of images that are classified as they are labelled."""
    with torch.no_grad():
        return float((look(weights, images).logits.argmax(1) == labels).double().mean())


def _initial(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if len(shape) == 1:
        return torch.zeros(shape, dtype=torch.float64)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(2 / math.prod(shape[1:]))


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Some of the images, moved by one pixel up or down and left or right."""
    by = torch.randint(0, 3, (len(x), 2), generator=generator)
    stay = torch.rand(len(x), generator=generator) >= _SHIFTED
    by[stay] = 1
    wide = pad(x.reshape(-1, _SIDE, _SIDE), (1, 1, 1, 1), value=-1.0)
    at = torch.arange(_SIDE)
    rows, columns = (by[:, :1] + at)[:, :, None], (by[:, 1:] + at)[:, None, :]
    return wide[torch.arange(len(x))[:, None, None], rows, columns].reshape(len(x), -1)


def _main() -> None:
    from tasks.data.digits import Digits

    images, labels = Digits().points, Digits().labels
    weights = train_classifier(images, labels)
    save_file({name: value.float().contiguous() for name, value in weights.items()}, WEIGHTS)


if __name__ == "__main__":
    _main()
