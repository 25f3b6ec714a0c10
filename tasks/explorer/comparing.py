"""Rows beside each other: in what their specs differ, and whether their numbers can be told apart by
the one rule of `tasks.statistics.decision`. And two snapshots, by `tasks.compare`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.columns import CONFIGURATION
from tasks.explorer.copies import address_of, both
from tasks.explorer.look import Look, settled
from tasks.explorer.opened import OpenedStore
from tasks.explorer.parts import column, conditions, labels_in, plain
from tasks.plain import Plain, Spec
from tasks.query import QueryError
from tasks.query.records import chosen
from tasks.query.reductions import reduced
from tasks.where.columns import Columns, Groups, factorize

if TYPE_CHECKING:
    import pandas as pd

    from tasks.results import Answers

FEWEST = 2
MOST_TICKED = 8
_MOST_SPECS = 60  # points of a row whose specs are compared
_MOST_VALUES = 4  # of a setting that a row has several of
_MOST_ROWS = 400
_MOST_MARKS = 4000


def compare_rows(store: OpenedStore, look: Look) -> Spec:
    """The ticked rows: each beside the first of them.

    Args:
        store: which is looked through.
        look: whose `ticked` conditions are the rows, the first `MOST_TICKED` of them, and whose
            filter holds for them.

    Returns:
        `rows` with mean and seeds, `tests` of each against the first, `settings` that differ, with
        the values of each row.

    Raises:
        QueryError: fewer than two are ticked, or one of them has no point.
    """
    if len(look.ticked) < FEWEST:
        raise QueryError("tick two rows or more to compare them")
    points = store.points(look.study, look.as_of)
    look = settled(look, points)
    metric = str(look.metric)
    ticked = look.ticked[:MOST_TICKED]
    parts = [chosen(points, both(look.where, row)) for row in ticked]
    parts = [part.rows(part["status"] == "ok") for part in parts]
    for row, part in zip(ticked, parts, strict=True):
        if not part.size:
            raise QueryError(f"no answered point satisfies the filter and {row}")
    by_seed = _by_seed(parts, metric)
    answers = store.answers(look.study, look.as_of)
    pooled = [len(Groups(part, CONFIGURATION, part.size)) for part in parts]
    notes = [
        f"row {i + 1} pools {count} configurations: what is compared is the mean over them, seed by seed"
        for i, count in enumerate(pooled)
        if count > 1
    ]
    if len(look.ticked) > len(ticked):
        notes.insert(0, f"the first {len(ticked)} of {len(look.ticked)} ticked rows are compared: untick some")
    return {
        "metric": metric,
        "rows": [
            {"condition": row, "points": part.size, "seeds": int(np.isfinite(values).sum()), "mean": _mean(values)}
            for row, part, values in zip(ticked, parts, by_seed, strict=True)
        ],
        "tests": _tests(by_seed, higher=points.higher_is_better(metric)),
        "settings": _settings(answers, parts),
        "notes": [*notes, *_unlike(parts)],
    }


def _by_seed(parts: Sequence[Columns], metric: str) -> np.ndarray:
    """The mean over each row's points of a seed ``[row, seed]``, NaN where a seed has none."""
    seeds = factorize(np.concatenate([part["seed"] for part in parts]))[1]
    found = np.full((len(parts), len(seeds)), np.nan)
    for row, part in enumerate(parts):
        codes, own = part.factorized("seed")
        found[row, np.searchsorted(seeds, own)] = reduced(part[metric], codes, ["mean"])["mean"]
    return found


def _mean(values: np.ndarray) -> Plain:
    return plain(float(np.mean(values[np.isfinite(values)]))) if np.isfinite(values).any() else None


def _tests(by_seed: np.ndarray, *, higher: bool) -> list[Spec]:
    """Each row against the first; all of them are one family."""
    from tasks.statistics.decision import by_seed as contrasted
    from tasks.statistics.decision import decided

    others = by_seed[1:]
    contrasts = contrasted(np.repeat(by_seed[:1], len(others), axis=0), others)
    decision = decided(contrasts)
    better = contrasts.sign == (1.0 if higher else -1.0)
    return [
        {
            "row": i + 1,
            "verdict": _verdict(bool(decision.apart[i]), bool(decision.tied[i]), better=bool(better[i])),
            "paired": bool(contrasts.paired[i]),
            "seeds": int(min(contrasts.seeds_first[i], contrasts.seeds_second[i])),
            "change": plain(contrasts.change[i]),
            "factor": plain(contrasts.factor[i]),
            "error": plain(contrasts.error[i]),
            "scale": "logarithmic" if contrasts.logarithmic[i] else "linear",
            "p": plain(contrasts.p[i]),
            "p_corrected": plain(decision.p[i]),
        }
        for i in range(len(others))
    ]


def _verdict(apart: bool, tied: bool, *, better: bool) -> str:
    if apart:
        return "better" if better else "worse"
    return "cannot be told apart" if tied else "cannot be decided"


def _unlike(parts: Sequence[Columns]) -> list[str]:
    datasets = {str(name) for part in parts for name in set(part["dataset"].tolist())}
    return (
        [f"numbers of different data sets do not compare ({', '.join(sorted(datasets))})"] if len(datasets) > 1 else []
    )


def _settings(answers: Answers, parts: Sequence[Columns]) -> list[Spec]:
    """The settings in which the specs of the rows' points differ."""
    rows: list[dict[str, list[str]]] = []
    for part in parts:
        ids = [str(one) for one in part["point_id"][:_MOST_SPECS]]
        cells = {str(one) for one in part["cell_id"][:_MOST_SPECS]}
        specs = [
            {key: value for key, value in spec.items() if key != "cell"} for spec in answers.specs_of(ids).values()
        ]
        specs += [{"cell": answers.cell_specs[cell]} for cell in sorted(cells) if cell in answers.cell_specs]
        rows.append(_values(specs))
    names = sorted({name for row in rows for name in row})
    different = [name for name in names if any(row.get(name) != rows[0].get(name) for row in rows)]
    return [{"name": name, "values": [_said(row.get(name, [])) for row in rows]} for name in different]


def _values(specs: Sequence[Spec]) -> dict[str, list[str]]:
    """By setting, the different values that some specs have of it, sorted."""
    found: dict[str, set[str]] = {}
    for spec in specs:
        for name, value in _leaves(spec):
            found.setdefault(name, set()).add(value)
    return {name: sorted(values) for name, values in found.items()}


def _leaves(spec: Mapping[str, Plain], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in spec.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict):
            yield from _leaves(value, name)
        else:
            yield name, value if isinstance(value, str) else json.dumps(value)


def _said(values: Sequence[str]) -> str:
    more = f", and {len(values) - _MOST_VALUES} more" if len(values) > _MOST_VALUES else ""
    return ", ".join(values[:_MOST_VALUES]) + more if values else "–"


def moved(store: OpenedStore, look: Look) -> Spec:
    """What moved from the snapshot `before` to the one that is looked at, as `diffatlas diff` says
    it.

    Raises:
        QueryError: a name is no label or metric.
        WrongReference: there is no such snapshot.
    """
    from tasks.compare import compare, summary

    look = settled(look, store.points(look.study, look.as_of)) if look.by is not None else look
    before = look.before or _before(store, look.as_of)
    sides = store.dataset(look.study, before), store.dataset(look.study, look.as_of)
    metric = look.metric or str(settled(look, store.points(look.study, look.as_of)).metric)
    by = CONFIGURATION if look.by is None else look.by
    found = compare(*sides, [metric], by)
    groups = found.groups
    ids = [str(side.attrs["snapshot"]) for side in sides]
    names = [*by, "verdict", "before", "after", "change", "factor", "p_corrected", "seeds_after", "reason"]
    shared = {name: plain(groups[name].iloc[0]) for name in by if len(groups) and groups[name].nunique() == 1}
    names = [name for name in names if not (look.only and name in shared)]
    some = groups.head(_MOST_ROWS)
    marked = groups.head(_MOST_MARKS)
    few = [f"the first {_MOST_MARKS:,} of {len(groups):,} groups are drawn"] if len(groups) > _MOST_MARKS else []
    return {
        "view": "moved",
        "metric": metric,
        "summary": summary(found),
        "before": {"snapshot": ids[0], "time": sides[0].attrs["time"], "points": found.points.before},
        "after": {"snapshot": ids[1], "time": sides[1].attrs["time"], "points": found.points.after},
        "shared": shared,
        "groups": _marks(marked, by),
        "counts": {str(name): int(count) for name, count in groups["verdict"].value_counts().items()},
        "table": {
            "columns": names,
            "labels": [name for name in names if name in by],
            "rows": [list(row) for row in zip(*(column(some[name]) for name in names), strict=True)],
            "conditions": _conditions(some, by),
            "total": len(groups),
        },
        "notes": few,
        "asked": [_diff(store, look, ids, metric, by)],
        "snapshot": ids[1],
        "time": sides[1].attrs["time"],
        "size": found.points.after,
    }


def _before(store: OpenedStore, as_of: str | None) -> str:
    """The snapshot before one; that one itself, if it is the first."""
    ids = [entry["snapshot"] for entry in store.history()]
    now = store.snapshot(as_of)
    place = ids.index(now) if now in ids else 0
    return ids[min(place + 1, len(ids) - 1)]


def _marks(groups: pd.DataFrame, by: Sequence[str]) -> Spec:
    label = [", ".join(str(v) for v in row if v != "") for row in groups[list(by)].itertuples(index=False)]
    return {
        "label": label if by else ["all points"] * len(groups),
        "before": column(groups["before"]),
        "after": column(groups["after"]),
        "verdict": [str(v) for v in groups["verdict"]],
        "conditions": _conditions(groups, by),
    }


def _conditions(groups: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """The condition of each group; of all points as one group the empty one."""
    return conditions(labels_in(groups, by), np.arange(len(groups))) if by else [""] * len(groups)


def _diff(store: OpenedStore, look: Look, ids: Sequence[str], metric: str, by: Sequence[str]) -> Spec:
    uri = address_of(store.uri)
    study = ["--study", look.study] if look.study else []
    words = ["diffatlas", "diff", *ids, "--store", uri, *study, "--metric", metric]
    words += ["--by", ",".join(by)]
    sides = ", ".join(f"da.open_results({uri!r}, study={look.study!r}, as_of={one!r})" for one in ids)
    python = (
        f"import diffatlas as da\n\nfound = da.compare({sides}, [{metric!r}], {list(by)!r})\nprint(da.summary(found))\n"
    )
    return {"what": "this comparison", "command": shlex.join(words), "python": python}
