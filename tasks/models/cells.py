"""From a stored description to the cell that it describes."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import ValidationError

from diffusion.datasets import Dataset, datasets
from diffusion.formulations import Exact, Formulation, formulations
from diffusion.schedules import Schedule, schedules
from diffusion.training import Training
from tasks.models.needed import NOWHERE, CannotBeMade, Places, with_data
from tasks.plain import Spec
from tasks.plan import Cell
from tasks.study.components import build, complaints_of, construct
from tasks.study.identity import parameters_of


def cell_of(spec: Spec, known: Sequence[Dataset] = (), places: Places = NOWHERE) -> Cell:
    """The cell that a canonical spec describes, with the versions of the present code.

    Args:
        spec: the description; of points in files it has digests.
        known: data sets that may be among those described by a digest.
        places: where points of files have been.

    Raises:
        CannotBeMade: a name or a parameter that the present code does not know, or points of a file
            that are in none of its places.
    """
    try:
        schedule = build(schedules, parameters_of(spec["schedule"]))
        data = with_data(parameters_of(spec["dataset"]), known, places)
        dataset = data if isinstance(data, Dataset) else build(datasets, data)
        formulation = _formulation(spec["formulation"], schedule, known, places)
        training = construct(Training, parameters_of(spec["training"])) if spec["training"] else None
    except CannotBeMade:
        raise
    except ValidationError as error:
        reasons = [f"{'.'.join(map(str, c.path))}: {c.text}" if c.path else c.text for c in complaints_of(error)]
        raise CannotBeMade(f"{json.dumps(spec)}: {'; '.join(reasons)}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise CannotBeMade(f"{json.dumps(spec)}: {error}") from error
    return Cell(dataset, formulation, schedule, int(spec["seed"]), training)


def _formulation(spec: Spec, schedule: Schedule, known: Sequence[Dataset], places: Places) -> Formulation:
    if spec["name"] == Exact.registered_name:
        return Exact(schedule)
    return build(formulations, with_data(parameters_of(spec), known, places))
