"""A study: which questions to ask. From a YAML file to a value that is known to make sense.

A study is a cross of axes (datasets x formulations x schedules x seeds, each trained; samplers x
steps, each asked), or with ``grids:`` a union of such crosses, in which the axes at the top are the
defaults of every block. `Study` holds components, not their spelling: files that mean the same give
equal studies, and `Study.spec` writes every default out.

Refused is what can serve nothing: a sampler that accepts no schedule in play, more steps than any
schedule has levels. What serves some combinations and not others is fine; the planner records the
rest as skipped, with the reason. The rows of the exact denoiser, cells and points are the
planner's, too.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import PlainValidator, ValidationError, model_validator

from diffusion.formulations import Trained
from diffusion.metrics import BaseMetric, Metric, metrics
from tasks.data.kept import with_files
from tasks.messages import nearest, unknown
from tasks.plain import Spec, as_json
from tasks.study.axes import (
    MOST_SAMPLES,
    Axes,
    Block,
    Exclusion,
    Keep,
    Missing,
    SamplerChoice,
    components,
    name_of_study,
    read_text,
    read_training,
    whole,
)
from tasks.study.components import MISSING, Complaint, complaint_of, refusal
from tasks.study.document import Document, StudyError, load, shipped_studies
from tasks.study.renamed import note_old_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from diffusion.datasets import Dataset
    from diffusion.registry import Component
    from diffusion.schedules import Schedule
    from tasks.study.components import Path as Keys

__all__ = [
    "Axes",
    "Block",
    "Exclusion",
    "Keep",
    "SamplerChoice",
    "Study",
    "StudyError",
    "load_study",
    "shipped_studies",
]

AXES = tuple(Axes.model_fields)
KEYS = ("name", "description", *AXES, "samples", "start", "metrics", "keep", "grids")
REQUIRED = ("datasets", "formulations", "samplers", "steps")
MetricAxis = Annotated[tuple[BaseMetric, ...], PlainValidator(components(metrics, BaseMetric))]


class Study(Axes):
    """A validated study, frozen. Built by `load_study` from a file and by `Study.from_spec` from
    plain values.

    With `grids` the axes of the study itself are defaults only and may be None; `blocks` gives the
    crosses either way. The constructor raises `pydantic.ValidationError`; the two builders turn
    that into `StudyError`.
    """

    name: Annotated[str, PlainValidator(name_of_study)]
    description: Annotated[str, PlainValidator(read_text)] = ""
    samples: Annotated[int, PlainValidator(whole(2, MOST_SAMPLES))] = 10_000
    start: Literal["random", "quantiles"] = "random"
    metrics: MetricAxis
    keep: Keep = Keep()
    grids: tuple[Axes, ...] = ()

    def blocks(self) -> tuple[Block, ...]:
        """The crosses whose union is the study, in the order of the file, each with every axis
        resolved.
        """
        return tuple(
            Block(**{axis: getattr(given if axis in given.model_fields_set else self, axis) for axis in AXES})
            for given in self.grids or (self,)
        )

    def spec(self) -> Spec:
        """The canonical form, of values JSON can hold: every default written out, components as
        their own specs.
        """
        return {
            "name": self.name,
            "description": self.description,
            **self.axes_spec(axis for axis in AXES if axis not in REQUIRED or getattr(self, axis) is not None),
            "samples": self.samples,
            "start": self.start,
            "metrics": [as_json(metric.spec()) for metric in self.metrics],
            "keep": {"samples": self.keep.samples, "trajectories": list(self.keep.trajectories)},
            "grids": [block.axes_spec(axis for axis in AXES if axis in block.model_fields_set) for block in self.grids],
        }

    @classmethod
    def from_spec(cls, spec: Spec) -> Study:
        """The study that `spec` describes; ``Study.from_spec(study.spec()) == study``.

        Among its `datasets`, as `of` of one of them and as `source` of a formulation, arrays and
        tensors ``[n, dim]`` are accepted too: they are kept in the user's cache folder, and the study
        reads them there.

        Raises:
            StudyError: the spec describes no study.
            WrongValue: an array is no set of points.
        """
        return _validated(Document("the study's spec", _without_arrays(spec)))

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, given: object) -> object:
        """Let every axis that is required and given nowhere complain, and a block's training start
        from the top's.
        """
        if not isinstance(given, dict):
            return given
        given = dict(given)
        blocks = given.get("grids")
        if not (isinstance(blocks, list | tuple) and blocks):
            return {**dict.fromkeys(REQUIRED, Missing), **given}
        lacking = dict.fromkeys((axis for axis in REQUIRED if axis not in given), Missing)
        given["grids"] = [_completed(block, lacking, given.get("training", {})) for block in blocks]
        return given

    @model_validator(mode="after")
    def _serves_something(self) -> Study:
        found = list(_useless(self))
        if found:
            raise refusal(found)
        return self


def load_study(source: str | Path, overrides: Sequence[str] = ()) -> Study:
    """The study in a YAML file, or the shipped one of that name (`shipped_studies`), with
    ``key.path=value`` changes.

    A file that names other studies is not one (see `tasks.study.collection`).

    Raises:
        StudyError: whatever is wrong with the input: one message with the place of every problem,
            what was found there and what would be accepted.
    """
    document = load(source, overrides)
    if "studies" in document.values:
        message = "this file names other studies, where one study is expected (diffatlas run, plan and report take such a file)"
        raise document.error([Complaint(("studies",), message)])
    study = _validated(document)
    note_old_names(document.values)
    return study


def _without_arrays(spec: Any) -> Any:
    """The spec with a file in the place of each array of points; what is none is refused later."""
    if not isinstance(spec, dict):
        return spec
    found = dict(spec)
    for axis in ("datasets", "formulations"):
        if isinstance(spec.get(axis), list | tuple):
            found[axis] = [with_files(entry) for entry in spec[axis]]
    if isinstance(spec.get("grids"), list | tuple):
        found["grids"] = [_without_arrays(block) for block in spec["grids"]]
    return found


def _completed(block: object, lacking: Spec, training: object) -> object:
    if not isinstance(block, dict):
        return block
    block = {**lacking, **block}
    if isinstance(block.get("training"), dict):
        with suppress(ValidationError):  # the complaint belongs to the top, where it is made
            block["training"] = {**read_training(training).spec(), **block["training"]}
    return block


def _validated(document: Document) -> Study:
    """Raises StudyError with every complaint; a key missing because it was misspelled is one
    problem, not two.
    """
    try:
        return Study.model_validate(document.values)
    except ValidationError as error:
        details = error.errors(include_url=False)
    complaints: list[Complaint] = []
    meant: set[Keys] = set()
    for e in details:
        path: Keys = tuple(e["loc"])
        if e["type"] == "extra_forbidden":
            known = _keys_at(path[:-1])
            meant.add((*path[:-1], nearest(path[-1], known) or ""))
            complaints.append(Complaint(path, unknown("key", path[-1], known)))
        else:
            complaint = complaint_of(e)
            inside = complaint.text == MISSING and path[0] == "grids"
            complaints.append(complaint._replace(text=f"{MISSING}, here and at the top") if inside else complaint)
    raise document.error(c for c in complaints if not (c.text.startswith(MISSING) and c.path in meant))


def _keys_at(path: Keys) -> list[str]:
    """The keys that the mapping at `path` takes."""
    if path and path[-1] == "keep":
        return list(Keep.model_fields)
    if "exclude" in path:
        return list(Exclusion.model_fields)
    return list(AXES) if path else sorted(Study.model_fields, key=KEYS.index)


def _useless(study: Study) -> Iterable[Complaint]:
    """Complaints about every entry that can serve nothing."""
    blocks = study.blocks()
    targets = [target for block in blocks for target in block.datasets]
    for number, block in enumerate(blocks):
        given = study.grids[number] if study.grids else study

        def at(axis: str, entry: int, number: int = number, given: Axes = given) -> Keys:
            own = study.grids and axis in given.model_fields_set
            return ("grids", number, axis, entry) if own else (axis, entry)

        for complaint in (*_useless_formulations(block, at), *_useless_questions(block, at)):
            elsewhere = study.grids and complaint.path[0] != "grids"
            yield complaint._replace(text=f"{complaint.text} (in grids[{number}])") if elsewhere else complaint
    distributions = [distribution for block in blocks for distribution in _distributions(block)]
    for i, metric in enumerate(study.metrics):
        compared = distributions if isinstance(metric, Metric) else targets
        reasons = [one if isinstance(one, str) else metric.refuses(one) for one in compared]
        if reasons and all(reasons):
            yield Complaint(("metrics", i), f"{_quoted(metric)} can serve no dataset of the study: {_joined(reasons)}")
    wide = dict.fromkeys(_quoted(target) for target in targets if target.dim > 1)
    if study.start == "quantiles" and wide:
        message = f"found 'quantiles', which is for datasets of one dimension; of more than one: {', '.join(wide)}"
        yield Complaint(("start",), f"{message} (accepted: random)")


def _distributions(block: Block) -> Iterator[Dataset | str]:
    """What samples of the block are compared with, or why there is nothing to compare them with."""
    for dataset in block.datasets:
        for guidance in dict.fromkeys(choice.guidance for choice in block.samplers):
            if guidance is None:
                yield dataset.law
            elif any(guidance.refuses(dataset, formulation) is None for formulation in block.formulations):
                yield guidance.refuses_target(dataset.law) or guidance.target(dataset.law)


def _useless_formulations(block: Block, at: Callable[[str, int], Keys]) -> Iterable[Complaint]:
    unsuited = [block.training.network.refuses(dataset) for dataset in block.datasets]
    for i, formulation in enumerate(block.formulations):
        reasons = [formulation.refuses(schedule) for schedule in block.schedules_of(formulation)]
        refused = [formulation.refuses_dataset(dataset.working) for dataset in block.datasets]
        if all(refused):
            message = f"{_quoted(formulation)} can serve no dataset of the study: {_joined(refused)}"
            yield Complaint(at("formulations", i), message)
        elif isinstance(formulation, Trained) and not all(unsuited):
            refused = [
                reason or formulation.refuses_network(dataset, block.training)
                for reason, dataset in zip(refused, block.datasets, strict=True)
            ]
            if all(refused):
                message = f"{_quoted(formulation)} can be trained with {_quoted(block.training.network)} on no dataset of the study"
                yield Complaint(at("formulations", i), f"{message}: {_joined(refused)}")
        if all(reasons):
            which = "accepts none of the schedules listed" if block.schedules else "does not accept its own schedule"
            message = f"{_quoted(formulation)} {which}: {_joined(reasons)}"
            yield Complaint(at("formulations", i), message)
    if all(unsuited):
        yield Complaint(
            ("training", "network"), f"{_quoted(block.training.network)} can serve no dataset: {_joined(unsuited)}"
        )
    if block.schedules:
        for i, schedule in enumerate(block.schedules):
            reasons = [formulation.refuses(schedule) for formulation in block.formulations]
            if all(reasons) and not any(dataset.exact for dataset in block.datasets):
                message = f"no formulation listed accepts the schedule {_quoted(schedule)}: {_joined(reasons)}"
                yield Complaint(at("schedules", i), message)


def _useless_questions(block: Block, at: Callable[[str, int], Keys]) -> Iterable[Complaint]:
    """Samplers, grids and step counts that no schedule in play accepts."""

    def fitted(schedules: Iterable[Schedule]) -> list[Schedule]:
        """As the data sets of the block have them."""
        return list(dict.fromkeys(s.fitted(dataset.working) for s in schedules for dataset in block.datasets))

    in_play = fitted(schedule for _, schedule in block.pairs())
    for i, choice in enumerate(block.samplers):
        served = fitted([choice.schedule]) if choice.schedule else in_play
        reasons = [choice.sampler.refuses(schedule) for schedule in served]
        if all(reasons):
            message = f"{_quoted(choice.sampler)} can serve no schedule of the study: {_joined(reasons)}"
            yield Complaint(at("samplers", i), message)
        elif (grid := choice.grid) is not None:
            off = [reason or grid.refuses(schedule) for reason, schedule in zip(reasons, served, strict=True)]
            if all(off):
                message = f"the grid {_quoted(grid)} can serve no schedule of the study: {_joined(off)}"
                yield Complaint((*at("samplers", i), "grid"), message)
        if choice.guidance is not None:
            pairs = [(dataset, formulation) for dataset in block.datasets for formulation in block.formulations]
            refused = [choice.guidance.refuses(*pair) for pair in pairs]
            if all(refused):
                message = f"{_quoted(choice.guidance)} can guide no model of the study: {_joined(refused)}"
                yield Complaint((*at("samplers", i), "guidance"), message)
    sampling_schedules = fitted(choice.schedule for choice in block.samplers if choice.schedule)
    limits = [schedule.max_steps for schedule in (*in_play, *sampling_schedules)]
    if None in limits:
        return
    most = max(limit for limit in limits if limit is not None)
    for i, steps in enumerate(block.steps):
        if steps > most:
            names = ", ".join(dict.fromkeys(map(_quoted, in_play)))
            message = f"found {steps}, expected at most {most}: every schedule of the study is discrete ({names})"
            yield Complaint(at("steps", i), message)


def _quoted(component: Component) -> str:
    return repr(component.registered_name)


def _joined(reasons: Iterable[str | None]) -> str:
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))
