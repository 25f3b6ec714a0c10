"""Everything that the page shows of one data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tasks.report.lookup.targets import Target, target_of
from tasks.report.numbers import decomposition as parts
from tasks.report.numbers import models
from tasks.report.numbers.curves import Panel, Tabulation
from tasks.report.page.tables import Measured, measured
from tasks.report.pictures import decomposition, distributions, fields, images, plane, space, trajectories
from tasks.report.pictures.kept import Kept, default_panel, kept_samples
from tasks.report.pictures.losses import losses
from tasks.report.pictures.score import score_errors
from tasks.report.pictures.style import Picture
from tasks.report.text import counted, some

if TYPE_CHECKING:
    from tasks.report.source import ReportSource


_MOST_SELECTABLE = 8


_MOST_PICTURES = 36


_FEW_SERIES = 2  # so few are shown for all samplers side by side; more, for one sampler at a time


@dataclass(frozen=True)
class Choice:
    """One pane of a section in which the reader selects (a sampler)."""

    name: str
    pictures: list[Picture]
    more: list[Picture] = field(default_factory=list)


@dataclass(frozen=True)
class OfDataset:
    """Everything about one dataset."""

    name: str
    target: Target
    dim: int | None
    measured: list[Measured]
    origins: list[Choice]
    reading: str
    sweeps: list[Choice]
    trajectories: list[list[Picture]]
    exact_trajectories: list[list[Picture]]  # folded away beside those of trained ones
    flows: list[Picture]
    exact_flows: list[Picture]  # folded away beside those of trained ones
    losses: Picture | None
    score: Picture | None
    models: models.OfModels | None
    clouds: list[Picture]
    sections: list[Picture]
    in_plane: Picture | None
    plane: list[Choice]
    images: list[Choice]


def of_dataset(answers: ReportSource, table: Tabulation, name: str, notes: list[str]) -> OfDataset:
    """Everything about one data set; what is not drawn, and why, is added to `notes`."""
    target = target_of(name, answers.study)
    dim = _dimension(answers, table, name, target)
    if target.missing:
        notes.append(f"{name}: the exact target is not drawn ({target.missing}).")
    origins, reading = _origins(table, name, notes)
    kept, order = _kept(answers, table, target, dim, notes) if dim not in (None, 3) else ([], [])
    sweeps = _sweeps(kept, order, target) if dim == 1 else []
    paths, more = trajectories.trajectories(answers, table, name, target) if dim == 1 else ([], 0)
    in_plane: Picture | None = None
    samples_in_plane: list[Choice] = []
    as_images: list[Choice] = []
    if kept and target.image_shape is not None:
        sheets = images.sheets_of(target, kept, target.image_shape)
        data = images.data_picture(sheets)
        as_images = [
            replace(choice, pictures=([data] if data else []) + choice.pictures)
            for choice in _choices(kept, order, lambda own, titled: images.pictures(own, sheets, by_panel=titled))
        ]
        paths, more = images.trajectories(answers, table, name, target, sheets)
    elif kept and dim is not None and dim != 1:
        view = plane.view_of(target, kept, dim)
        in_plane = plane.target_picture(view)
        samples_in_plane = [
            replace(choice, pictures=([in_plane] if in_plane else []) + choice.pictures)
            for choice in _choices(kept, order, lambda own, titled: plane.pictures(own, view, by_panel=titled))
        ]
        paths, more = plane.trajectories(answers, table, name, target, view)
    trained = [pictures for series, pictures in paths if not series.exact]
    exact = [pictures for series, pictures in paths if series.exact]
    if more:
        notes.append(f"{name}: {counted(more, 'further kept trajectory', 'further kept trajectories')} not drawn.")
    found = space.clouds(answers, table, target, dim) if dim == 3 else []
    if dim is None or (dim == 3 and not found):
        notes.append(f"{name}: no samples are drawn (none were kept).")
    if dim not in (None, 3) and not paths:
        notes.append(f"{name}: no trajectories were kept (keep: {{trajectories: [heun@50]}} keeps them).")
    flows, exact_flows, more = fields.fields(answers, table, name, target)
    if more:
        notes.append(f"{name}: the flow of {counted(more, 'further denoiser')} is not drawn.")
    loss = losses(answers.losses(), table, name)
    if loss is None and any(not series.exact for series in table.series):
        notes.append(f"{name}: no training losses are stored.")
    return OfDataset(
        name=name,
        target=target,
        dim=dim,
        measured=[
            measured(table, name, metric, target.error_of_its_mean(metric, answers.study))
            for metric in table.metrics_of(name)
        ],
        origins=origins,
        reading=reading,
        sweeps=sweeps,
        trajectories=trained or exact,
        exact_trajectories=exact if trained else [],
        flows=flows or exact_flows,
        exact_flows=exact_flows if flows else [],
        losses=loss,
        score=score_errors(answers.score_errors(), table, name),
        models=models.of_models(table, name, answers.study),
        clouds=space.in_space(found, target) if dim == 3 else [],
        sections=space.cross_sections(found, target) if dim == 3 else [],
        in_plane=in_plane,
        plane=samples_in_plane,
        images=as_images,
    )


def _dimension(answers: ReportSource, table: Tabulation, name: str, target: Target) -> int | None:
    if target.dim is not None:
        return target.dim
    for point in table.points:
        if point.dataset == name and point.status == "ok":
            kept = answers.samples(point.point_id)
            if kept is not None:
                return kept.sizes.get("coordinate", 1)
    return None


def _kept(
    answers: ReportSource, table: Tabulation, target: Target, dim: int | None, notes: list[str]
) -> tuple[list[Kept], list[Panel]]:
    """Kept samples by panel, the one shown first at the front, and the panels in that order."""
    name = target.name
    first = default_panel(table.panels[name])
    found: list[Kept] = []
    order: list[Panel] = []
    dropped: list[str] = []
    elsewhere: list[str] = []
    for panel in sorted(table.panels[name], key=lambda panel: panel != first):
        if len(order) >= _MOST_SELECTABLE and len(found) + _FEW_SERIES > _MOST_PICTURES:
            dropped.append(panel.title)
            continue
        own, foreign = kept_samples(answers, table, name, dim or 1, panel, target)
        if foreign:
            elsewhere.append(panel.title)
        if own:
            order.append(panel)
            found += own
    if dropped:
        notes.append(f"{name}: samples with {some(dropped, 8)} are not drawn.")
    if elsewhere:
        notes.append(f"{name}: samples with {some(elsewhere, 8)} follow another law than the data and are not drawn.")
    elif not found:
        notes.append(f"{name}: no samples were kept, so their distribution is not drawn (keep: {{samples: true}}).")
    return found, order


def _choices(
    kept: Sequence[Kept], order: Sequence[Panel], draw: Callable[[list[Kept], bool], list[Picture]]
) -> list[Choice]:
    """Panes of pictures: one for all samplers where there are few series, otherwise one for each.

    Exact denoisers are folded away beside trained ones.
    """
    trained = [one for one in kept if not one.series.exact]
    if len({one.series for one in trained or kept}) <= _FEW_SERIES and len(order) > 1:
        return [
            Choice("all samplers", _titled(trained or kept, draw), _titled(kept, draw, exact=True) if trained else [])
        ]
    choices = []
    for panel in order[:_MOST_SELECTABLE]:
        own = [one for one in kept if one.panel == panel]
        learned, exact = [one for one in own if not one.series.exact], [one for one in own if one.series.exact]
        choices.append(Choice(panel.title, draw(learned or exact, False), draw(exact, False) if learned else []))
    return choices


def _titled(
    kept: Sequence[Kept], draw: Callable[[list[Kept], bool], list[Picture]], *, exact: bool = False
) -> list[Picture]:
    """The pictures of all samplers, titled by the sampler; by the series too, where there are several."""
    own = [one for one in kept if one.series.exact or not exact]
    pictures = draw(own, True)
    if len({one.series for one in own}) == 1:
        return pictures
    return [
        replace(picture, title=f"{picture.title}, {one.series.label}")
        for picture, one in zip(pictures, own, strict=True)
    ]


def _sweeps(kept: Sequence[Kept], order: Sequence[Panel], target: Target) -> list[Choice]:
    if not kept:
        return []
    shown = distributions.window([one for one in kept if one.target is None], target)
    return _choices(
        kept,
        order,
        lambda own, titled: [
            distributions.against_steps(
                one, target, distributions.window([one], one.target) if one.target else shown, by_panel=titled
            )
            for one in own
        ],
    )


def _origins(table: Tabulation, name: str, notes: list[str]) -> tuple[list[Choice], str]:
    """Pictures of where the error comes from, by sampler, and the sentence about them."""
    metric = parts.metric_with_parts(table, name)
    if metric is None:
        if table.curves:
            notes.append(f"{name}: errors are not split (that takes exact rows and their limit of many steps).")
        return [], ""
    found = parts.origins(table, name, metric)
    if not found:
        notes.append(f"{name}: errors are not split (no network has an answer).")
        return [], ""
    panels = list(dict.fromkeys(one.panel for one in found))
    first = default_panel(panels)
    order = sorted(panels, key=lambda panel: panel != first)
    reading = parts.reading(found, order[0], metric)
    if len({one.series for one in found}) <= _FEW_SERIES and len(order) > 1:
        several = len({one.series for one in found}) > 1
        shown = [one for panel in order for one in found if one.panel == panel][:_MOST_PICTURES]
        titles = [f"{one.panel.title}, {one.series.label}" if several else one.panel.title for one in shown]
        pictures = [decomposition.picture(one, metric, title) for one, title in zip(shown, titles, strict=True)]
        return [Choice("all samplers", pictures)], reading
    if len(order) > _MOST_SELECTABLE:
        notes.append(
            f"{name}: the split of the error with {', '.join(panel.title for panel in order[_MOST_SELECTABLE:])} is not drawn."
        )
    return [
        Choice(
            panel.title, [decomposition.picture(one, metric, one.series.label) for one in found if one.panel == panel]
        )
        for panel in order[:_MOST_SELECTABLE]
    ], reading
