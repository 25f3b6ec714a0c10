"""A comparison for whoever was not there: which numbers moved, the most significant first, short
enough for a message.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from tasks.compare.groups import BETTER, UNTESTABLE, WORSE
from tasks.compare.show import plain_records
from tasks.query.tables import brief

if TYPE_CHECKING:
    from tasks.compare.changes import Comparison
    from tasks.plain import Spec

MOST = 20
"""So many groups of points a message names; of the others it has the count."""

_FACTS = ("verdict", "change", "factor", "error", "spreads", "p_corrected", "seeds_after", "reason")
_IN_TEXT = 8


def moves(comparison: Comparison, most: int = MOST) -> Spec:
    """What moved beyond the noise of the seeds, or changed where there are too few of them to tell.

    A change that no test can judge is among them only if a point with the same labels and the same
    seed has another value than before: a mean to which seeds were added has not moved.

    Args:
        comparison: of two snapshots of one study.
        most: so many groups are named, those that are sure first.

    Returns:
        `moved`, the groups, each with its `metric`, the labels that make it (`at`), `old` and
        `new`, and how surely it moved; `more`, how many others there are; `worse`, `better` and
        `untested`, how many of all of them; `text`, the first ones as lines. Values are plain; a
        number that is not known is None.
    """
    groups = comparison.groups
    keys = [*comparison.by, "metric"]
    points = comparison.values
    both = points[np.isfinite(points["before"]) & np.isfinite(points["after"])]
    changed = set(both[keys].itertuples(index=False, name=None))
    same_points = np.array([key in changed for key in groups[keys].itertuples(index=False, name=None)], dtype=bool)
    judged = groups["verdict"].isin((WORSE, BETTER)).to_numpy(dtype=bool)
    change = groups["change"].to_numpy(dtype=np.float64)
    untested = (groups["verdict"] == UNTESTABLE).to_numpy(dtype=bool) & (np.nan_to_num(change) != 0) & same_points
    found = groups[judged | untested]
    moved = [
        {
            "metric": row["metric"],
            "at": {name: row[name] for name in comparison.by},
            "old": row["before"],
            "new": row["after"],
            **{name: row[name] for name in _FACTS},
        }
        for row in plain_records(found.head(most))
    ]
    return {
        "moved": moved,
        "more": len(found) - len(moved),
        "worse": comparison.count(WORSE),
        "better": comparison.count(BETTER),
        "untested": int(untested.sum()),
        "text": _lines(moved, len(found)),
    }


def _lines(moved: list[Spec], total: int) -> str:
    lines = [_line(row) for row in islice(moved, _IN_TEXT)]
    return "\n".join([*lines, f"and {total - len(lines)} more"] if total > len(lines) else lines)


def _line(row: Spec) -> str:
    at = " ".join(str(value) for value in row["at"].values())
    chance = row["p_corrected"]
    surely = row["reason"] if chance is None else f"p = {chance:.1g}, corrected"
    return f"{row['metric']} of {at}: {brief(row['old'])} -> {brief(row['new'])} ({row['verdict']}: {surely})"
