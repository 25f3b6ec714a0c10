"""Every registered name with its parameters and where its formula comes from."""

from __future__ import annotations

import dataclasses
from typing import Any

from diffusion.datasets import datasets
from diffusion.formulations import formulations
from diffusion.grids import grids
from diffusion.metrics import metrics
from diffusion.parametrizations import parametrizations
from diffusion.registry import Registry
from diffusion.samplers import samplers
from diffusion.schedules import schedules

REGISTRIES: tuple[Registry[Any], ...] = (datasets, formulations, schedules, parametrizations, grids, samplers, metrics)


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Entries by kind (plural), each with name, parameters and their defaults, formula, source and seed."""
    return {f"{registry.kind}s": [_entry(entry) for entry in registry] for registry in REGISTRIES}


def _entry(entry: Any) -> dict[str, Any]:
    defaults = {
        field.name: None if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(entry.cls)
    }
    return {
        "name": entry.name,
        "parameters": defaults,
        "formula": entry.formula,
        "source": entry.source,
        "seed": entry.seed,
        "summary": (entry.cls.__doc__ or "").strip().splitlines()[0],
    }
