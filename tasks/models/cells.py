"""From a stored description to the cell that it describes."""

from __future__ import annotations

import json

from diffusion.datasets import Dataset, Standardised, datasets
from diffusion.datasets.own import OwnPoints
from diffusion.errors import Unavailable
from diffusion.formulations import Exact, formulations
from diffusion.schedules import schedules
from diffusion.training import Training
from tasks.plain import Spec
from tasks.plan import Cell
from tasks.study.components import build, construct
from tasks.study.identity import parameters_of


class CannotBeMade(Unavailable, ValueError):
    """A stored cell that this version of the code does not make; the message says which one would."""

    kind = "cannot-be-made"


def cell_of(spec: Spec) -> Cell:
    """The cell that a canonical spec describes, with the versions of the present code.

    Raises:
        CannotBeMade: a name or a parameter that the present code does not know.
    """
    try:
        schedule = build(schedules, parameters_of(spec["schedule"]))
        exact = spec["formulation"]["name"] == "exact"
        formulation = Exact(schedule) if exact else build(formulations, parameters_of(spec["formulation"]))
        data = parameters_of(spec["dataset"])
        dataset = _target(data)
        training = construct(Training, parameters_of(spec["training"])) if spec["training"] else None
    except (LookupError, TypeError, ValueError) as error:
        raise CannotBeMade(f"{json.dumps(spec)}: {error}") from error
    return Cell(dataset, formulation, schedule, int(spec["seed"]), training)


def _target(spec: Spec) -> Dataset:
    """The data set, or the place of points that are not here."""
    if spec["name"] == OwnPoints.registered_name:
        stds = spec.get("stds")
        found = spec["digest"], tuple(spec["means"]), spec["sigma_data"], spec["classes"]
        return OwnPoints(*found, None if stds is None else tuple(stds))
    of = spec.get("of")
    if spec["name"] == Standardised.registered_name and of and of["name"] == OwnPoints.registered_name:
        return Standardised(_target(of), spec["each"])
    return build(datasets, spec)
