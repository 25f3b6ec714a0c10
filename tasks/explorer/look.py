"""What is asked of the explorer: everything that a view depends on, which is what the page's
address holds. A link is therefore a view.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.columns import CONFIGURATION, OF_SAMPLER, metrics_among
from tasks.query import STATISTICS, QueryError
from tasks.query.records import metric_columns
from tasks.where.columns import PointColumns, check
from tasks.where.language import LONGEST

VIEWS = ("curves", "heat", "scatter", "moved")
BANDS = ("sem", "ci95", "std", "none")
CENTRES = tuple(name for name in STATISTICS if name not in BANDS)

_PREFERRED = "w1"


@dataclass(frozen=True)
class Look:
    """A view that is asked for.

    Args:
        study: the name of one; None: the whole store.
        as_of: a snapshot, a tag or a time; None: the newest snapshot, whichever that is.
        before: the other snapshot of the view ``moved``.
        view: one of `VIEWS`.
        metric: what is looked at; None: `w1`, or the first that there is.
        x: the column along the first axis.
        y: of a heat map, the column along the other axis.
        where: a condition of `tasks.where.language` that the points satisfy; empty: all.
        by: what the points are grouped by; None: all labels of a configuration, the seed not among
            them.
        statistic: one of `CENTRES`, what is said of a group.
        band: one of `BANDS`, how wide the band around a mean is; other statistics have none.
        each: every seed by itself instead of what is said of all of them.
        only: labels that all rows share are not repeated row by row.
        baseline: the condition of a series that the others are divided by; empty: none.
        ticked: the conditions of the rows that are compared.
    """

    study: str | None = None
    as_of: str | None = None
    before: str | None = None
    view: str = "curves"
    metric: str | None = None
    x: str = "steps"
    y: str | None = None
    where: str = ""
    by: tuple[str, ...] | None = None
    statistic: str = "mean"
    band: str = "sem"
    each: bool = False
    only: bool = True
    baseline: str = ""
    ticked: tuple[str, ...] = ()

    def value(self) -> dict[str, str | list[str]]:
        """As the page's address says it; what is as usual is left out."""
        usual = Look()
        texts = {
            "study": self.study,
            "at": self.as_of,
            "before": self.before,
            "metric": self.metric,
            "y": self.y,
            "by": None if self.by is None else ",".join(self.by),
        }
        found: dict[str, str | list[str]] = {name: text for name, text in texts.items() if text is not None}
        for name, own in (("view", "view"), ("x", "x"), ("where", "where"), ("stat", "statistic"), ("band", "band")):
            if getattr(self, own) != getattr(usual, own):
                found[name] = getattr(self, own)
        found |= {"each": "1"} if self.each else {}
        found |= {} if self.only else {"all": "1"}
        found |= {"base": self.baseline} if self.baseline else {}
        found |= {"tick": list(self.ticked)} if self.ticked else {}
        return found


def read(given: Mapping[str, Sequence[str]]) -> Look:
    """What an address asks; the opposite of `Look.value`.

    Args:
        given: the values of each parameter.

    Returns:
        The question, whose columns are not looked up yet.

    Raises:
        QueryError: a parameter has no meaning, or says what there is not.
    """
    known = ("study", "at", "before", "view", "metric", "x", "y", "where", "by", "stat", "band", "each", "all", "base")
    check("parameter", list(given), [*known, "tick", "point", "logx", "logy"])
    last = {name: values[-1] for name, values in given.items() if values and values[-1]}
    found = Look(
        study=last.get("study"),
        as_of=last.get("at"),
        before=last.get("before"),
        view=last.get("view", "curves"),
        metric=last.get("metric"),
        x=last.get("x", "steps"),
        y=last.get("y"),
        where=last.get("where", "").strip(),
        by=None if "by" not in given else tuple(names(last.get("by", ""))),
        statistic=last.get("stat", "mean"),
        band=last.get("band", "sem"),
        each=last.get("each") == "1",
        only=last.get("all") != "1",
        baseline=last.get("base", ""),
        ticked=tuple(dict.fromkeys(given.get("tick", ()))),
    )
    for kind, value, accepted in (
        ("view", found.view, VIEWS),
        ("stat", found.statistic, CENTRES),
        ("band", found.band, BANDS),
    ):
        check(kind, [value], accepted)
    if len(found.where) + len(found.baseline) > LONGEST:
        raise QueryError(f"the filter is longer than {LONGEST} characters")
    return found


def names(text: str) -> list[str]:
    """The names in a list such as ``a,b``; commas in brackets belong to a name."""
    return [name.strip() for name in re.split(r",(?![^(]*\))", text) if name.strip()]


def configuration(points: PointColumns) -> tuple[str, ...]:
    """All labels of a configuration that the points have: what a mean over seeds is of."""
    return (*CONFIGURATION, *(name for name in OF_SAMPLER if name in points))


def settled(look: Look, points: PointColumns) -> Look:
    """The question with what it leaves open: metric and groups.

    Raises:
        QueryError: nothing was measured yet, or a name is no column.
    """
    metric = look.metric
    there = metric_columns(points)
    if metric is None:
        plain = points.metrics() or metrics_among(there)
        if not plain:
            raise QueryError("nothing is measured yet: no point here has a metric")
        metric = _PREFERRED if _PREFERRED in plain else plain[0]
    check("metric", [metric], there)
    by = configuration(points) if look.by is None else look.by
    check("--by", by, list(points))
    axes = [look.x, *([look.y] if look.y else [])]
    check("axis", axes, list(points))
    return replace(look, metric=metric, by=tuple(dict.fromkeys(by)))
