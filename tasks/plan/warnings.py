"""What is worth a warning before a study is run: questions that have an answer, but not the one
that is meant.
"""

from __future__ import annotations

from collections.abc import Iterable

from diffusion.datasets import Dataset
from diffusion.registry import identity_text
from diffusion.schedules import Schedule
from tasks.plan.plan import Plan
from tasks.study import Study


def kept_in_vain(study: Study) -> list[str]:
    """One line for each path to be kept, such as ``heun@9``, that no point of the study has."""
    requested = {
        f"{choice.sampler.registered_name}@{steps}"
        for block in study.blocks()
        for choice in block.samplers
        for steps in block.steps
    }
    return [
        f"keep.trajectories: {path!r} is of no point of the study: its samplers and steps have no such pair"
        for path in study.keep.trajectories
        if path not in requested
    ]


def measured_in_vain(plan: Plan) -> list[str]:
    """One line for each metric that no point of the plan can be measured by, with the reason."""
    possible = [point for point in plan.points if point.id not in plan.impossible]
    lines = []
    for metric in plan.study.metrics:
        reason = None
        for point in possible:
            reason = point.refuses(metric)
            if reason is None:
                break
        if reason is not None:
            lines.append(f"metric {metric.column!r} measures nothing that is asked: {reason}")
    return lines


def called_alike(plan: Plan) -> list[str]:
    """One line for each label that several data sets of the study have: rows are grouped by labels, so
    that one mean would be over all of them.
    """
    found: dict[str, set[str]] = {}
    for dataset in {id(cell.dataset): cell.dataset for cell in plan.cells.values()}.values():
        found.setdefault(dataset.label(), set()).add(identity_text(dataset))
    return [
        f"{len(texts)} data sets of the study are called {label!r}, and tables and pictures take them for one: "
        "let their `label` tell them apart"
        for label, texts in found.items()
        if len(texts) > 1
    ]


def of_other_sources(plan: Plan) -> list[str]:
    """One line for each module of somebody's own whose source is another one than that which some
    of the done points were computed by.
    """
    return [
        f"the source of {module} is another one than that which {count} of the {len(plan.done)} done points were computed by: "
        "if its numbers change, raise the `version` of the class that changed, or compute them again with --force; else "
        "nothing is to be done"
        for module, count in sorted(plan.other_sources.items())
    ]


def end_warnings(pairs: Iterable[tuple[Dataset, Schedule]]) -> list[str]:
    """One line for each data set on a schedule that does not end in noise, in the order given and
    without repetition.

    Samplers start from ``N(0, sigma(t_max)^2 I)``. Where the data have not drowned by then
    (`Schedule.end_warning`) that is not the law of x at t_max, and neither a better network nor
    more steps mend it.
    """
    found = (
        end_warning(dataset.label(), dataset.working, schedule, moved=dataset.frame is not None)
        for dataset, schedule in pairs
    )
    return list(dict.fromkeys(line for line in found if line is not None))


def end_warning(name: str, working: Dataset, schedule: Schedule, *, moved: bool) -> str | None:
    """The line for one law that is seen by models, or None.

    Args:
        name: What the line calls the data.
        working: The law in the coordinates in which models see it.
        schedule: What is sampled on.
        moved: Whether those are other coordinates than the data's own.
    """
    line = schedule.end_warning(working.root_mean_square)
    if line is None:
        return None
    far = not moved and schedule.end_warning(1.0) is None  # it is the data that are far from zero or large
    mend = "; {name: standardised, of: ...} has models see such data with mean 0 and deviation 1" if far else ""
    return f"{name}: {line}{mend}"
