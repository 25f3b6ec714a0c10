"""Quality against network evaluations: the main comparison of a study."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter, LogLocator

from tasks.figures.lacking import FigureLacksData
from tasks.figures.panels import grid_of, not_drawn
from tasks.figures.registry import register
from tasks.figures.source import Source
from tasks.figures.style import FigureStyle
from tasks.report.numbers.curves import Curve, Panel, Series
from tasks.report.numbers.window import Window

_MOST = 4


@dataclass(frozen=True)
class QualityByCost:
    """Curves of one metric on one data set, by sampler.

    Args:
        dataset: The data set.
        metric: The metric.
        window: The vertical axis of all panels.
        panels: The curves of each sampler, trained ones first.
        floors: What as many draws of the target score, by sampler.
        higher: Whether higher values are better.
        others: Samplers for which there is no room.
    """

    dataset: str
    metric: str
    window: Window
    panels: list[tuple[Panel, list[Curve]]]
    floors: dict[Panel, list[float]]
    higher: bool
    others: tuple[str, ...] = ()

    @property
    def series(self) -> list[Series]:
        """Every series that is drawn."""
        found = {curve.series: None for _, curves in self.panels for curve in curves}
        return sorted(found, key=lambda series: (series.exact, series.key))


def quality_by_cost(source: Source) -> QualityByCost:
    """Of the first data set and its first metric with a curve of more than one step count."""
    table = source.table
    for target in source.datasets():
        for metric in table.metrics:
            of_panel = {panel: table.select(target.name, metric, panel) for panel in source.panels(target)}
            swept = {panel: [one for one in own if len(one.at) > 1] for panel, own in of_panel.items()}
            compared = [panel for panel, own in swept.items() if any(mean.nfe for one in own for mean in one.at)]
            asked, others = compared[:_MOST], tuple(panel.title for panel in compared[_MOST:])
            if not asked:
                continue
            floors = {panel: table.floors_of(target.name, metric, panel.sampler) for panel in asked}
            curves = [curve for panel in asked for curve in swept[panel]]
            window = Window.around(curves, [floor for own in floors.values() for floor in own])
            higher = metric in table.higher_is_better
            panels = [(panel, swept[panel]) for panel in asked]
            return QualityByCost(target.name, metric, window, panels, floors, higher, others)
    raise FigureLacksData("a metric at several numbers of steps")


@register(
    "quality",
    shows="The main comparison of a study: quality against network evaluations, with exact denoisers dashed and the sampling floor",
    study="documents/slides-design-space",
    document="slides, level 4: comparison of the formulations for different N",
    find=quality_by_cost,
    target=lambda found: found.dataset,
)
def quality(found: QualityByCost, style: FigureStyle) -> Figure:
    """A panel for each sampler, all on the same axes; what leaves a panel is marked at its edge."""
    rows, columns = grid_of(len(found.panels), 2)
    figure = style.sheet(height=0.37 * rows + 0.1)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    drawn: set[str] = set()
    for ax, (panel, curves) in zip(panels.ravel(), found.panels, strict=False):
        compared = any(not curve.series.exact for curve in curves)
        for curve in curves:
            drawn |= _curve(ax, curve, found.window, style, beside=compared and curve.series.exact)
        for floor in (one for one in found.floors[panel] if one > 0 or not found.window.logarithmic):
            drawn.add("floor")
            ax.axhline(floor, color=style.muted, linestyle=":", linewidth=style.line)
        ax.set_title(panel.title)
    for ax in panels.ravel()[len(found.panels) :]:
        ax.set_visible(False)
    across = panels[0][0]
    across.set_xscale("log")
    if found.window.logarithmic:
        across.set_yscale("log")
    across.set_ylim(found.window.low, found.window.high)
    across.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    across.xaxis.set_major_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(9, 9)))
    across.xaxis.set_minor_locator(LogLocator(subs=()))
    for ax in panels.ravel()[max(0, len(found.panels) - columns) : len(found.panels)]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("network evaluations (NFE)")
    for row in panels:
        row[0].set_ylabel(f"{found.metric} ({'higher' if found.higher else 'lower'} is better)")
    if found.others:
        figure.suptitle(not_drawn(found.others))
    figure.legend(
        handles=_handles(found, drawn, style), loc="outside lower center", ncols=4, handlelength=2.2, columnspacing=1.4
    )
    return figure


def _handles(found: QualityByCost, drawn: set[str], style: FigureStyle) -> list[Artist]:
    """The legend: a series each, and what else is drawn."""
    handles: list[Artist] = [_handle(series, style) for series in found.series if not series.exact]
    handles += [
        _handle(series, style) for series in found.series if series.exact and series.shown_with == (series.key,)
    ]
    if any(series.exact for series in found.series):
        handles.append(Line2D([], [], color=style.muted, linestyle="--", label="exact denoiser"))
    if "floor" in drawn:
        handles.append(Line2D([], [], color=style.muted, linestyle=":", label="sampling floor"))
    if "band" in drawn:
        handles.append(Patch(color=style.muted, alpha=0.3, linewidth=0, label="95 % band over seeds"))
    if "outside" in drawn:
        handles.append(Line2D([], [], color=style.muted, marker="^", linestyle="none", label="beyond the axis"))
    return handles


def _handle(series: Series, style: FigureStyle) -> Line2D:
    return Line2D([], [], color=style.color(series.style), marker=style.marker(series.style), label=series.label)


def _curve(ax: Axes, curve: Curve, window: Window, style: FigureStyle, *, beside: bool) -> set[str]:
    """One curve; that of an exact denoiser beside trained ones is dashed and has no band.

    Returns:
        What the legend has to explain: a band, means outside the axis.
    """
    drawn = set()
    cost = [mean.nfe for mean in curve.at]
    values = [window.mean(mean) for mean in curve.at]
    color = style.color(curve.series.style)
    width = style.line * (0.8 if beside else 1.1)
    along, height = window.line(cost, values)
    ax.plot(along, height, color=color, linestyle="--" if beside else "-", linewidth=width)
    inside = [(x, value) for x, value in zip(cost, values, strict=True) if window.low <= value <= window.high]
    if inside:
        ax.plot(
            *zip(*inside, strict=True),
            color=color,
            marker=style.marker(curve.series.style),
            markerfacecolor=style.page if beside else color,
            markersize=(2.4 if beside else 3.0) * style.line,
            linestyle="none",
        )
    lowest, highest = window.edges()
    for edge, shape, outside in (
        (highest, "^", [x for x, value in zip(cost, values, strict=True) if value > window.high]),
        (lowest, "v", [x for x, value in zip(cost, values, strict=True) if value < window.low]),
    ):
        if outside:  # a line of nothing would still take room
            drawn.add("outside")
            rim = {"markeredgecolor": style.ink, "markeredgewidth": 0.3 * style.line}
            ax.plot(outside, [edge] * len(outside), shape, color=color, clip_on=False, **rim)  # type: ignore[arg-type]
    banded = [(mean.nfe, *interval) for mean in curve.at if (interval := window.interval(mean)) is not None]
    if len(banded) > 1 and not beside:
        nfe, low, high = zip(*banded, strict=True)
        ax.fill_between(
            nfe, [window.clip(v) for v in low], [window.clip(v) for v in high], color=color, alpha=0.15, linewidth=0
        )
        drawn.add("band")
    return drawn
