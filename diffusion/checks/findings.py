"""What was claimed, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

C = TypeVar("C")

_NAMED = 3  # of what fails, so many are named


@dataclass(frozen=True)
class ClaimFound:
    """One claim of a component, held against what it does.

    Args:
        claim: what a component of its kind promises, in a few words.
        holds: whether it does.
        expected: the number or the answer that keeps the promise.
        found: the one that was found, and where it breaks the promise.
    """

    claim: str
    holds: bool
    expected: str
    found: str


Check = Callable[[C], ClaimFound | None]
"""A claim looked at; None where a component makes no such claim."""


def findings_of(component: C, checks: Iterable[tuple[str, Check[C]]]) -> Iterator[ClaimFound]:
    """What each of the checks says of a component, in their order; a check that ends in an error is
    a claim that fails.

    Args:
        component: what is looked at.
        checks: the claim of each, and the function that looks.
    """
    for claim, check in checks:
        try:
            found = check(component)
        except Exception as error:  # noqa: BLE001 - whatever somebody's own code raises is what was found
            found = ClaimFound(claim, False, "an answer", f"{type(error).__name__}: {error}")
        if found is not None:
            yield found


def none_of(claim: str, expected: str, bad: Sequence[str]) -> ClaimFound:
    """A claim that holds if nothing was found against it."""
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    return ClaimFound(claim, not bad, expected, "; ".join(bad[:_NAMED]) + more if bad else "so it is")


def within(claim: str, expected: str, error: float, allowed: float) -> ClaimFound:
    """A claim that holds if an error is small enough; one that is NaN is not."""
    return ClaimFound(claim, error <= allowed, f"{expected}, to {allowed:.1g}", f"off by {error:.2g}")
