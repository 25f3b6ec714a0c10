"""The distribution of samples against the number of steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from tasks.figures.lacking import FigureLacksData
from tasks.figures.panels import dashed_ends, density_map, grid_of, in_lines, not_drawn
from tasks.figures.registry import register
from tasks.figures.source import Source
from tasks.figures.style import FigureStyle
from tasks.report.lookup.targets import Target
from tasks.report.numbers.by_steps import ColumnsBySteps, columns_by_steps, window
from tasks.report.numbers.kept import Kept, kept_samples

_MOST = 6


@dataclass(frozen=True)
class Sweep:
    """Kept samples of some series by one sampler, as columns of densities; names of those for which
    there is no room.
    """

    target: Target
    sampler: str
    columns: list[tuple[Kept, ColumnsBySteps]]
    others: tuple[str, ...] = ()


def sweep(source: Source) -> Sweep:
    """Of the first data set on the line with kept samples at several step counts."""
    for target in source.datasets(1):
        for panel in source.panels(target):
            kept, _ = kept_samples(source.answers, source.table, target.name, 1, panel, target)
            own = [one for one in kept if one.target is None and len(one.values) > 1]
            compared = [one for one in own if not one.series.exact] or own
            chosen, others = compared[:_MOST], tuple(one.series.label for one in compared[_MOST:])
            if chosen:
                shown = window(chosen, target)
                columns = [(one, columns_by_steps(one, target, shown)) for one in chosen]
                return Sweep(target, panel.title, columns, others)
    raise FigureLacksData("kept samples on the line at several numbers of steps")


@register(
    "steps",
    shows="The distribution of the samples against the number of steps N, a column of colours for each, beside the exact target",
    study="documents/slides-design-space",
    document="slides, level 4: distribution of generated samples for different N",
    find=sweep,
    target=lambda found: found.target.name,
)
def against_steps(found: Sweep, style: FigureStyle) -> Figure:
    """A panel for each series, the target as its last column."""
    rows, columns = grid_of(len(found.columns), 3 if len(found.columns) > 4 else 2)
    figure = style.sheet(height=0.36 * rows + 0.05)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for k, (ax, (kept, of)) in enumerate(zip(panels, found.columns, strict=False)):
        shown = [*of.densities, *([] if of.target is None else [of.target])]
        names = [str(n) for n in of.steps] + ([] if of.target is None else ["exact"])
        edges = of.edges
        density_map(ax, np.array(shown).T, (-0.5, len(shown) - 0.5, edges[0], edges[-1]), style, of.top)
        for edge in found.target.support() or ():
            ax.axhline(edge, color=style.accent, linestyle="--", linewidth=0.7 * style.line)
        if of.target is not None:
            ax.axvline(len(shown) - 1.5, color=style.muted, linewidth=0.5 * style.line)
        every = max(1, -(-len(names) // 7))
        ticks = [i for i in range(len(of.steps)) if i % every == 0 and i < len(names) - (every > 1)]
        ticks += [len(names) - 1] if of.target is not None else []
        ax.set_xticks(ticks, [names[i] for i in ticks])
        ax.set_title(kept.series.label)
        if k % columns == 0:
            ax.set_ylabel("$x$")
        if k >= len(found.columns) - columns:
            ax.set_xlabel("number of steps $N$")
    for ax in panels[len(found.columns) :]:
        ax.set_visible(False)
    figure.suptitle(in_lines(f"samples of {found.sampler}{dashed_ends(found.target)}", not_drawn(found.others)))
    return figure
