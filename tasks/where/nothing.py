"""Why a condition leaves no row: the part of it that does, and what its columns hold there."""

from __future__ import annotations

import numpy as np

from tasks.messages import LONGEST_SHOWN, counted, nearest
from tasks.where.columns import Columns
from tasks.where.conditions import holds
from tasks.where.language import Among, Column, Condition, Constant, Not, Relation, Several, Side, named, parse

_MOST = 12


def why_nothing(expression: str, columns: Columns, option: str = "--where") -> str | None:
    """One sentence on the first part of an expression that none of the rows satisfies which satisfy
    the parts before it: the part, and the values of its columns there. None if some row satisfies
    all, or there are no rows.

    Args:
        expression: A condition that can be understood.
        columns: The rows that it was asked of.
        option: What the sentence calls the expression.

    Raises:
        QueryError: The expression cannot be understood.
    """
    whole = parse(expression)
    parts = whole.parts if isinstance(whole, Several) and whole.every else (whole,)
    for k, part in enumerate(parts):
        if not columns.size:
            return None
        kept = holds(part, columns, columns.size)
        if not kept.any():
            before = f" with {' and '.join(map(_worded, parts[:k]))}" if k else ""
            there = "; ".join(_values(name, columns, part) for name in sorted(named(part)))
            return f"{option}: {_worded(part)} holds of none of the {counted(columns.size, 'point')}{before} ({there})"
        columns = columns.rows(kept)
    return None


def _worded(condition: Condition) -> str:
    """A condition as it may be written."""
    match condition:
        case Relation(left, relation, right):
            return f"{_side(left)} {relation} {_side(right)}"
        case Not(part):
            return f"not ({_worded(part)})"
        case Several(every, parts):
            return "(" + (" and " if every else " or ").join(map(_worded, parts)) + ")"


def _side(side: Side) -> str:
    match side:
        case Column(name):
            return name
        case Constant(value):
            return repr(value)
        case Among(values):
            return repr(list(values))


def _values(name: str, columns: Columns, part: Condition) -> str:
    """What a column holds, and which of its texts was probably meant."""
    values = columns[name]
    if values.dtype.kind in "OUT":
        known = sorted({str(value) for value in values})
        near = next((near for text in _texts(part) if (near := nearest(text, known))), None)
        few = [text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..." for text in known[:_MOST]]
        more = f" and {len(known) - _MOST} more" if len(known) > _MOST else ""
        return f"{name} there: {', '.join(repr(text) for text in few)}{more}" + (
            f"; did you mean {near!r}?" if near else ""
        )
    numbers = np.unique(values[np.isfinite(values.astype(float))])
    if not len(numbers):
        return f"{name} there: no number"
    if len(numbers) <= _MOST:
        return f"{name} there: {', '.join(f'{number:.6g}' for number in numbers)}"
    return f"{name} there: {numbers[0]:.6g} to {numbers[-1]:.6g}"


def _texts(condition: Condition) -> list[str]:
    """The texts that a condition compares with."""
    match condition:
        case Relation(left, _, right):
            found = [side.value for side in (left, right) if isinstance(side, Constant)]
            found += list(right.values) if isinstance(right, Among) else []
            return [value for value in found if isinstance(value, str)]
        case Not(part):
            return _texts(part)
        case Several(_, parts):
            return [text for part in parts for text in _texts(part)]
