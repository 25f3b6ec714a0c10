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
    that ask the same; on the model's device, or on the one that is named.
    """
    return inference.states(model, question_of(points), subjects_of(points), levels, place)


def start_noise(points: Sequence[Point]) -> Tensor:
    """Standard start noise ``[members, samples, dim]``: of data set and seed alone, or the normal
    quantiles.
    """
    return inference.start_noise(question_of(points), subjects_of(points))


def guided(points: Sequence[Point], model: object) -> object:
    """The model as the guidance of these points, which is one and the same, has it."""
    return inference.guided(model, question_of(points), subjects_of(points))


def clean_data(point: Point) -> Tensor:
    """Data that are no part of any training set, ``[samples, dim]``: of data set and seed alone."""
    return inference.clean_data(subjects_of([point])[0], point.samples)


def question_of(points: Sequence[Point]) -> Question:
    """What all of these points ask."""
    first = points[0]
    return Question(first.sampler, first.steps, first.samples, first.start, first.guidance)


def subjects_of(points: Sequence[Point]) -> list[Subject]:
    """Whom they ask."""
    return [
        Subject(
            point.cell.dataset,
            point.cell.formulation,
            point.schedule,
            point.grid,
            stream_name(point.cell.dataset),
            point.cell.seed,
        )
        for point in points
    ]
