"""Answers of pure functions that are worth keeping."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def remembered(most: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep the last `most` answers of a pure function of components.

    A component that cannot be hashed is asked every time.
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        remembering = lru_cache(maxsize=most)(function)

        @wraps(function)
        def answer(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                hash(args)
            except TypeError:  # a user's dataset may hold lists
                return function(*args, **kwargs)
            return cast("Callable[P, R]", remembering)(*args, **kwargs)

        return answer

    return wrap
