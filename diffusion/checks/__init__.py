"""What a component promises, held against what it does: pure functions, a component in, findings
out.

- `samplers`: order, cost, noise, independence of neighbours, numbers that are finite;
- `schedules`: amplitudes, derivatives and the inverse; the levels of grids;
- `datasets`: draws, density, score, denoiser;
- `metrics`: floors, and what is worse;
- `known`: models that are known exactly, and what a sampler is driven with;
- `findings`: a claim, and what was found.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator

from diffusion.checks.datasets import check_dataset
from diffusion.checks.findings import ClaimFound, findings_of
from diffusion.checks.metrics import check_metric
from diffusion.checks.samplers import check_sampler
from diffusion.checks.schedules import check_grid, check_schedule
from diffusion.datasets import Dataset
from diffusion.metrics import BaseMetric
from diffusion.registry import Component
from diffusion.samplers import Sampler
from diffusion.schedules import Schedule
from diffusion.schedules.grids import Grid

__all__ = ["ClaimFound", "check_component"]


def check_component(component: Component) -> Iterator[ClaimFound]:
    """Each claim of a component of any kind, held against what it does.

    What every component promises is looked at first: parameters that a study can hold, and that it
    travels to workers. Of the kinds that have no checks of their own that is all.
    """
    yield from findings_of(component, (("parameters", _parameters), ("travels", _travels)))
    match component:
        case Sampler():
            yield from check_sampler(component)
        case Schedule():
            yield from check_schedule(component)
        case Grid():
            yield from check_grid(component)
        case Dataset():
            yield from check_dataset(component)
        case BaseMetric():
            yield from check_metric(component)


def _parameters(component: Component) -> ClaimFound:
    """Parameters that JSON can hold: ids are made of them."""
    text = json.dumps(component.spec(), sort_keys=True, default=_not_plain)
    return ClaimFound("parameters", True, "plain values", text)


def _not_plain(value: object) -> object:
    raise TypeError(f"{value!r} is neither a number nor a text, nor a list or a mapping of those")


def _travels(component: Component) -> ClaimFound:
    """Equal to what arrives at a worker, and of the same name."""
    arrived = pickle.loads(pickle.dumps(component))  # noqa: S301 - what was pickled here
    same = arrived == component and copy.deepcopy(component) == component
    return ClaimFound("travels", same, "an equal object", "so it is" if same else f"another one: {arrived!r}")
