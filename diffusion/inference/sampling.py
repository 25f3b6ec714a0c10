"""From start noise to samples: the states that a sampler goes through, for a stack of models that
are asked the same.

Streams of random numbers are named by what is sampled (`Subject.stream`) and the seed alone, so
that whatever is compared, formulation, schedule or sampler, starts from the same noise and is
driven by the same path. A sample does not change when more are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.devices import HOST, device_of, to_device
from diffusion.errors import WrongValue
from diffusion.formulations import Formulation
from diffusion.guidance import Guidance, Guided
from diffusion.models import Denoiser, phrase_of
from diffusion.randomness import stream
from diffusion.registry import identity_text
from diffusion.samplers import Level, NoiseStreams, OwnStart, Sampler, SamplingStart, levels_of
from diffusion.schedules import Schedule
from diffusion.schedules.grids import Grid
from diffusion.schedules.levels import levels_on

_BLOCK = 1024  # draws of a start's law from one stream


@dataclass(frozen=True)
class Question:
    """What is asked of every member of a stack.

    `start` lays out the start noise: drawn (``random``), or on the line the normal quantiles of (i
    + 1/2) / n (``quantiles``).
    """

    sampler: Sampler
    steps: int
    samples: int
    start: str = "random"
    guidance: Guidance | None = None


@dataclass(frozen=True)
class Subject:
    """One member of a stack: what it knows, where it is sampled, and what its random streams are
    named by.
    """

    dataset: Dataset
    formulation: Formulation
    schedule: Schedule
    grid: Grid
    stream: str
    seed: int


def levels_for(question: Question, subjects: Sequence[Subject]) -> list[Level]:
    """The N + 1 levels of the stack, noisiest first."""
    return levels_of([one.schedule for one in subjects], [one.grid for one in subjects], question.steps)


def states(
    model: object,
    question: Question,
    subjects: Sequence[Subject],
    levels: Sequence[Level],
    device: torch.device | None = None,
) -> Iterator[Tensor]:
    """The state ``[members, samples, dim]`` at each level of the sampler's path, from start noise
    to samples; on the model's device, or on the one that is named for a model that is anywhere.

    Raises:
        TypeError: the model, or a guided one, is not what the sampler needs.
        WrongValue: the sampler gives something else than states of this shape.
    """
    sampler = question.sampler
    guided_model = guided(model, question, subjects)
    if not isinstance(guided_model, sampler.needs):
        name = sampler.registered_name
        raise TypeError(
            f"sampler {name!r} asks a model for {phrase_of(sampler.needs)}, and {type(guided_model).__name__} gives none"
        )
    expected = (len(subjects), question.samples, subjects[0].dataset.dim)
    place = device or device_of(model)
    x = _checked(_start(question, subjects, levels, place), expected, sampler)
    yield x
    noise = noise_streams(question, subjects, "noise", place)
    path = levels_on(sampler.path(levels), place)
    # most samplers need a denoiser, and say so in their types; one that needs something else looks
    # again
    for state in sampler.trajectory(cast("Denoiser", guided_model), x, path, noise):
        yield _checked(state, expected, sampler)


def _checked(state: object, expected: tuple[int, ...], sampler: Sampler) -> Tensor:
    """What a sampler of anybody's makes, if it is a tensor of the right shape."""
    if isinstance(state, Tensor) and state.shape == expected:
        return state
    found = f"samples of shape {list(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
    raise WrongValue(f"sampler {sampler.registered_name!r} gave {found}, expected {list(expected)}")


def start_noise(question: Question, subjects: Sequence[Subject]) -> Tensor:
    """Standard start noise ``[members, samples, dim]``: of what is sampled and seed alone, or the
    normal quantiles.
    """
    n, dim = question.samples, subjects[0].dataset.dim
    if question.start == "quantiles":
        u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        quantiles: Tensor = torch.special.ndtri(u)[None, :, None]
        return quantiles.expand(len(subjects), n, dim).clone()
    return noise_streams(question, subjects, "start").fresh()


def guided(model: object, question: Question, subjects: Sequence[Subject]) -> object:
    """The model as the question's guidance has it.

    Raises:
        TypeError: there is guidance, and the model is no denoiser that it could steer.
    """
    if question.guidance is None:
        return model
    if not isinstance(model, Denoiser):
        raise TypeError(f"guidance steers a denoiser, and {type(model).__name__} is none")
    return Guided(question.guidance, model, tuple(one.dataset for one in subjects))


def clean_data(subject: Subject, samples: int) -> Tensor:
    """Data that are no part of any training set, ``[samples, dim]``: of what is sampled and seed
    alone.
    """
    return subject.dataset.sample(samples, stream("clean", subject.stream, subject.seed))


def start_draws(law: Dataset, question: Question, subject: Subject) -> Tensor:
    """Draws ``[samples, dim]`` of a law that samples start from: of what is sampled, the law and the
    seed alone, block by block, so that more of them leave the first ones what they were.

    Raises:
        WrongValue: quantiles are asked for, and the law has none.
    """
    n = question.samples
    if question.start == "quantiles":
        if not law.has_cdf:
            raise WrongValue(f"start: quantiles, which the source {law.label()!r} does not have; accepted: random")
        return law.quantile((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]
    names = ("start", identity_text(law), subject.stream, subject.seed)
    blocks = [law.sample(_BLOCK, stream(*names, k)) for k in range(-(-n // _BLOCK))]
    return torch.cat(blocks)[:n]


def noise_streams(
    question: Question, subjects: Sequence[Subject], purpose: str, device: torch.device = HOST
) -> NoiseStreams:
    """The numbers of one purpose (``start``, ``noise``): subjects of one stream and seed see the
    same.
    """
    keys = [(purpose, one.stream, one.seed) for one in subjects]
    return NoiseStreams(keys, question.samples, subjects[0].dataset.dim, device)


def _start(question: Question, subjects: Sequence[Subject], levels: Sequence[Level], device: torch.device) -> Tensor:
    """The first states ``[members, samples, dim]``: where the sampler says, or the formulation, or
    the schedule's noise.
    """
    start = SamplingStart(
        to_device(start_noise(question, subjects), device),
        to_device(_spread(subjects, levels[0]), device),
        levels_on(levels, device),
        tuple(one.dataset for one in subjects),
        lambda: to_device(torch.stack([clean_data(one, question.samples) for one in subjects]), device),
        lambda law, m: to_device(start_draws(law, question, subjects[m]), device),
    )
    sampler = question.sampler
    own = sampler.start(start) if isinstance(sampler, OwnStart) else None
    if own is not None:
        return own
    x = start.noise * start.spread[:, None, None]
    for m, one in enumerate(subjects):
        own = one.formulation.start(start.of_member(m))
        if own is not None:
            x[m] = own
    return x


def _spread(subjects: Sequence[Subject], first: Level) -> Tensor:
    """Standard deviation of each member's start noise: that of the grid's first level, or 1 if
    variance is preserved.
    """
    kept = torch.tensor([one.schedule.variance_preserving for one in subjects])
    return torch.where(kept, torch.ones_like(first.sigma), first.sigma)
