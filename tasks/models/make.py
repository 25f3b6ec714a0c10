"""Models made here and now: trained on a target or on points of one's own, or the exact answer of a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.datasets.own import OwnPoints
from diffusion.errors import WrongValue
from diffusion.formulations import Exact, Formulation, Trained, formulations
from diffusion.schedules import Schedule, schedules
from diffusion.training import train as train_together
from tasks.models.model import Model, exact_model
from tasks.models.named import component, refused, target_of
from tasks.plan import Cell
from tasks.study.axes import read_training
from tasks.work.data import training_set
from tasks.work.stacks import member_of


def train(
    target: object,
    formulation: object = "edm",
    *,
    schedule: object = None,
    labels: object = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
    **settings: Any,
) -> Model:
    """Train one model, to the bit the one that a study trains for the same target, settings and seed.

    Args:
        target: a data set by name or object, of which a training set is drawn; or points ``[n, dim]``.
        formulation: what is trained, by name or object.
        schedule: on which schedule; None: the formulation's own.
        labels: of points of one's own ``[n]``, for formulations that are told them.
        seed: of training set and training.
        progress: is told the number of finished steps, some 64 times.
        **settings: those of `diffusion.training.Training`.

    Raises:
        WrongValue: an unknown name, parts that do not fit together, a setting out of range, or a
            training that diverged.
    """
    dataset = target_of(target, labels)
    chosen = component(formulations, Formulation, formulation)
    if not isinstance(chosen, Trained):
        raise WrongValue(
            f"train: formulation {chosen.registered_name!r} has no network; accepted: one that has (exact: da.exact)"
        )
    on = _schedule(schedule, chosen, dataset)
    try:
        training = read_training(settings)
    except ValidationError as error:
        raise refused(error, "train") from error
    cell = _possible(Cell(dataset, chosen, on, _whole(seed), training))
    stack = train_together([member_of(cell)], [_data(cell)], training, progress)
    if stack.errors[0]:
        raise WrongValue(stack.errors[0])
    return Model.of(cell, stack)


def exact(target: object, schedule: object = "edm", *, seed: int = 0) -> Model:
    """The ideal denoiser of a target as a model, sampled on a schedule.

    Raises:
        WrongValue: an unknown name, or a target whose denoiser is not known.
    """
    dataset = target_of(target)
    on = component(schedules, Schedule, schedule).fitted(dataset)
    return exact_model(_possible(Cell(dataset, Exact(on), on, _whole(seed), None)))


def _schedule(given: object, formulation: Formulation, dataset: Dataset) -> Schedule:
    own = formulation.own_schedule() if given is None else component(schedules, Schedule, given)
    return own.fitted(dataset)


def _possible(cell: Cell) -> Cell:
    """The cell, if there can be such a model and it can be named."""
    reason = cell.impossible()
    if reason:
        raise WrongValue(reason)
    try:
        _ = cell.id
    except ValueError as error:
        raise WrongValue(str(error)) from error
    return cell


def _whole(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise WrongValue(f"seed: found {seed!r}; accepted: a whole number, 0 or above")
    return seed


def _data(cell: Cell) -> Tensor:
    """What the cell learns from, labels as a last column where the formulation asks for them."""
    if not isinstance(cell.dataset, OwnPoints):
        return torch.as_tensor(training_set(cell).copy())
    points, labels = cell.dataset.points, cell.dataset.labels
    told = isinstance(cell.formulation, Trained) and cell.formulation.labelled
    return torch.cat([points, labels[:, None].double()], 1) if told and labels is not None else points
