"""What stands at the head and the foot of the page: the study in one paragraph, the legend,
warnings, and command lines.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tasks.messages import counted
from tasks.plain import Spec
from tasks.plan.warnings import end_warning
from tasks.report.numbers.curves import Tabulation
from tasks.report.pictures.style import PALETTE, dash, symbol

if TYPE_CHECKING:
    from tasks.results import Answers


def legend(table: Tabulation) -> list[Spec]:
    """One button per series that has a line of its own; exact ones follow the trained ones on their
    schedule.
    """
    return [
        {
            "key": series.key,
            "label": series.label,
            "schedule": series.schedule,
            "colour": series.style % PALETTE + 1,
            "symbol": symbol(series.style),
            "dash": dash(series.style),
        }
        for series in table.series
        if not series.exact or series.shown_with == (series.key,)
    ]


def summary(answers: Answers, table: Tabulation) -> str:
    """The study in one paragraph for somebody who has not read the rest."""
    trained = [series for series in table.series if not series.exact]
    exact = [series for series in table.series if series.exact]
    samplers = list(dict.fromkeys(panel.title for panels in table.panels.values() for panel in panels))
    seeds = {point.seed for point in table.points if point.formulation != "exact"} or {p.seed for p in table.points}
    steps = sorted({point.steps for point in table.points})
    if not table.points:
        return "This study has asked nothing yet."
    formulations = list(dict.fromkeys(table.short(series.formulation) for series in trained))
    compared = f"{counted(len(formulations), 'trained formulation')} ({', '.join(formulations)})"
    if len(trained) > len(formulations):
        on_schedules = list(dict.fromkeys(table.short(series.schedule) for series in trained))
        compared += f" with {counted(len(on_schedules), 'schedule')} ({', '.join(on_schedules)})"
    on = f"{counted(len(exact), 'schedule')} ({', '.join(table.short(series.schedule) for series in exact)})"
    if not trained:
        compared = f"exact denoisers, which need no network, on {on} for"
        ideal = "No network was trained: what separates a curve from the floor is the sampler's error, and the prior's."
    elif exact:
        ideal = (
            f"For comparison the exact denoiser of the target, which needs no network, was integrated by the same samplers "
            f"on {counted(len(exact), 'schedule')}: what separates a trained curve from its exact one is the network's "
            f"error, what separates the exact one from the floor is the sampler's."
        )
    else:
        ideal = "No exact denoiser was asked for, so network error and sampler error cannot be told apart."
    range_ = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    drawn = answers.study.get("samples")
    each = f"; {drawn:,} samples each" if isinstance(drawn, int) else ""
    return (
        f"The study compares {compared} {'on ' if trained else ''}{counted(len(table.datasets), 'dataset')} "
        f"({', '.join(table.short(name) for name in table.datasets)}), "
        f"drawn with {counted(len(samplers), 'sampler')} ({', '.join(samplers)}) in {range_} steps, "
        f"by {counted(len(seeds), 'seed')}{each}. {ideal}"
    )


def missing_points(answers: Answers, table: Tabulation) -> int:
    """How many points the study asks that are not answered, skipped or failed yet."""
    studies = [answers.name] if answers.name is not None else answers.studies
    known = {row.point_id for row in table.points}
    return len({point for study in studies for point in answers.asked(study)} - known)


def warnings(table: Tabulation) -> list[str]:
    """What is wrong with a schedule for one of the data sets that were sampled on it, from its
    start noise.
    """
    lines = {}
    for row in {(row.dataset, id(row.requested)): row for row in table.points}.values():
        sampler, schedule = row.requested.sampler.component, row.requested.sampling_schedule.component
        target = table.targets[row.dataset]
        if target.working is not None and schedule is not None and (sampler is None or sampler.from_noise):
            line = end_warning(row.dataset, target.working, schedule, moved=target.frame is not None)
            lines[row.dataset, schedule.label()] = line
    return list(dict.fromkeys(line for line in lines.values() if line is not None))


def commands(answers: Answers, table: Tabulation) -> list[tuple[str, str]]:
    """Command lines that give the numbers of this page."""
    study = shlex.quote(str(answers.study.get("name", "study")))
    store = answers.provenance.get("store")
    common = f"diffatlas query{f' --store {shlex.quote(str(store))}' if store else ''} --study {study}"
    snapshot = answers.provenance.get("snapshot")
    if snapshot:
        common += f" --as-of {shlex.quote(str(snapshot))}"
    metric = shlex.quote(",".join(table.metrics or table.known))
    return [
        (
            "the tables above",
            f"{common} --by dataset,formulation,schedule,sampler,grid,steps --metric {metric} --stat mean,sem,count",
        ),
        ("one line per point, failed ones included", f"{common} --format csv --out points.csv"),
    ]
