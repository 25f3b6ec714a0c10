"""Models made here and now: trained on a target or on points of one's own, or the exact answer of a
target.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from pydantic import ValidationError
from torch import Tensor

from diffusion.datasets.own import OwnPoints
from diffusion.devices import device_named, full_float32
from diffusion.errors import WrongValue
from diffusion.formulations import Exact, Formulation, Trained, Untrained
from diffusion.networks import Architecture, architectures
from diffusion.schedules import Schedule
from diffusion.training import train as train_together
from tasks.models import named
from tasks.models.named import Array, Named, Target
from tasks.models.of_cell import Model, exact_model, trained_model
from tasks.plan import Cell
from tasks.plan.warnings import end_warnings
from tasks.study.axes import read_training
from tasks.work.data import training_set
from tasks.work.stacks import member_of


def train(
    target: Target,
    formulation: Named | Formulation = "edm",
    *,
    schedule: Named | Schedule | None = None,
    labels: Array | None = None,
    seed: int = 0,
    steps: int = 3000,
    batch: int = 512,
    width: int = 128,
    depth: int = 3,
    learning_rate: float = 4e-3,
    ema: float = 0.03,
    data: int = 200_000,
    network: Named | Architecture = "mlp",
    progress: Callable[[int], None] = lambda _: None,
    device: str | torch.device = "cpu",
) -> Model:
    """Train one model, on a processor to the bit the one that a study trains for the same target,
    settings and seed.

    Args:
        target: the data; of a data set `data` draws make the training set, points of one's own are
            it.
        formulation: what is trained.
        schedule: on which; None: the formulation's own.
        labels: of points of one's own, ``[n]`` whole numbers, for formulations that take them.
        seed: of training set and training.
        steps: of Adam, with warm-up and cosine decay.
        batch: examples in each step.
        width: of the network's layers.
        depth: how many layers there are.
        learning_rate: the largest.
        ema: the share of the steps over which weights are averaged.
        data: draws of a data set.
        network: an architecture.
        progress: is called with the number of finished steps, some 64 times.
        device: where it is trained and stays: ``auto``, ``cpu``, ``cuda`` or a `torch.device`.

    Raises:
        WrongValue: parts that do not fit together, a setting out of range, or a training that
            diverged.

    Warns where the schedule does not end in noise for such data: samples then start from the wrong
    place.
    """
    own = named.dataset(target, labels=labels)
    chosen = named.formulation(formulation)
    if not isinstance(chosen, Trained):
        raise WrongValue(
            f"train: {chosen.registered_name!r} has no network; accepted: a formulation that has "
            f"(without one: da.exact(target, formulation={chosen.registered_name!r}))"
        )
    on = chosen.fitted(chosen.own_schedule() if schedule is None else named.schedule(schedule), own)
    sizes = {"steps": steps, "batch": batch, "width": width, "depth": depth, "data": data}
    rates = {"learning_rate": _number("learning_rate", learning_rate), "ema": _number("ema", ema)}
    place = device_named(device)
    architecture = named.component(architectures, Architecture, network)
    try:
        training = read_training({**sizes, **rates, "network": architecture})
    except ValidationError as error:
        raise named.refused(error, "train") from error
    cell = _possible(Cell(own, chosen, on, _whole(seed), training))
    for line in end_warnings([(own, on)]):
        warnings.warn(line, stacklevel=2)
    with full_float32(place):
        stack = train_together([member_of(cell)], [_data(cell)], training, lambda step, _: progress(step), place)
    if stack.errors[0]:
        raise WrongValue(stack.errors[0])
    return trained_model(cell, stack)


def exact(
    target: Target,
    schedule: Named | Schedule | None = None,
    *,
    formulation: Named | Formulation = "exact",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Model:
    """The ideal denoiser of a target as a model: of its noised points, or of what another formulation
    without a network says.

    Args:
        target: the data.
        schedule: the one that is sampled on unless another is named; None: the formulation's own,
            `edm` of the ideal denoiser.
        formulation: one that needs no training; ``{"name": "exact-between", "source": ...}`` starts
            from a mixture of normal distributions in the place of noise.
        seed: of its samples.
        device: where it is asked: ``auto``, ``cpu``, ``cuda`` or a `torch.device`.

    Raises:
        WrongValue: an unknown name, a formulation that has to be trained, a device that is not
            there, or a target whose denoiser is not known.
    """
    data, chosen = named.dataset(target), named.formulation(formulation)
    if not isinstance(chosen, Exact | Untrained):
        raise WrongValue(
            f"exact: {chosen.registered_name!r} has a network; accepted: a formulation without one (`train` trains one)"
        )
    on = chosen.fitted(chosen.own_schedule() if schedule is None else named.schedule(schedule), data)
    how = Exact(on) if isinstance(chosen, Exact) else chosen
    return exact_model(_possible(Cell(data, how, on, _whole(seed), None))).to(device)


def _number(name: str, value: object) -> float:
    """A whole number is a number, too; studies are strict because YAML spells them differently."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongValue(f"{name}: found {value!r}; accepted: a number")
    return float(value)


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


def _whole(seed: object) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise WrongValue(f"seed: found {seed!r}; accepted: a whole number, 0 or above")
    return seed


def _data(cell: Cell) -> Tensor:
    """What the cell learns from, labels as a last column where the formulation asks for them."""
    own = cell.dataset.law
    if not isinstance(own, OwnPoints):
        return torch.as_tensor(training_set(cell).copy())
    points, labels, frame = own.points, own.labels, cell.dataset.frame
    points = points if frame is None else frame.into(points)
    labelled = isinstance(cell.formulation, Trained) and cell.formulation.labelled
    return torch.cat([points, labels[:, None].double()], 1) if labelled and labels is not None else points
