"""One denoiser, and the hash that names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property

from diffusion.caches import remembered
from diffusion.datasets import Dataset
from diffusion.formulations import Exact, Formulation, Given, Trained
from diffusion.schedules import Schedule
from diffusion.training import Training
from tasks.plain import Plain, Spec

ENGINE_VERSION = 2

"""Part of every id: raised when the training loop or the sampling loop changes the numbers it
gives.
"""


def canonical(value: object) -> str:
    """The one text of plain values: JSON with sorted keys."""
    return json.dumps(without_signed_zeros(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """Content hash of plain values, 20 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:20]


def without_signed_zeros(value: object) -> Plain:
    """The same plain values with 0.0 for -0.0, which JSON spells differently."""
    match value:
        case dict():
            return {key: without_signed_zeros(inner) for key, inner in value.items()}
        case list() | tuple():
            return [without_signed_zeros(inner) for inner in value]
        case float():
            return value + 0.0
        case _:
            return value


@dataclass(frozen=True)
class Cell:
    """One denoiser; `training` is None for the exact one."""

    dataset: Dataset
    formulation: Formulation
    schedule: Schedule
    seed: int
    training: Training | None

    @cached_property
    def spec(self) -> Spec:
        """The canonical description that the id hashes."""
        objective = self.formulation.objective.version if isinstance(self.formulation, Trained) else 1
        return {
            "engine": ENGINE_VERSION,
            "dataset": self.dataset.identity(),
            "formulation": self.formulation.identity(),
            "schedule": self.schedule.identity(),
            "seed": self.seed,
            "training": self.training.identity(self.dataset.dim) if self.training else None,
            **({"objective": objective} if objective > 1 else {}),
        }

    @cached_property
    def id(self) -> str:
        """Content hash of the spec, 20 hexadecimal digits."""
        return digest(self.spec)

    @property
    def exact(self) -> bool:
        """Whether its model is the ideal one, without a network."""
        return isinstance(self.formulation, Exact)

    def of_seed(self, seed: int) -> Cell:
        """The same of another seed. What their specs share is described once."""
        other = replace(self, seed=seed)
        other.__dict__["spec"] = {**self.spec, "seed": seed}  # as `cached_property` keeps it
        return other

    def impossible(self) -> str | None:
        """Why there can be no such model, or None."""
        return _impossible(self.formulation, self.dataset, self.schedule, self.training)

    @property
    def labels(self) -> dict[str, str]:
        """Short texts for the axes that the cell lies on."""
        return {
            "dataset": self.dataset.label(),
            "formulation": self.formulation.label(),
            "schedule": self.schedule.label(),
        }

    def __str__(self) -> str:
        labels = self.labels
        return f"{labels['dataset']} {labels['formulation']} on {labels['schedule']}, seed {self.seed}"


def _in_own_units(formulation: Formulation) -> str | None:
    """What it does with a data set that is as it is, or None."""
    if formulation.start_distribution is not None:
        return "starts from a data set"
    return "was trained on a data set" if isinstance(formulation, Given) else None


@remembered(4096)
def _impossible(
    formulation: Formulation, dataset: Dataset, schedule: Schedule, training: Training | None
) -> str | None:
    """The same for all seeds."""
    reason = formulation.refuses(schedule) or formulation.refuses_dataset(dataset.working)
    if dataset.frame is not None and (knows := _in_own_units(formulation)) is not None:
        reason = (
            f"{formulation.registered_name!r} {knows} in its own units, and models of {dataset.label()!r} "
            "see others (name the data set itself, not standardised)"
        )
    if reason is None and training and isinstance(formulation, Trained):
        reason = formulation.refuses_network(dataset.working, training)
    return reason
