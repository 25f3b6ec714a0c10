"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

ROUNDING = 1e-12
"""So much of a number is rounding where it is a difference of others."""
NOTHING = 1e-15
"""A number of the size of one is not known to be more than nothing below this."""
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 3) -> str:
    """`value` to so many significant digits: ``0.0123``, ``1.23×10⁸``; ``–`` where there is none.

    >>> number(0.012345), number(123456789.0), number(0.0)
    ('0.0123', '1.23×10⁸', '0')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -4 <= power < 4:
        return f"{float(f'{value:.{digits - 1}e}'):.{max(digits - 1 - power, 0)}f}".replace("-", "−")
    return f"{mantissa}×10{str(power).translate(_RAISED)}".replace("-", "−")


def error(mean: float, sem: float) -> str:
    """``± standard error``; empty where there is none, or none beyond rounding.

    >>> error(0.0123, 0.00042), error(0.0123, 2.5e-18)
    ('± 0.00042', '')
    """
    return f"± {number(sem, 2)}" if sem > max(ROUNDING * abs(mean), NOTHING) else ""


def plus_minus(mean: float, sem: float) -> str:
    """``mean ± standard error``; the mean alone where a single seed gives no error, or where seeds
    differ by no more than rounding does.

    >>> plus_minus(0.0123, 0.00042), plus_minus(1.2e-17, 2.5e-18)
    ('0.0123 ± 0.00042', '0')
    """
    return f"{written(mean)} {error(mean, sem)}".rstrip()


def written(mean: float) -> str:
    """A mean alone, with what is nothing but rounding as nothing.

    >>> written(0.0123), written(1.2e-17)
    ('0.0123', '0')
    """
    return number(0.0 if abs(mean) <= NOTHING else mean)


def capital(text: str) -> str:
    """With its first letter as a sentence begins; the rest stays."""
    return text[:1].upper() + text[1:]


def some(names: Sequence[str], most: int = 4) -> str:
    """The first few of a list, and how many more there are.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def listing(names: Sequence[str]) -> str:
    """All of a list, as a sentence has it.

    >>> listing(["a"]), listing(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
