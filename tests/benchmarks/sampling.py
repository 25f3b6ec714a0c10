"""How fast a stack is sampled: per sample, beside the samplers of azula and diffusers with the same
network for one model.

Theirs is asked with a module of three hidden layers of the same width, in float32 and one call a
step for all samples; ours with a stack of eight trained models. What is timed is the processor's
time for a sample of one model, 20 steps of the same rule: DDIM and, with azula, Euler's and Heun's.

``python -m tests.benchmarks.run --only sampling`` prints the table.
"""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.datasets import Uniform
from diffusion.formulations import ElucidatedDM
from diffusion.inference import Question, Subject, levels_for, states
from diffusion.networks import features
from diffusion.randomness import stream
from diffusion.samplers import DDIM, Euler, Heun, Sampler
from diffusion.schedules.grids import grids
from diffusion.training import Member, Training, train
from tests.benchmarks.pairs import Ratio, paired
from tests.benchmarks.training import Perceptron

MEMBERS = 8
SAMPLES = 10_000
STEPS = 20
WIDTH = 128
BLOCKS = (125, 250, 500, 1000, 2000)
"""Samples of a member at once; they divide `SAMPLES`."""


@functools.cache
def _stack() -> Any:
    edm = ElucidatedDM()
    named = [Member(Uniform(), edm, edm.own_schedule(), f"member {i}") for i in range(MEMBERS)]
    return train(named, [Uniform().sample(1000, stream("data"))] * MEMBERS, Training(steps=1, width=WIDTH, depth=3))


def ours(sampler: Sampler) -> None:
    """All members of the stack, from start noise to samples."""
    edm = ElucidatedDM()
    schedule = edm.own_schedule()
    question = Question(sampler, STEPS, SAMPLES)
    subjects = [Subject(Uniform(), edm, schedule, grids.create("edm"), "bench", m) for m in range(MEMBERS)]
    for _ in states(_stack().denoiser, question, subjects, levels_for(question, subjects)):
        pass


def azula(name: str) -> None:
    """One model, as one would ask it alone."""
    from azula import sample
    from azula.denoise import KarrasDenoiser
    from azula.noise import VESchedule

    denoiser = KarrasDenoiser(_ForOneTime(_perceptron()), VESchedule(0.002, 80.0))
    sampler = getattr(sample, name)(denoiser, steps=STEPS, silent=True)
    sampler(_noise())


def diffusers() -> None:
    """One model, as one would ask it alone."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(STEPS)
    network, x = _perceptron(), _noise()
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, (t / 500 - 1).expand(len(x))), t, x).prev_sample


class _ForOneTime(nn.Module):
    """Told one label for all points, as azula's samplers tell it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        found: Tensor = self.network(x, c_noise.expand(len(x)))
        return found


@functools.cache
def _perceptron() -> Perceptron:
    return Perceptron(WIDTH)


@functools.cache
def _noise() -> Tensor:
    return torch.randn(SAMPLES, 1)


def against(library: str, theirs: Callable[[], None], sampler: Sampler) -> Ratio | None:
    """Processor time of a sample of theirs over one of ours; None where the library is not there."""
    if importlib.util.find_spec(library) is None:
        return None
    middle, low, high = paired(theirs, lambda: ours(sampler), rounds=3, now=time.process_time)
    return MEMBERS * middle, MEMBERS * low, MEMBERS * high


def evaluations(count: int, rows: int) -> None:
    """The network alone, so many times at every sample of all members, so many samples of each at
    once.
    """
    network, parameters = _stack().network, _stack().rows
    c, z = features(torch.rand(MEMBERS, 1)), torch.randn(MEMBERS, rows, 1)
    with torch.inference_mode():
        for _ in range(count * SAMPLES // rows):
            network(parameters, z, c)


def beside_evaluations(sampler: Sampler) -> Ratio:
    """Processor time of sampling over that of its evaluations of the network, in blocks of the size
    that serves them best.
    """
    count = sampler.evaluations(STEPS)
    best = min(BLOCKS, key=lambda rows: _seconds(partial(evaluations, 2, rows)))
    return paired(partial(ours, sampler), partial(evaluations, count, best), rounds=3, now=time.process_time)


def _seconds(work: Callable[[], None]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


_WHAT = f"({MEMBERS} members, width {WIDTH}, {STEPS} steps)"
MEASURES: tuple[tuple[str, Callable[[], Ratio | None]], ...] = (
    (
        f"sampling: DDIM of azula / one of ours {_WHAT}",
        lambda: against("azula", lambda: azula("DDIMSampler"), DDIM()),
    ),
    (
        f"sampling: Euler of azula / one of ours {_WHAT}",
        lambda: against("azula", lambda: azula("EulerSampler"), Euler()),
    ),
    (
        f"sampling: Heun of azula / one of ours {_WHAT}",
        lambda: against("azula", lambda: azula("HeunSampler"), Heun()),
    ),
    *(
        (f"sampling: {type(one).__name__} / its evaluations of the network {_WHAT}", partial(beside_evaluations, one))
        for one in (Euler(), Heun(), DDIM())
    ),
    (f"sampling: DDIM of diffusers / one of ours {_WHAT}", lambda: against("diffusers", diffusers, DDIM())),
)
"""Lines for the table of `tests.benchmarks.run`."""
