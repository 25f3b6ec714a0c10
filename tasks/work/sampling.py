"""Points of a study as the questions that `diffusion.inference` answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffusion import inference
from diffusion.inference import Question, Subject
from diffusion.samplers import Level
from tasks.plan import Point
from tasks.work.data import stream_name


def states(
    points: Sequence[Point], model: object, levels: Sequence[Level], place: torch.device | None = None
) -> Iterator[Tensor]:
    """The state ``[members, samples, dim]`` at each level, from start noise to samples, of points
    that ask the same, in the data's own units; on the model's device, or on the one that is named.
    """
    found = inference.states(model, question_of(points), subjects_of(points), levels, place)
    return (in_own_units(points, x) for x in found)


def in_own_units(points: Sequence[Point], x: Tensor) -> Tensor:
    """States ``[members, samples, dim]`` in a model's coordinates, as they are in the data's own."""
    frames = [point.cell.dataset.frame for point in points]
    if not any(frames):
        return x
    return torch.stack([one if frame is None else frame.back(one) for one, frame in zip(x, frames, strict=True)])


def start_noise(points: Sequence[Point]) -> Tensor:
    """Standard start noise ``[members, samples, dim]``: of data set and seed alone, or the normal
    quantiles.
    """
    return inference.start_noise(question_of(points), subjects_of(points))


def guided(points: Sequence[Point], model: object) -> object:
    """The model as the guidance of these points, which is one and the same, has it."""
    return inference.guided(model, question_of(points), subjects_of(points))


def clean_data(point: Point) -> Tensor:
    """Data that are no part of any training set, ``[samples, dim]``, in their own units: of data set
    and seed alone.
    """
    return in_own_units([point], inference.clean_data(subjects_of([point])[0], point.samples)[None])[0]


def question_of(points: Sequence[Point]) -> Question:
    """What all of these points ask."""
    first = points[0]
    return Question(first.sampler, first.steps, first.samples, first.start, first.guidance)


def subjects_of(points: Sequence[Point]) -> list[Subject]:
    """Whom they ask."""
    return [
        Subject(
            point.cell.dataset.working,
            point.cell.formulation,
            point.schedule,
            point.grid,
            stream_name(point.cell.dataset),
            point.cell.seed,
        )
        for point in points
    ]
