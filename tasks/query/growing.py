"""What is asked while a study grows, and what a look at its numbers answers.

A question reads ``best(sampler) at nfe<=20``: which value of an axis has the best configuration, among
those whose points satisfy a condition of the language of `--where`. Each value stands with its best
configuration, as in `tasks.query.ranking`; who is told from the best is decided by
`tasks.statistics.sequential` over all pairs of configurations with different values, those of all
groups in one family.

The best is the first by its mean, and a pair may be tested by its logarithms; and it may change from
look to look. So it can happen that the best is told apart as the worse of a pair: that is no verdict
on the rival, and has a word of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.columns import CONFIGURATION, FACTS, OF_SAMPLER
from tasks.messages import shown
from tasks.plain import Plain, Spec
from tasks.query.ranking import (
    BY,
    Configurations,
    axes_of,
    configurations,
    knowing_beside_others,
    metric_of,
    refuse_mixed_data_sets,
)
from tasks.query.records import chosen
from tasks.statistics.sequential import NOT_YET, AfterLook, Design, Margin, Pairs, all_pairs, verdicts
from tasks.where.columns import Columns, Groups, PointColumns, Points, check, factorize, of_points
from tasks.where.conditions import satisfied
from tasks.where.language import QueryError, named, parse

APART, EQUIVALENT, OPEN, CONTRADICTED = "apart", "equivalent", "open", "contradicted"

_LABELS = frozenset({*CONFIGURATION, *OF_SAMPLER, *FACTS, "seed"})
"""What is known of a point before it is computed."""
_KNOWS = "sets out from data or from an observation, and is not compared with what starts from noise"

_QUESTION = re.compile(r"\s*best\s*\(\s*([\w-]+)\s*\)\s*(?:at\s+(\S.*))?", re.DOTALL)
_MARGIN = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(%?)\s*")


@dataclass(frozen=True)
class BestOf:
    """Which value of the axis `of` is best, within each group of `by`."""

    of: str
    at: str | None = None
    by: tuple[str, ...] = BY
    metric: str | None = None

    def __str__(self) -> str:
        return f"best({self.of})" + (f" at {self.at}" if self.at else "")


@dataclass(frozen=True)
class LookTaken:
    """What a look found: a row for each rival of each group's best.

    A row has the group's labels, `best` and `rival`, where each stands (`best_at`, `rival_at`) and
    its mean, the paired `difference` to the best with the ends of its interval (`low`, `high`; of the
    factor, where `scale` is logarithmic), the `verdict`, and `since` how many seeds it stands.

    `left_out` has the labels of each configuration that was asked about and did not take part, and the
    `reason`.
    """

    seeds: int
    metric: str
    rows: tuple[Spec, ...]
    left_out: tuple[Spec, ...] = ()

    @property
    def undecided(self) -> int:
        """How many rivals are open, or contradict the best."""
        return sum(row["verdict"] in (OPEN, CONTRADICTED) for row in self.rows)

    @property
    def decided(self) -> bool:
        """Whether every rival is decided; nothing is said of what was left out."""
        return not self.undecided

    def value(self) -> Spec:
        """As plain values."""
        verdicts, left_out = ([dict(row) for row in rows] for rows in (self.rows, self.left_out))
        return {"seeds": self.seeds, "metric": self.metric, "verdicts": verdicts, "left_out": left_out}


def read_question(text: str, by: Sequence[str] = BY, metric: str | None = None) -> BestOf:
    """The question that a text asks.

    Raises:
        QueryError: it cannot be read.
    """
    found = _QUESTION.fullmatch(text)
    if found is None:
        raise QueryError(f"--until {shown(text)}: found no question; try: best(sampler) at nfe<=20")
    of, at = found.groups()
    if at is not None:
        try:
            parse(at)
        except QueryError as error:
            raise type(error)(f"--until {shown(at)}: {error}") from None
    return BestOf(of, at.strip() if at else None, tuple(name for name in dict.fromkeys(by) if name != of), metric)


def read_margin(text: str) -> Margin:
    """A margin: ``2%`` of the smaller mean, or a number in the metric's units.

    Raises:
        QueryError: it is neither.
    """
    found = _MARGIN.fullmatch(text)
    if found is None or float(found[1]) > (100 if found[2] else np.inf):
        raise QueryError(f"--margin {shown(text)}: expected a share such as 2%, or a number in the metric's units")
    return Margin(float(found[1]) / 100, True) if found[2] else Margin(float(found[1]), False)


def answerable(ahead: PointColumns, question: BestOf) -> BestOf:
    """The question with its metric, if a study can answer it: asked before anything is computed.

    Args:
        ahead: the points that will be, as `tasks.results.foreseen` gives them.
        question: what is asked.

    Raises:
        QueryError: an unknown name, a condition that makes no sense, or nothing to compare.
    """
    metric = metric_of(ahead, question.metric)
    check("--until best", [question.of], axes_of(ahead))
    check("--by", question.by, axes_of(ahead))
    at = question.at
    if at is not None:
        satisfied(at, ahead, ahead.size, "--until")
        names = named(parse(at))
        if not (names <= _LABELS or (names <= {*_LABELS, "nfe"} and np.isfinite(ahead["nfe"]).all())):
            at = None  # who satisfies it is known when the numbers are
    found = configurations(ahead, at, None, question.by)
    refuse_mixed_data_sets(found, (question.of, *question.by), metric)
    measured = np.bincount(found.codes, np.isfinite(found.columns[metric]), minlength=len(found)) > 0
    _pairs(found, question, np.flatnonzero(measured))
    return replace(question, metric=metric)


def look_at(points: Points, question: BestOf, design: Design, seeds: Sequence[int], look: int) -> LookTaken:
    """What the rule says at a look: a function of the numbers of its seeds alone.

    Args:
        points: those of a study, with at least the seeds of this look.
        question: what is asked.
        design: what was announced.
        seeds: in the order in which they are added.
        look: from 0.

    Returns:
        The best of each group and its rivals. Configurations with a failed point, or without a value
        for some seed, do not take part, nor those that know more than others: they are left out, and
        told.

    Raises:
        QueryError: an unknown name, or nothing to compare.
    """
    columns = of_points(points)
    metric = metric_of(columns, question.metric)
    check("--until best", [question.of], axes_of(columns))
    check("--by", question.by, axes_of(columns))
    n = design.looks[look]
    where = f"seed in [{', '.join(str(seed) for seed in seeds[:n])}]"
    found = configurations(columns, question.at, where, question.by)
    refuse_mixed_data_sets(found, (question.of, *question.by), metric)
    values = _in_order(found, metric, seeds[:n])
    rows = np.flatnonzero(np.isfinite(values).all(axis=1))
    pairs, label, group = _pairs(found, question, rows)
    left_out = (*_not_compared(chosen(columns, where), question), *_without_values(found, metric, values, seeds[:n]))
    after = verdicts(values[rows], pairs, design, look + 1)
    cost = (-values if columns.higher_is_better(metric) else values)[rows].mean(axis=1)
    nfe = found.mean("nfe")[rows]
    place = {key: i for i, key in enumerate(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))}
    told: list[Spec] = []
    for member in np.unique(group):
        mine = np.flatnonzero(group == member)
        order = mine[np.lexsort((mine, nfe[mine], cost[mine]))]
        _, firsts = np.unique(label[order], return_index=True)
        lead, *rivals = order[np.sort(firsts)].tolist()
        for rival in rivals:
            pair = place[min(lead, rival), max(lead, rival)]
            compared = _compared(after, pair, lead < rival, design, more_is_better=columns.higher_is_better(metric))
            told.append(
                {
                    **{name: str(found.labels[name][rows[lead]]) for name in question.by},
                    "best": _plain(found.labels[question.of][rows[lead]]),
                    "rival": _plain(found.labels[question.of][rows[rival]]),
                    "best_at": _where(found, int(rows[lead]), question),
                    "rival_at": _where(found, int(rows[rival]), question),
                    "best_mean": float(values[rows[lead]].mean()),
                    "rival_mean": float(values[rows[rival]].mean()),
                    **compared,
                }
            )
    return LookTaken(n, metric, tuple(told), left_out)


def _pairs(found: Configurations, question: BestOf, rows: np.ndarray) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """The pairs among some configurations, and the label and the group of each of these ``[row]``."""
    group = Groups(found.labels, question.by, len(found)).codes[rows]
    label = factorize(found.labels[question.of])[0][rows]
    pairs = all_pairs(label, group, one_family=True)
    if not len(pairs.first):
        raise QueryError(
            f"--until {shown(str(question))}: nothing to compare: no group has two values of {question.of} with all seeds"
        )
    return pairs, label, group


def _not_compared(columns: Columns, question: BestOf) -> list[Spec]:
    """The configurations that satisfy the condition, and have failed or know more than others."""
    columns = columns.rows(columns["status"] != "skipped")
    knowing = np.zeros(columns.size, dtype=bool) if "sampler" in question.by else knowing_beside_others(columns)
    failed = columns["status"] != "ok"
    fits = np.ones(columns.size, dtype=bool)
    if question.at is not None:
        unknown = failed & (not named(parse(question.at)) <= _LABELS)
        fits = satisfied(question.at, columns, columns.size, "--until") | unknown
    groups = Groups(columns, CONFIGURATION, columns.size)
    told: list[Spec] = []
    for i in range(len(groups)) if (knowing | failed).any() else ():
        mine = groups.codes == i
        if not fits[mine].all() or not (knowing | failed)[mine].any():
            continue
        at = sorted(map(int, columns["seed"][mine & failed]))
        reason = _KNOWS if knowing[mine].any() else f"failed at seed {', '.join(map(str, at))}"
        told.append({**{name: _plain(groups.labels[name][i]) for name in CONFIGURATION}, "reason": reason})
    return told


def _without_values(found: Configurations, metric: str, values: np.ndarray, seeds: Sequence[int]) -> list[Spec]:
    """The configurations that lack a finite value at some seed."""
    return [
        {
            **{name: _plain(found.labels[name][i]) for name in CONFIGURATION},
            "reason": f"no value of {metric} at seed "
            + ", ".join(str(seed) for seed, value in zip(seeds, values[i], strict=True) if not np.isfinite(value)),
        }
        for i in np.flatnonzero(~np.isfinite(values).all(axis=1))
    ]


def _in_order(found: Configurations, metric: str, seeds: Sequence[int]) -> np.ndarray:
    """Values ``[configuration, seed]`` in the order of the seeds, NaN where there is none."""
    place = {seed: i for i, seed in enumerate(seeds)}
    at = np.array([place[int(seed)] for seed in found.columns["seed"]], dtype=np.int64)
    values = np.full((len(found), len(seeds)), np.nan)
    values[found.codes, at] = found.columns[metric]
    return values


def _compared(after: AfterLook, pair: int, forward: bool, design: Design, *, more_is_better: bool) -> Spec:
    """The verdict on a pair, told as the rival against the best; forward where the best is the
    pair's first.
    """
    tests = after.contrasts
    logarithmic = bool(tests.logarithmic[pair])
    middle = float((tests.factor if logarithmic else tests.change)[pair])
    low, high = float(after.low[pair]), float(after.high[pair])
    if not forward:
        middle, low, high = (
            (1 / middle, 1 / high, 1 / low if low > 0 else np.inf) if logarithmic else (-middle, -high, -low)
        )
    worse = int(after.direction[pair]) * (1 if forward else -1) * (-1 if more_is_better else 1)
    apart, equivalent = int(after.apart[pair]), int(after.equivalent[pair])
    if worse > 0 and (equivalent == NOT_YET or apart <= equivalent):
        verdict, since = APART, apart
    elif equivalent != NOT_YET:  # also of a rival that is better by less than the margin
        verdict, since = EQUIVALENT, equivalent
    else:
        verdict, since = (CONTRADICTED if worse < 0 else OPEN), apart
    return {
        "scale": "logarithmic" if logarithmic else "linear",
        "difference": _number(middle),
        "low": _number(low),
        "high": _number(high),
        "verdict": verdict,
        "since": None if since == NOT_YET else design.looks[since],
    }


def _where(found: Configurations, row: int, question: BestOf) -> str:
    """The rest of a configuration."""
    names = [name for name in CONFIGURATION if name not in (question.of, *question.by)]
    return ", ".join(f"{name} {found.labels[name][row]}" for name in names)


def _plain(label: object) -> Plain:
    return int(label) if isinstance(label, int | np.integer) else str(label)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
