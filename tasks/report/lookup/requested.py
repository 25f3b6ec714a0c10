"""What every row asked, from the specs that the store keeps: components, and never their labels.

A store may hold answers about components that this installation cannot make (a plug-in, an older
version). They have their name all the same, and the page does without the rest of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from diffusion.datasets import Dataset, datasets
from diffusion.formulations import Exact, Formulation, formulations
from diffusion.guidance import Guidance, guidances
from diffusion.registry import Component, Registry
from diffusion.samplers import Sampler, samplers
from diffusion.schedules import Schedule, schedules
from diffusion.schedules.grids import Grid, grids
from tasks.plain import Plain, Spec
from tasks.study.components import build
from tasks.study.identity import parameters_of

if TYPE_CHECKING:
    from tasks.results import Answers

C = TypeVar("C", bound=Component)
C_co = TypeVar("C_co", bound=Component, covariant=True)
EXACT = "exact"
_LEFT_OUT = "none of its points was asked of a model"


@dataclass(frozen=True)
class Described(Generic[C_co]):
    """A component as the store describes it.

    Args:
        name: The registered name, or the address of a class of somebody's own; empty where the
            store has no description.
        component: The component; None where this installation cannot make it.
        missing: Why it cannot; empty if it can.
    """

    name: str
    component: C_co | None
    missing: str = ""

    @property
    def plain(self) -> bool:
        """Whether all its parameters are the defaults."""
        return self.component is not None and not self.component.differences()


@dataclass(frozen=True)
class Requested:
    """What one point asks of which model.

    Args:
        dataset: The data set of the model.
        formulation: What it was trained by, or ``exact``.
        schedule: The schedule that it was trained on.
        sampler: The sampler that asks it.
        grid: The grid of its noise levels.
        guidance: What guides the sampler; None if nothing does.
        other_schedule: The schedule that is sampled on, where it is not the model's.
    """

    dataset: Described[Dataset]
    formulation: Described[Formulation]
    schedule: Described[Schedule]
    sampler: Described[Sampler]
    grid: Described[Grid]
    guidance: Described[Guidance] | None = None
    other_schedule: Described[Schedule] | None = None

    @property
    def sampling_schedule(self) -> Described[Schedule]:
        """The schedule that is sampled on."""
        return self.other_schedule or self.schedule

    @property
    def rule(self) -> str:
        """The sampler's name where it samples as it is: neither guided nor on another schedule than
        the model's; else empty.
        """
        return self.sampler.name if self.guidance is None and self.other_schedule is None else ""


def requested_in(answers: Answers) -> list[Requested]:
    """The question of every row of `Answers.points`, in their order.

    Of points that were skipped the store knows no model: its parts are nameless and missing.
    """
    reader = _Reader(_datasets_of(answers.study))
    models = {cell_id: reader.model(spec) for cell_id, spec in answers.cell_specs.items()}
    specs, points = answers.point_specs(), answers.points
    return [
        reader.question(json.loads(specs[point_id]), models.get(cell_id))
        for point_id, cell_id in zip(points["point_id"].values.tolist(), points["cell_id"].values.tolist(), strict=True)
    ]


_NOTHING: Described[Any] = Described("", None, _LEFT_OUT)
_Model = tuple[Described[Dataset], Described[Formulation], Described[Schedule]]


@dataclass
class _Reader:
    """Makes components from their stored identities, each of them once."""

    requested: Mapping[str, Dataset]  # of the study, by identity: the store does not say where a file lies
    made: dict[tuple[str, str], Described[Any]] = field(default_factory=dict)
    questions: dict[tuple[int, ...], Requested] = field(default_factory=dict)

    def model(self, spec: Mapping[str, Plain]) -> _Model:
        """Data set, formulation and schedule of a cell."""
        schedule = self.component(schedules, spec["schedule"])
        dataset = self.component(datasets, spec["dataset"])
        if spec["formulation"]["name"] == EXACT:
            exact = None if schedule.component is None else Exact(schedule.component)
            described = Described(EXACT, exact, schedule.missing)
            return dataset, self.made.setdefault((EXACT, _text(spec["schedule"])), described), schedule
        return dataset, self.component(formulations, spec["formulation"]), schedule

    def question(self, spec: Mapping[str, Plain], model: _Model | None) -> Requested:
        """The question with the spec of a point, to a model."""
        guidance, other = spec.get("guidance"), spec.get("schedule")
        parts = (
            *(model or (_NOTHING, _NOTHING, _NOTHING)),
            self.component(samplers, spec["sampler"]),
            self.component(grids, spec["grid"]),
            self.component(guidances, guidance) if guidance else None,
            self.component(schedules, other) if other else None,
        )
        return self.questions.setdefault(tuple(map(id, parts)), Requested(*parts))

    def component(self, registry: Registry[C], identity: Spec) -> Described[C]:
        """The component with this identity."""
        key = registry.kind, _text(identity)
        if key not in self.made:
            self.made[key] = self._make(registry, identity)
        return self.made[key]

    def _make(self, registry: Registry[C], identity: Spec) -> Described[C]:
        name = str(identity["name"])
        known = self.requested.get(_text(identity))
        if known is not None:
            return Described(name, known)  # type: ignore[arg-type]  # only the identity of a data set is among them
        try:
            found = build(registry, parameters_of(identity))
        except Exception as error:  # noqa: BLE001 - a class of somebody's own may fail in any way
            return Described(name, None, str(error).partition("\n")[0])
        return Described(name, found)


def _datasets_of(study: Mapping[str, Plain]) -> dict[str, Dataset]:
    """The data sets of a study by identity, as far as they can be made."""
    found = {}
    for block in (study, *(study.get("grids") or ())):
        for spec in block.get("datasets") or ():
            try:
                dataset = build(datasets, spec)
            except Exception:  # noqa: BLE001, S112 - the row that has it says why
                continue
            found[_text(dataset.identity())] = dataset
    return found


def _text(identity: Mapping[str, Plain]) -> str:
    return json.dumps(identity, sort_keys=True)
