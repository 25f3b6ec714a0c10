"""Which values an option of another library's sampler may have: libraries take any number, and some
of them give samples of no law, or of another rule than the one that is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusion.errors import WrongValue

FIXED_VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
"""Of diffusers; the other two ask a network for the variance."""


@dataclass(frozen=True)
class Within:
    """Numbers from `least` to `most`."""

    least: float = 0.0
    most: float | None = None
    beyond: bool = False  # `least` itself is none of them

    def __contains__(self, value: float) -> bool:
        above = value > self.least if self.beyond else value >= self.least  # false of NaN
        return above and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.beyond:
            return f"above {self.least:g}" + ("" if self.most is None else f" and at most {self.most:g}")
        return f"at least {self.least:g}" if self.most is None else f"from {self.least:g} to {self.most:g}"


def check_options(name: str, chosen: Mapping[str, Any], limits: Mapping[str, Within]) -> None:
    """Hold the options of a sampler against what has a meaning: orders are at least 1 and all other
    numbers at least 0, but for those with limits of their own.

    Raises:
        WrongValue: one is outside; the text says what is accepted.
    """
    for option, value in chosen.items():
        if option == "variance_type" and value is not None and value not in FIXED_VARIANCES:
            listed = ", ".join(FIXED_VARIANCES)
            raise WrongValue(f"{option}: found {value!r}; {name} without a network for it takes: {listed}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        accepted = limits.get(option, Within(1.0 if option.endswith("order") else 0.0))
        if value not in accepted:
            raise WrongValue(f"{option}: found {value:g}; {name} takes numbers {accepted}")
