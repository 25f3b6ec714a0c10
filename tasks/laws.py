"""Of which law the rows of a table are: numbers measured against different laws are not to be pooled.

As a rule samples should follow their data set. Some samplers have a target of their own (`diffusion.samplers.Sampler.target`), the law
in noise, and its sampling floor is another one: in proportion to the law's width, a thousand times as large where variance explodes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_SAME = 0.05


def from_data(sampler: str) -> bool:
    """Whether a row's sampler goes from the data to the noise, by its label; False for one that is not registered here."""
    from diffusion.samplers import samplers  # with torch, which not every reader of a table needs

    name = re.split(r"[ (]", sampler, maxsplit=1)[0]
    return name in samplers and samplers.find(name).needs == "law"


def distinct(floors: Iterable[float]) -> list[float]:
    """The different ones among sampling floors, ascending; such as lie within 5 % of the least of them are told as that one."""
    found: list[float] = []
    for floor in sorted(value for value in floors if math.isfinite(value)):
        if not found or floor > (1 + _SAME) * found[-1]:
            found.append(floor)
    return found
