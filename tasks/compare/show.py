"""A comparison for eyes, as plain values, and in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tasks.compare.changes import Comparison, Listing
from tasks.compare.groups import BETTER, NOISE, UNCHANGED, UNTESTABLE, VERDICTS, WORSE
from tasks.plain import Plain, Spec
from tasks.query.tables import brief
from tasks.statistics.decision import hurdle

_ERRORS = {"holm": "a family-wise level", "benjamini-hochberg": "a false discovery rate"}
_SHORT = {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}
_NOT_VERSIONS = ("snapshot", "time", "store", "study", "shard_seconds")
_LABEL_WIDTH = 28
_CHANCES = {"p_corrected": "corrected p", "p": "p"}


def summary(comparison: Comparison) -> str:
    """The comparison in one sentence."""
    rows, moved = len(comparison.groups), comparison.count(WORSE, BETTER)
    what = "group" if len(comparison.metrics) == 1 else "comparison"
    parts = []
    if not rows:
        parts.append("nothing to compare: no point with a value of a metric is on both sides")
    elif comparison.count(UNCHANGED) == rows:
        parts.append(f"0 of {_many(rows, what)} moved, all are the same to the last bit")
    else:
        split = [f"{comparison.count(v)} {v}" for v in (WORSE, BETTER) if comparison.count(v)]
        found = f" ({', '.join(split)})" if split else ""
        rate = f"{_ERRORS[comparison.correction]} of {100 * comparison.level:g} %"
        parts.append(f"{moved} of {_many(rows, what)} moved{found} at {rate}")
    if changed := len(_untested_changes(comparison)):
        parts.append(f"{changed} changed and cannot be tested")
    points = comparison.points
    beside = f" ({comparison.beside} of them beside an older one of the same labels)" if comparison.beside else ""
    parts += [
        f"{_many(len(frame), 'point')} {word}"
        for frame, word in ((points.appeared, f"appeared{beside}"), (points.vanished, "vanished"))
        if len(frame)
    ]
    switches = points.status.groupby(["status_after", "status_before"], sort=True).size().reset_index(name="count")
    parts += [
        f"{count} {now} that {'was' if count == 1 else 'were'} {was}"
        for now, was, count in switches.itertuples(index=False)
    ]
    return "; ".join(parts)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _untested_changes(comparison: Comparison) -> pd.DataFrame:
    groups = comparison.groups
    return groups[(groups["verdict"] == UNTESTABLE) & groups["change"].notna() & (groups["change"] != 0)]


def document(comparison: Comparison) -> Spec:
    """All of the comparison as plain values that JSON knows; None where a number is not known."""
    return {
        "summary": summary(comparison),
        "before": dict(comparison.provenance[0]),
        "after": dict(comparison.provenance[1]),
        "by": list(comparison.by),
        "metrics": list(comparison.metrics),
        "metrics_only_before": list(comparison.only_before),
        "metrics_only_after": list(comparison.only_after),
        "level": comparison.level,
        "correction": comparison.correction,
        "tests": comparison.tests,
        "verdicts": {verdict: comparison.count(verdict) for verdict in VERDICTS},
        "groups": plain_records(comparison.groups),
        "points": {
            **_listed(comparison.points),
            "ambiguous": comparison.ambiguous,
            "beside": comparison.beside,
            "values": plain_records(comparison.values),
        },
        "cells": _listed(comparison.cells),
    }


def _listed(listing: Listing) -> Spec:
    frames = {name: getattr(listing, name) for name in ("appeared", "vanished", "status", "renamed")}
    return {"before": listing.before, "after": listing.after, **{name: plain_records(f) for name, f in frames.items()}}


def plain_records(frame: pd.DataFrame) -> list[Spec]:
    """The rows as plain values; None where a number is not finite."""
    columns = {}
    for name in frame.columns:
        values = frame[name].to_numpy()
        plain = values.astype(object)
        if values.dtype.kind == "f":
            plain[~np.isfinite(values)] = None
        columns[str(name)] = [v.item() if isinstance(v, np.generic) else v for v in plain.tolist()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def table(comparison: Comparison, width: int, rows: int = 20) -> Group:
    """What moved, then what cannot be tested or is within noise, then what came, went or failed.

    Fits into `width` characters; at most `rows` lines of each kind, the most significant or most
    frequent first.
    """
    groups = comparison.groups
    parts: list[RenderableType] = [_header(comparison), Text(summary(comparison), "bold")]
    moved = groups[groups["verdict"].isin((WORSE, BETTER))]
    changed = _untested_changes(comparison)
    noise = groups[groups["verdict"] == NOISE]
    parts += _changes(comparison, "moved", moved, width, rows)
    parts += _changes(comparison, "changed and cannot be tested", changed, width, rows)
    parts += _changes(
        comparison, "changed and cannot be told from the noise of the seeds", noise, width, max(3, rows // 4)
    )
    same = [f"{comparison.count(UNCHANGED)} unchanged to the last bit"]
    if (still := comparison.count(UNTESTABLE) - len(changed)) > 0:
        same.append(f"{still} with values on one side only, or with a mean that stayed while its points moved")
    parts += [Text(f"\n{', '.join(same)}")] if len(groups) else []
    parts += _tests(comparison)
    parts += _listings("point", comparison.points, comparison, rows)
    parts += _listings("cell", comparison.cells, comparison, rows)
    return Group(*parts, *(Text(line, "yellow") for line in _remarks(comparison)))


def side_by_side(comparison: Comparison, store: str, width: int, rows: int = 40) -> Group:
    """Own numbers beside those of another store, a line for each group that both have.

    Args:
        comparison: of the other store's points (before) with one's own (after).
        store: what the other store is called.
        width: characters that there are.
        rows: at most so many lines, the most significant difference first.
    """
    found = comparison.groups[(comparison.groups[["seeds_before", "seeds_after"]] > 0).all(axis=1)]
    varying = _varying(comparison)
    made = Table(box=None, pad_edge=False, header_style="dim")
    for name in varying:
        made.add_column(name, overflow="fold", max_width=max(10, min(_LABEL_WIDTH, width // 5)))
    for name in ("here", escape(store), "difference"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("", overflow="fold", min_width=12)
    for values in found.head(rows).itertuples(index=False):
        row = dict(zip(found.columns, values, strict=True))
        style = {WORSE: "red", BETTER: "green"}.get(row["verdict"])
        figures = (brief(row["after"]), brief(row["before"]), _change(row) if row["verdict"] != UNCHANGED else "0")
        remark = ", ".join(
            part for part in (row["verdict"], row["reason"], "near the floor" if row["near_floor"] else "") if part
        )
        made.add_row(*(escape(str(row[name])) for name in varying), *figures, remark, style=style)
    names = [name for name in (*comparison.by, "metric") if len(found) and name not in varying]
    same = f" (all of {', '.join(f'{name} {found[name].iloc[0]}' for name in names)})" if names else ""
    more = f"; the first {rows} of {len(found)} (all of them: diffatlas diff --against {store} --json)"
    title = f"\nhere beside {store}, the means over the seeds that both have{same}{more if len(found) > rows else ''}"
    return Group(Text(title, "bold"), made, Text(_alone(comparison)))


def _alone(comparison: Comparison) -> str:
    """Which of one's own points stand beside none of the other store."""
    own, many = len(comparison.points.appeared), comparison.ambiguous
    if many:
        return (
            f"{_many(own, 'point')} of here not compared: {_many(many, 'point')} of both share labels and seed with others "
            "of their store, and are not matched"
        )
    return f"{_many(own, 'point')} {'is' if own == 1 else 'are'} here alone" if own else "all points are in both"


def _header(comparison: Comparison) -> Text:
    lines = []
    for word, side, points in zip(
        ("before", "after "), comparison.provenance, (comparison.points.before, comparison.points.after), strict=True
    ):
        of = " of ".join(side[name] for name in ("snapshot", "store") if side.get(name))
        study = f", study {side['study']}" if side.get("study") else ""
        lines.append(
            f"{word}  {of or 'a dataset'}{', ' + side['time'] if side.get('time') else ''}{study}: {_many(points, 'point')}"
        )
    before, after = comparison.provenance
    names = [n for n in sorted({*before, *after}) if n not in _NOT_VERSIONS and n in before and n in after]
    moved = [f"{name} {before[name]} -> {after[name]}" for name in names if before[name] != after[name]]
    lines += [f"since   {', '.join(moved)}"] if moved else []
    varying, groups = _varying(comparison), comparison.groups
    same = [
        f"{name} {groups[name].iloc[0]}" for name in (*comparison.by, "metric") if len(groups) and name not in varying
    ]
    lines += [f"all of  {', '.join(same)}"] if same else []
    return Text("\n".join(lines))


def _changes(comparison: Comparison, title: str, found: pd.DataFrame, width: int, rows: int) -> list[RenderableType]:
    if not len(found):
        return []
    shown = found.head(rows)
    chance = {WORSE: "p_corrected", BETTER: "p_corrected", NOISE: "p"}.get(str(found["verdict"].iloc[0]))
    remarks = [_remark(dict(zip(shown.columns, row, strict=True))) for row in shown.itertuples(index=False)]
    varying = _varying(comparison)
    made = Table(box=None, pad_edge=False, header_style="dim")
    for name in varying:
        made.add_column(name, overflow="fold", max_width=max(10, min(_LABEL_WIDTH, width // 5)))
    for name in ("before", "after", "change", "seeds' sd", *([_CHANCES[chance]] if chance else ())):
        made.add_column(name, justify="right", no_wrap=True)
    if any(remarks):
        made.add_column("", overflow="fold", min_width=12)
    for values, remark in zip(shown.itertuples(index=False), remarks, strict=True):
        row = dict(zip(shown.columns, values, strict=True))
        figures = [brief(row["before"]), brief(row["after"]), _change(row), _signed(row["spreads"])]
        figures += [_chance(row[chance])] if chance else []
        style = {WORSE: "red", BETTER: "green"}.get(row["verdict"])
        made.add_row(*(str(row[n]) for n in varying), *figures, *([remark] if any(remarks) else []), style=style)
    more = f"; the first {rows} (all of them: --json)" if len(found) > rows else ""
    return [Text(f"\n{len(found)} {title}{more}", "bold"), made]


def _varying(comparison: Comparison) -> list[str]:
    """The labels that tell the rows apart, the metric among them."""
    return [name for name in (*comparison.by, "metric") if comparison.groups[name].nunique() > 1]


def _remark(row: Mapping[str, Plain]) -> str:
    verdict = row["verdict"] if row["verdict"] in {WORSE, BETTER} else row["reason"]
    return ", ".join(part for part in (verdict, "near the floor" if row["near_floor"] else "") if part)


def _change(row: Mapping[str, Plain]) -> str:
    """The change with its standard error: in the metric's units, or as a factor with a relative
    error.
    """
    if math.isfinite(row["factor"]):
        error = f" ±{100 * row['error']:.2g} %" if math.isfinite(row["error"]) else ""
        return f"x {brief(row['factor'])}{error}"
    error = f" ±{brief(row['error'])}" if math.isfinite(row["error"]) and row["error"] > 0 else ""
    return _signed(row["change"]) + error


def _signed(value: float) -> str:
    """A number with its sign, as `brief` writes it."""
    return ("-" if value < 0 else "+") + brief(abs(value)) if math.isfinite(value) else "-"


def _chance(p: float) -> str:
    return "-" if math.isnan(p) else f"{p:.1g}" if p < 0.1 else f"{p:.2f}"


def _tests(comparison: Comparison) -> list[Text]:
    """How many tests were made, and how large a change the first of them must be."""
    tested = comparison.groups[comparison.groups["p"].notna()]
    if not len(tested):
        return []
    line = f"{_many(len(tested), 'test')}, corrected by {_SHORT[comparison.correction]}"
    paired = tested[tested["test"] == "paired"]
    if len(paired):
        seeds = int(paired["seeds_after"].mode().iloc[0])
        needed = hurdle(seeds, len(tested), comparison.level)
        line += (
            f": with {seeds} seeds the first change that can be told is {needed:.2g} standard deviations of the "
            "seeds' differences"
        )
    return [Text(line)]


def _listings(noun: str, listing: Listing, comparison: Comparison, rows: int) -> list[Text]:
    shown = [name for name in comparison.by if name in listing.appeared.columns]
    found: list[Text] = []
    for word, frame, columns in (
        ("appeared", listing.appeared, ["status"]),
        ("vanished", listing.vanished, ["status"]),
        ("changed status", _switches(listing.status), ["switch"]),
    ):
        if len(frame):
            found.append(Text(f"\n{_many(len(frame), noun)} {word}", "bold"))
            found += _folded(frame, [*columns, *(n for n in shown if n != "steps")], rows)
    if len(listing.renamed):
        why = ": trained otherwise, or the version of a part changed" if noun == "cell" else ""
        found.append(Text(f"\n{_many(len(listing.renamed), noun)} kept the labels under another id{why}"))
    return found


def _switches(status: pd.DataFrame) -> pd.DataFrame:
    """Changes of status with one text for what happened: from, to, and the first line of the
    reason.
    """
    reason = status["error_after"] if "error_after" in status else pd.Series("", index=status.index)
    first = [(str(text).strip().splitlines() or [""])[0] for text in reason]
    switch = [
        f"{was} -> {now}" + (f" ({why})" if why else "")
        for was, now, why in zip(status["status_before"], status["status_after"], first, strict=True)
    ]
    return status.assign(switch=switch)


def _folded(frame: pd.DataFrame, names: Sequence[str], rows: int) -> list[Text]:
    """One line for each combination of `names`, the most frequent first, with its step counts and
    seeds in brief.
    """
    groups = frame.groupby(list(names), sort=True)
    sizes = groups.size().sort_values(ascending=False, kind="stable")
    lines = []
    for key in sizes.index[:rows]:
        values = key if isinstance(key, tuple) else (key,)
        part = groups.get_group(values)
        brief = [f"{name} {_range(part[name])}" for name in ("steps", "seed") if name in part]
        lines.append(Text(f"  {len(part):>5}  {'  '.join(str(v) for v in values)}: {', '.join(brief)}"))
    hidden = len(sizes) - rows
    return [*lines, Text(f"         and {hidden} kinds more")] if hidden > 0 else lines


def _range(values: pd.Series) -> str:
    found = sorted(values.unique())
    if len(found) <= 3:
        return ", ".join(str(v) for v in found)
    return f"{found[0]} to {found[-1]} ({len(found)} values)"


def _remarks(comparison: Comparison) -> list[str]:
    """What a reader should know before believing the numbers."""
    groups, remarks = comparison.groups, []
    floors = groups["floor_before"], groups["floor_after"]
    other = int((np.abs(floors[1] - floors[0]) > 1e-9 * np.abs(floors[0])).sum())
    if other:
        verb = "compares" if other == 1 else "compare"
        remarks.append(
            f"{_many(other, 'row')} {verb} different sampling floors: another number of samples, or another metric"
        )
    same = int((comparison.values["same_id"] & comparison.values[["before", "after"]].notna().all(axis=1)).sum())
    if same:
        remarks.append(
            f"{_many(same, 'value')} changed under the same id: measured again, by another version of the metric, of a "
            "library, or on another machine"
        )
    if comparison.ambiguous:
        remarks.append(
            f"{_many(comparison.ambiguous, 'point')} share their labels and seed with others of their side and were not matched "
            "(compare one study: --study)"
        )
    if comparison.beside:
        remarks.append(
            f"{_many(comparison.beside, 'point')} appeared beside an older one with the same labels and seed, and were not compared "
            "with it (compare one study: --study)"
        )
    for names, side in ((comparison.only_before, "before"), (comparison.only_after, "after")):
        if names:
            remarks.append(f"known only {side}: {', '.join(names)}")
    return [f"\n{remark}" if k == 0 else remark for k, remark in enumerate(remarks)]
