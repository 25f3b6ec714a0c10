"""Which rows satisfy a condition: each comparison is one pass over a column, and only columns that
are named are read.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import TypeAlias

import numpy as np

from tasks.columns import MetricColumns, metrics_among
from tasks.messages import nearest, shown
from tasks.where.language import (
    Among,
    Column,
    Condition,
    Constant,
    Not,
    QueryError,
    Relation,
    Several,
    Side,
    UnknownColumn,
    parse,
)

Values: TypeAlias = "np.ndarray | float | str"
"""A column, or one value that is compared with a column or with another one."""

Truth: TypeAlias = "np.ndarray | bool | np.bool_"

_COMPARE: dict[str, Callable[[Values, Values], Truth]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def satisfied(expression: str, columns: Mapping[str, np.ndarray], size: int, option: str = "--where") -> np.ndarray:
    """The rows that satisfy an expression, as truth values ``[size]``; `option` is what errors call
    it.

    Raises:
        QueryError: the expression cannot be understood, or compares what cannot be compared.
    """
    try:
        return holds(parse(expression), columns, size)
    except QueryError as error:
        raise type(error)(f"{option} {shown(expression)}: {error}") from error.__cause__


def holds(condition: Condition, columns: Mapping[str, np.ndarray], size: int) -> np.ndarray:
    """As `satisfied`, of an expression that has been read."""
    with np.errstate(all="ignore"):
        found = np.asarray(_holds(condition, columns), dtype=bool)
    return np.broadcast_to(found, (size,)).copy()


def _holds(condition: Condition, columns: Mapping[str, np.ndarray]) -> Truth:
    match condition:
        case Relation(left, relation, right):
            return _compare(left, relation, right, columns)
        case Not(part):
            return np.logical_not(_holds(part, columns))
        case Several(every, parts):
            return reduce(np.logical_and if every else np.logical_or, (_holds(part, columns) for part in parts))


def _compare(left: Column | Constant, relation: str, right: Side, columns: Mapping[str, np.ndarray]) -> Truth:
    first = _values(left, columns)
    second = right.values if isinstance(right, Among) else (_values(right, columns),)
    if any(_kind(value) != _kind(first) for value in second):
        raise QueryError(_mixed(left if isinstance(left, Column) else right))
    try:
        if isinstance(right, Among):
            among = _is_among(first, right.values)
            return among if relation == "in" else np.logical_not(among)
        return _COMPARE[relation](first, second[0])
    except (TypeError, ValueError) as error:  # a column of mixed things, out of a frame that is not ours
        names = " and ".join(shown(side.name) for side in (left, right) if isinstance(side, Column))
        raise QueryError(f"{names} cannot be compared by {relation}: {shown(str(error))}") from error


def _is_among(values: Values, known: tuple[float | str, ...]) -> Truth:
    if not known:
        return np.zeros(np.shape(values), dtype=bool)
    if len(known) <= 16:
        return reduce(np.logical_or, (values == value for value in known))
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "OUT":
            return np.isin(values, known)
        import pandas as pd

        return pd.Index(values).isin(list(known))
    return values in known


def _mixed(side: Side) -> str:
    name = f" ({shown(side.name)})" if isinstance(side, Column) else ""
    return f"it compares a text with a number{name}; texts are quoted: sampler == 'heun'"


def _kind(values: Values) -> str:
    if isinstance(values, np.ndarray):
        return "text" if values.dtype.kind in "OUT" else "number"
    return "text" if isinstance(values, str) else "number"


def _values(side: Column | Constant, columns: Mapping[str, np.ndarray]) -> Values:
    return side.value if isinstance(side, Constant) else _column(side.name, columns)


def _column(name: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """The values under a name. Raises `QueryError` with the nearest name if there are none."""
    if name not in columns:
        near = nearest(name[:200], list(columns))
        hint = f"; did you mean {near!r}?" if near else ""
        raise UnknownColumn(f"no column {shown(name)}{hint} (texts are quoted; columns: {listed(columns)})")
    return columns[name]


def listed(names: Iterable[str]) -> str:
    """Names for a message; what stands beside a metric is left out, unless there is nothing else."""
    known = dict.fromkeys(names)
    beside = {name for metric in metrics_among(known) for name in MetricColumns(metric).beside}
    short = [name for name in known if name not in beside]
    return ", ".join(short or known) or "none yet"
