"""Networks that somebody has: what a study's `given` names."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from diffusion.datasets import EightGaussians, GaussianMixture
from diffusion.schedules import DDPMLinear, Schedule, VPLinear

LAW = GaussianMixture((0.3, 0.7), (-1.0, 1.0), (0.5, 0.4))


def _parts(x: Tensor, t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor, Tensor]:
    """The ideal denoiser, alpha and sigma."""
    t = t.double()
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return LAW.denoise(x.double(), alpha, sigma), alpha[:, None], sigma[:, None]


class Exact(torch.nn.Module):
    """The ideal network of `LAW`, if its scale is 1."""

    def __init__(self, predicts: str, schedule: Schedule, shift: int = 0) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.predicts, self.schedule, self.shift = predicts, schedule, shift

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        d, alpha, sigma = _parts(x, t + self.shift, self.schedule)
        noise = (x - alpha * d) / sigma
        found = {
            "x0": d,
            "epsilon": noise,
            "score": -noise / sigma,
            "v": alpha * noise - sigma * d,
            "flow-velocity": noise - d,
        }[self.predicts]
        return self.scale * found


def x0() -> Exact:
    return Exact("x0", VPLinear())


def epsilon() -> Exact:
    return Exact("epsilon", VPLinear())


def score() -> Exact:
    return Exact("score", VPLinear())


def v() -> Exact:
    return Exact("v", VPLinear())


def velocity() -> Exact:
    return Exact("flow-velocity", VPLinear())


def silent() -> object:
    """As a network whose last layer starts at zero."""
    return lambda x, t: 0 * x  # noqa: ARG005


class Untrained(torch.nn.Module):
    """As it was drawn."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layers = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.SiLU(), torch.nn.Linear(32, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        found: Tensor = self.layers(torch.cat([x, t[:, None]], 1))
        return found


def untrained() -> Untrained:
    return Untrained()


def counted() -> Exact:
    """Told the number of a chain's level from 0 on."""
    return Exact("epsilon", DDPMLinear(levels=100), shift=1)


def plane() -> object:
    """The ideal noise of `eight_gaussians` on `vp-linear`."""
    return _noise_in_the_plane


def _noise_in_the_plane(x: Tensor, t: Tensor) -> Tensor:
    alpha, sigma = VPLinear().alpha(t.double()), VPLinear().sigma(t.double())
    d = EightGaussians().denoise(x.double(), alpha, sigma)
    return (x.double() - alpha[:, None] * d) / sigma[:, None]


def short() -> object:
    """Forgets an axis."""
    return lambda x, t: x[:, 0]  # noqa: ARG005


def raising() -> object:
    raise RuntimeError("no such luck")


def lonely() -> object:
    """Takes no time."""
    return lambda x: x


class Extra(Exact):
    """Has more to remember than tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"trained": 3}


def extra() -> Exact:
    return Extra("epsilon", VPLinear())


def closed() -> object:
    network = epsilon()
    return lambda x, t: -network(x, t)


def bound() -> object:
    return epsilon().forward


def partly() -> object:
    return functools.partial(_asked, {"ema": [epsilon()]})


def _asked(networks: dict[str, list[Exact]], x: Tensor, t: Tensor) -> Tensor:
    found: Tensor = networks["ema"][0](x, t)
    return found


class Holder:
    """A class of somebody's own that is called."""

    def __init__(self) -> None:
        self.network = epsilon()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        found: Tensor = self.network(x, t)
        return found


def held() -> object:
    return Holder()


def named() -> object:
    return lambda x, t: -NETWORK(x, t)


NETWORK = epsilon()
NUMBER = 3


def unshaped() -> object:
    """A denoiser that takes one level for all points, as a function from Python may."""
    return lambda x, sigma: x / (1 + sigma**2)
