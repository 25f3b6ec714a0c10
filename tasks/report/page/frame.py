"""What stands at the head and the foot of the page: the study in one paragraph, the legend, warnings, and command lines."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffusion.samplers import samplers
from diffusion.schedules import schedules
from tasks.plan.warnings import end_warnings
from tasks.report.lookup.named import components_in, plain
from tasks.report.numbers.curves import Tabulation, names_of
from tasks.report.pictures.style import PALETTE, dash, symbol
from tasks.report.text import counted

if TYPE_CHECKING:
    from tasks.report.lookup.targets import Target
    from tasks.report.source import ReportSource


def legend(table: Tabulation) -> list[dict[str, Any]]:
    """One button per series that has a line of its own; exact ones follow the trained ones on their schedule."""
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


def summary(answers: ReportSource, table: Tabulation) -> str:
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


def warnings(answers: ReportSource, table: Tabulation, targets: Mapping[str, Target]) -> list[str]:
    """What is wrong with a schedule for one of the data sets that were asked on it."""
    laws = {name: target.law for name, target in targets.items()}
    named = components_in(answers.study, schedules)
    rules = components_in(answers.study, samplers)

    def from_noise(label: str) -> bool:
        rule = rules.get(label) or plain(label, samplers)
        return rule is None or rule.from_noise

    asked = [p for p in table.points if from_noise(p.sampler.partition(" on ")[0].partition(" | ")[0])]
    labels = dict.fromkeys((p.dataset, p.sampler.partition(" on ")[2] or p.schedule) for p in asked)
    pairs = [(laws[dataset], named.get(label) or plain(label, schedules)) for dataset, label in labels]
    return end_warnings((law, schedule) for law, schedule in pairs if law is not None and schedule is not None)


def commands(answers: ReportSource, table: Tabulation) -> list[tuple[str, str]]:
    """Command lines that give the numbers of this page."""
    study = shlex.quote(str(answers.study.get("name", "study")))
    store = answers.provenance.get("store")
    common = f"diffatlas query{f' --store {shlex.quote(str(store))}' if store else ''} --study {study}"
    snapshot = answers.provenance.get("snapshot")
    if snapshot:
        common += f" --as-of {shlex.quote(str(snapshot))}"
    metric = shlex.quote(",".join(table.metrics or names_of(answers.study.get("metrics"))))
    return [
        (
            "the tables above",
            f"{common} --by dataset,formulation,schedule,sampler,grid,steps --metric {metric} --stat mean,sem,count",
        ),
        ("one line per point, failed ones included", f"{common} --format csv --out points.csv"),
    ]
