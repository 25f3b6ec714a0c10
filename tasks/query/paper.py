"""An answer as a table for a paper: LaTeX or Markdown, means with their errors in one column, the best
of a ranking in bold, and what cannot be told apart from it marked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

FORMS = ("latex", "markdown")

_KINDS = {"_sem": "standard error", "_std": "standard deviation"}
_ROUNDING = 1e-12  # of a mean: the difference of two that are equal may be that large
_ERRORS = (("_mean", "_sem"), ("", "_sem"), ("_mean", "_std"))
_TIED = "cannot be told apart from the best"


def paper_table(frame: pd.DataFrame, form: str, asked: Sequence[str] = ()) -> str:
    r"""The rows of an answer of `tasks.query`, for a paper.

    A mean and its standard error (or, if only that was asked for, its standard deviation) become
    one column, rounded to two digits of the error. Of a ranking the first of each group is bold, and
    every row that the ranking calls tied with it is marked; a note below says so. Its ranks are the
    order of the rows, and have no column. What all of several rows have in common stands in the
    note, unless it was asked for.

    Args:
        frame: what `query`, `rank` or `pareto` has given.
        form: ``latex``, for the package `booktabs`, or ``markdown``.
        asked: columns that stay whatever they hold.

    Returns:
        Lines that end with a newline.

    Raises:
        KeyError: no such form.
    """
    signs = {"latex": _LATEX, "markdown": _MARKDOWN}[form]
    escape, mark = signs.escape, signs.mark
    notes = []
    ranks = frame["rank"].to_numpy() if {"rank", "tied"} <= set(frame) and len(frame) else None
    if ranks is not None and "rank" not in asked:
        frame = frame.drop(columns="rank")
    frame, common = _without_common(_without_rounding(frame), asked)
    columns = {escape(name): cells for name, cells in _columns(frame, signs).items()}
    if ranks is not None:
        leads = ranks == 1
        tied = frame["tied"].fillna(False).to_numpy(dtype=bool)
        value = next(escape(title) for title, _ in _pairs(frame).values())
        columns[value] = [
            (signs.bold.format(cell) if lead else cell) + (mark if tie else "")
            for cell, lead, tie in zip(columns[value], leads, tied, strict=True)
        ]
        notes.append("Bold: the best of its group.")
        if tied.any():
            notes.append(f"{mark}: {_TIED}, or the best from any other.")
        if frame["tied"].isna().any():
            notes.append("Without a mark: told apart, or too few seeds to decide.")
    kinds = sorted({_KINDS[error[-4:]] for _, error in _pairs(frame).values()})
    if kinds and len(frame):
        notes.append(f"{signs.plus_minus}: one {' or '.join(kinds)}.")
    if common:
        notes.append(f"In all rows: {', '.join(f'{escape(name)} {escape(_text(value))}' for name, value in common)}.")
    rights = [pd.api.types.is_numeric_dtype(frame[name]) for name in _shown(frame)]
    return signs.write(list(columns), list(zip(*columns.values(), strict=True)), rights, " ".join(notes))


def _without_rounding(frame: pd.DataFrame) -> pd.DataFrame:
    """Distances behind the first as zero where they are the rounding of two equal means."""
    means = next((frame[name].abs() for name in frame if str(name).endswith("_mean")), None)
    if means is None or not {"behind", "behind_sem"} <= set(frame):
        return frame
    nothing = (frame["behind"].abs() < _ROUNDING * means) & ~(frame["behind_sem"] > _ROUNDING * means)
    return frame.assign(behind=frame["behind"].mask(nothing, 0.0), behind_sem=frame["behind_sem"].mask(nothing, 0.0))


def _without_common(frame: pd.DataFrame, asked: Sequence[str]) -> tuple[pd.DataFrame, list[tuple[str, object]]]:
    """Without the columns that hold one value in all of several rows, and these with their value."""
    paired = {name for value, (_, error) in _pairs(frame).items() for name in (value, error)}
    common = [
        str(name)
        for name in frame
        if name not in asked and name not in paired and name != "tied" and len(frame) > 1
        if frame[name].notna().all() and frame[name].nunique() == 1
    ]
    return frame.drop(columns=common), [(name, frame[name].iloc[0]) for name in common]


def _pairs(frame: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """By the name of a column of means, its title and the column with its errors."""
    found: dict[str, tuple[str, str]] = {}
    for end, error in _ERRORS:
        for name in frame:
            stem = str(name).removesuffix(end)
            if str(name).endswith(end) and name not in found and stem + error in frame:
                found[str(name)] = stem, stem + error
    return found


def _shown(frame: pd.DataFrame) -> list[str]:
    """Columns that stand in the table by themselves."""
    inside = {error for _, error in _pairs(frame).values()} | {"tied"}
    return [str(name) for name in frame if name not in inside]


def _columns(frame: pd.DataFrame, signs: _Signs) -> dict[str, list[str]]:
    pairs, columns = _pairs(frame), {}
    for name in _shown(frame):
        values = frame[name].tolist()
        if name in pairs:
            title, error = pairs[name]
            both = zip(values, frame[error].tolist(), strict=True)
            columns[title] = [_with_error(value, width, signs) for value, width in both]
        else:
            columns[name] = [signs.escape(_text(value)) for value in values]
    return columns


def _with_error(value: float, error: float, signs: _Signs) -> str:
    """Rounded to two digits of the error; the value alone where there is none, or where it is beyond
    the last of six digits.
    """
    if not math.isfinite(value):
        return "-"
    if not math.isfinite(error) or error <= 0:
        return f"{value:.4g}"
    if error < 1e-5 * abs(value):
        return f"{value:.6g}"
    decimals = 1 - math.floor(math.log10(error))
    power = math.floor(math.log10(max(abs(value), error)))
    if decimals > 6 and power != 0:
        scaled = _with_error(value / 10.0**power, error / 10.0**power, signs)
        return signs.power.format(scaled, power)
    places = max(decimals, 0)
    return f"{np.round(value, decimals):.{places}f} {signs.plus_minus} {np.round(error, decimals):.{places}f}"


def _text(value: object) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return "-" if value is pd.NA else str(value)


def _escaped_latex(text: str) -> str:
    named = {"\\": "textbackslash", "~": "textasciitilde", "^": "textasciicircum", "|": "textbar"}
    return re.sub(r"[\\&%$#_{}~^|]", lambda m: rf"\{named[m[0]]}{{}}" if m[0] in named else "\\" + m[0], text)


def _escaped_markdown(text: str) -> str:
    return re.sub(r"[\\|*_`<>\[\]]", r"\\\g<0>", text)


def _latex(titles: Sequence[str], rows: Sequence[Sequence[str]], rights: Sequence[bool], note: str) -> str:
    lines = [rf"\begin{{tabular}}{{{''.join('r' if right else 'l' for right in rights)}}}", r"\toprule"]
    lines += [" & ".join(titles) + r" \\", r"\midrule", *(" & ".join(row) + r" \\" for row in rows)]
    lines += [r"\bottomrule", r"\end{tabular}", *([rf"\par\smallskip {note}"] if note else [])]
    return "\n".join(lines) + "\n"


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]], rights: Sequence[bool], note: str) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, *rows)]
    lines.insert(1, "|" + "|".join("---:" if right else "---" for right in rights) + "|")
    return "\n".join([*lines, *(["", note] if note else [])]) + "\n"


@dataclass(frozen=True)
class _Signs:
    """How a form writes what all forms have."""

    write: Callable[[Sequence[str], Sequence[Sequence[str]], Sequence[bool], str], str]
    escape: Callable[[str], str]
    bold: str
    mark: str
    plus_minus: str
    power: str


_LATEX = _Signs(_latex, _escaped_latex, r"\textbf{{{}}}", r"$^\dagger$", r"$\pm$", r"({}) $\times 10^{{{}}}$")
_MARKDOWN = _Signs(_markdown, _escaped_markdown, "**{}**", "†", "±", "({})e{}")
