"""Asking stored results: filter, group, reduce, and write as text or files.

`--where` is a small language of its own, read with Python's parser but never evaluated by it: comparisons, ``in``, ``and``,
``or``, ``not``, parentheses, names of columns, numbers and quoted texts.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from tasks.components import nearest
from tasks.results import metric_names
from tasks.split import BESIDE

STATISTICS: dict[str, Callable[[Any], Any]] = {
    "mean": lambda g: g.mean(),
    "std": lambda g: g.std(),
    "sem": lambda g: g.sem(),
    "min": lambda g: g.min(),
    "max": lambda g: g.max(),
    "median": lambda g: g.median(),
    "count": lambda g: g.count(),
}
DEFAULT_STATISTICS = ("mean", "sem", "count")
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_LONGEST = 10_000


class QueryError(ValueError):
    """A question that makes no sense; the message says where and what would."""


def where(frame: pd.DataFrame, expression: str) -> np.ndarray:
    """The rows that satisfy `expression`, as truth values. Raises `QueryError`."""
    if len(expression) > _LONGEST:
        raise QueryError(f"--where is longer than {_LONGEST} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        at = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        raise QueryError(
            f"--where {expression!r}: not understood{at} (try: sampler == 'heun' and steps <= 20)"
        ) from error
    try:
        return np.asarray(_truth(tree.body, frame), dtype=bool)
    except RecursionError as error:
        raise QueryError("--where is nested too deeply") from error


def _truth(node: ast.expr, frame: pd.DataFrame) -> np.ndarray:
    match node:
        case ast.BoolOp():
            parts = [_truth(value, frame) for value in node.values]
            reduce = np.logical_and.reduce if isinstance(node.op, ast.And) else np.logical_or.reduce
            return np.asarray(reduce(parts))
        case ast.UnaryOp(op=ast.Not()):
            return ~_truth(node.operand, frame)
        case ast.Compare():
            values = [_value(side, frame) for side in (node.left, *node.comparators)]
            pairs = zip(node.ops, values[:-1], values[1:], strict=True)
            return np.asarray(np.logical_and.reduce([_compare(op, a, b, len(frame)) for op, a, b in pairs]))
        case _:
            raise QueryError(f"--where: expected a comparison, found {ast.unparse(node)!r}")


def _compare(op: ast.cmpop, left: Any, right: Any, size: int) -> np.ndarray:
    if isinstance(op, ast.In | ast.NotIn):
        if not isinstance(right, list):
            raise QueryError("--where: after 'in' comes a list, such as ['euler', 'heun']")
        among = np.isin(np.asarray(left), right) if len(right) else np.zeros(size, dtype=bool)
        return np.broadcast_to(among if isinstance(op, ast.In) else ~among, (size,))
    if isinstance(left, list) or isinstance(right, list):
        raise QueryError("--where: a list stands after 'in' only")
    if type(op) not in _COMPARE:
        raise QueryError("--where knows ==, !=, <, <=, >, >=, in, not in")
    texts = [np.asarray(side).dtype.kind in "OUT" for side in (left, right)]
    if texts[0] != texts[1]:
        raise QueryError("--where compares a text with a number (texts are quoted: sampler == 'heun')")
    return np.broadcast_to(np.asarray(_COMPARE[type(op)](left, right), dtype=bool), (size,))


def _value(node: ast.expr, frame: pd.DataFrame) -> Any:
    match node:
        case ast.Name():
            return _column(node.id, frame)
        case ast.BinOp(op=ast.Sub()):  # names with a dash: torus-distance
            name = ast.unparse(node).replace(" ", "")
            return _column(name, frame)
        case ast.Constant(value=bool()) | ast.Constant(value=None):
            raise QueryError(f"--where: {ast.unparse(node)} is neither a number nor a quoted text")
        case ast.Constant(value=int() | float() | str()):
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List() | ast.Tuple():
            return [_value(item, frame) for item in node.elts]
        case _:
            raise QueryError(f"--where: expected a column, a number or a quoted text, found {ast.unparse(node)!r}")


def _column(name: str, frame: pd.DataFrame) -> Any:
    if name not in frame.columns:
        near = nearest(name, list(frame.columns))
        hint = f"; did you mean {near!r}?" if near else ""
        raise QueryError(
            f"--where: no column {name!r}{hint} (texts are quoted; columns: {', '.join(map(str, frame.columns))})"
        )
    return frame[name].to_numpy()


def query(
    points: xr.Dataset,
    expression: str | None = None,
    by: Sequence[str] = (),
    metrics: Sequence[str] = (),
    statistics: Sequence[str] = DEFAULT_STATISTICS,
) -> pd.DataFrame:
    """Records: the `by` columns and ``<metric>_<statistic>``; without `by` one record per point. Raises `QueryError`."""
    frame = points.to_dataframe().reset_index(drop=True)
    known = metric_names(points)
    beside = [f"{m}{suffix}" for m in known for suffix in BESIDE if f"{m}{suffix}" in points]
    for kind, asked, there in (
        ("metric", metrics, [*known, *beside]),
        ("--by", by, list(frame.columns)),
        ("--stat", statistics, STATISTICS),
    ):
        for name in asked:
            if name not in there:
                near = nearest(name, list(there))
                hint = f"; did you mean {near!r}?" if near else ""
                raise QueryError(
                    f"{kind} {name!r} is unknown{hint} (there are: {', '.join(map(str, there)) or 'none yet'})"
                )
    if expression:
        frame = frame[where(frame, expression)]
    chosen = list(metrics) or known
    if not by:
        unwanted = [
            name
            for name in (*known, *beside)
            if name not in chosen and not any(name == m + suffix for m in chosen for suffix in BESIDE)
        ]
        return frame.drop(columns=unwanted).reset_index(drop=True)
    frame = frame[frame["status"] == "ok"]
    groups = frame.groupby(list(by), sort=True)
    columns = {f"{metric}_{name}": STATISTICS[name](groups[metric]) for metric in chosen for name in statistics}
    return pd.DataFrame(columns, index=None if len(frame) else groups.size().index).reset_index()
