"""A view to take away: the command that prints its numbers, and the Python that gives them.

Both name the snapshot, so that they give the same numbers when the store has gone on.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.plain import Spec
from tasks.where.columns import PointColumns


@dataclass(frozen=True)
class Asked:
    """One question to `tasks.query`, as it was put.

    Args:
        what: which numbers of the view it gives.
        where: the condition; empty: none.
        by: groups; none: one record a point.
        metrics: columns.
        statistics: what is said of them; none: the question is `pareto`, of `metrics`.
    """

    what: str
    where: str
    by: tuple[str, ...]
    metrics: tuple[str, ...]
    statistics: tuple[str, ...] = ()

    def document(self, points: PointColumns) -> Spec:
        """The question as the page shows it."""
        return {"what": self.what, "command": self.command(points), "python": self.python(points)}

    def command(self, points: PointColumns) -> str:
        """As a command line."""
        words = ["diffatlas", "query", *source(points)]
        words += ["--where", self.where] if self.where else []
        words += ["--by", ",".join(self.by)] if self.by else []
        if self.by and not self.statistics:
            words += ["--pareto", ",".join(self.metrics)]
        else:
            words += ["--metric", ",".join(self.metrics)] if self.metrics else []
            words += ["--stat", ",".join(self.statistics)] if self.statistics else []
        return " ".join(map(_quoted, words))

    def python(self, points: PointColumns) -> str:
        """As lines of Python."""
        attrs = points.attrs
        named = {"study": attrs.get("study") or None, "as_of": attrs.get("snapshot")}
        more = "".join(f", {name}={value!r}" for name, value in named.items() if value)
        opened = f"points = da.open_results({address_of(str(attrs['store']))!r}{more})"
        where, by = self.where or None, list(self.by)
        if self.by and not self.statistics:
            asked = f"points.atlas.pareto({self.metrics!r}, by={by!r}, where={where!r})"
        elif self.by:
            asked = f"da.query(points, {where!r}, {by!r}, {list(self.metrics)!r}, {list(self.statistics)!r})"
        else:
            asked = f"da.query(points, {where!r}, metrics={list(self.metrics)!r})"
        return f"import diffatlas as da\n\n{opened}\nframe = {asked}\n"


def source(points: PointColumns) -> list[str]:
    """The options that name what was opened."""
    attrs = points.attrs
    words = ["--store", address_of(str(attrs["store"]))]
    words += ["--study", str(attrs["study"])] if attrs.get("study") else []
    return [*words, "--as-of", str(attrs["snapshot"])]


def _quoted(word: str) -> str:
    """A word of a command line, in the quotes that leave it as it reads."""
    plain = "'" in word and not set(word) & set('"$`\\!\n')
    return f'"{word}"' if plain else shlex.quote(word)


def address_of(store: str) -> str:
    """A store's address from whichever folder it is asked."""
    return store if "://" in store else str(Path(store).absolute())


def condition(labels: Sequence[tuple[str, object]]) -> str:
    """The condition, in the language of `--where`, that a row's points satisfy and others do not.

    Args:
        labels: columns with their values.

    Returns:
        Such as ``formulation == 'edm' and steps == 10``.
    """
    return " and ".join(_equal(name, value) for name, value in labels)


def both(first: str, second: str) -> str:
    """The condition of what satisfies both; an empty one is satisfied."""
    return f"({first}) and {second}" if first and second else first or second


def _equal(name: str, value: object) -> str:
    column = name if name.replace("_", "a").isalnum() and not name[0].isdigit() else f"`{name}`"
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{column} == '{text}'"
    number = float(value)  # type: ignore[arg-type]
    if math.isnan(number):
        return f"{column} != {column}"
    if math.isinf(number):
        return f"{column} == {'-' if number < 0 else ''}1e999"
    return f"{column} == {int(number) if number.is_integer() and abs(number) < 2**53 else repr(number)}"
