"""From the axes of a study to its points: every combination once, exact rows included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from diffusion.datasets import Dataset
from diffusion.formulations import Exact, Formulation, Trained, Untrained
from diffusion.samplers import Sampler
from diffusion.schedules import Schedule
from tasks.plan.cell import Cell, digest
from tasks.plan.point import Point
from tasks.plan.settings import SamplingSettings
from tasks.study import Study
from tasks.study.axes import Block, SamplerChoice


def points_of(study: Study) -> list[Point]:
    """Every point of a study, exact rows included, without repetition."""
    found: dict[str, Point] = {}
    for block in study.blocks():
        pairs = block.pairs()
        for dataset in block.datasets:
            for formulation, schedule in _models(pairs, dataset):
                training = block.training if isinstance(formulation, Trained) else None
                cell = Cell(dataset, formulation, schedule, block.seeds[0], training)
                questions = list(_questions(study, block, cell))
                for seed in block.seeds:
                    seeded = cell.of_seed(seed)
                    for question in questions:
                        point = Point(seeded, question)
                        if not any(rule.matches(**_names(point)) for rule in block.exclude):
                            found.setdefault(point.id, point)
    return list(found.values())


def _questions(study: Study, block: Block, cell: Cell) -> Iterator[SamplingSettings]:
    """What a block asks of a cell, and of its likes of other seeds."""
    own = cell.formulation.own_sampler
    for choice in _choices(block, own):
        other = cell.formulation.fitted(choice.schedule, cell.dataset) if choice.schedule else None
        grid = choice.grid_on(other or cell.schedule)
        sampling_schedule = other if other != cell.schedule else None
        for steps in (1,) if own else block.steps:
            yield SamplingSettings(
                choice.sampler, grid, steps, study.samples, study.start, sampling_schedule, choice.guidance
            )


def _models(pairs: Iterable[tuple[Formulation, Schedule]], dataset: Dataset) -> Iterator[tuple[Formulation, Schedule]]:
    """The pairs of a block that have a network, and the exact answer on each of their schedules;
    schedules as the data set has them.
    """
    fitted = [(formulation, formulation.fitted(schedule, dataset)) for formulation, schedule in pairs]
    yield from (
        (formulation, schedule) for formulation, schedule in fitted if isinstance(formulation, Trained | Untrained)
    )
    if dataset.exact:
        sampled = [schedule for f, schedule in fitted if f.from_noise]
        schedules = {digest(schedule.spec()): schedule for schedule in sampled}
        yield from ((Exact(schedule), schedule) for schedule in schedules.values())


def _choices(block: Block, own: Sampler | None) -> Sequence[SamplerChoice]:
    """The samplers to ask: of a model with a way of its own that way, as the study writes it if it
    does.
    """
    if own is None:
        return block.samplers
    return [one for one in block.samplers if type(one.sampler) is type(own)] or [SamplerChoice(own)]


def _names(point: Point) -> dict[str, str | int]:
    """The registered names that `exclude` patterns speak of."""
    return {
        "dataset": point.cell.dataset.registered_name,
        "formulation": point.cell.formulation.registered_name,
        "schedule": point.schedule.registered_name,  # the one that is sampled on
        "sampler": point.sampler.registered_name,
        "grid": point.grid.registered_name,
        "guidance": point.guidance.registered_name if point.guidance else "none",
        "steps": point.steps,
        "seed": point.cell.seed,
    }


def keeps_trajectory(study: Study, point: Point) -> bool:
    """Whether the study wants the point's path from noise to data stored."""
    return f"{point.sampler.registered_name}@{point.steps}" in study.keep.trajectories
