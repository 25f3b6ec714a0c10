"""Every registered name with its parameters and where its formula comes from."""

from __future__ import annotations

import dataclasses
from typing import Any

import tasks.data  # noqa: F401 - registers digits and their metrics
from diffusion.datasets import Dataset, datasets
from diffusion.datasets.degradations import degradations
from diffusion.formulations import formulations
from diffusion.guidance import guidances
from diffusion.metrics import metrics
from diffusion.networks import architectures
from diffusion.objectives import noise_distributions, weightings
from diffusion.objectives.parametrizations import parametrizations
from diffusion.registry import Component, Entry, Registry
from diffusion.samplers import Sampler, samplers
from diffusion.samplers.peers import PeerSampler
from diffusion.schedules import Schedule, schedules
from diffusion.schedules.grids import grids
from tasks.plain import Plain, Spec

REGISTRIES: tuple[Registry[Any], ...] = (
    datasets,
    formulations,
    schedules,
    parametrizations,
    noise_distributions,
    weightings,
    architectures,
    degradations,
    grids,
    samplers,
    guidances,
    metrics,
)


def catalogue() -> dict[str, list[Spec]]:
    """Entries by kind (plural), each with name, parameters and their defaults, formula, source and,
    as `seed`, the source document.

    Samplers also tell their order and whether they are stochastic, schedules whether they are
    discrete and how much signal is left at their end, datasets whether their exact denoiser is
    known and how many classes they have. Where a parameter names a sampler of another library,
    `accepted` has the names by parameter.
    """
    return {f"{registry.kind}s": [_entry(entry) for entry in registry] for registry in REGISTRIES}


def _entry(entry: Entry[Component]) -> Spec:
    defaults = {field.name: _plain(field.default) for field in dataclasses.fields(entry.cls)}
    return {
        "name": entry.name,
        "parameters": defaults,
        "formula": entry.formula,
        "source": entry.source,
        "seed": entry.document,  # the name that users of the command know
        "summary": " ".join((entry.cls.__doc__ or "").strip().split("\n\n")[0].split()),
        **(_traits(entry.cls()) if entry.has_defaults else {}),
        **({"accepted": accepted} if (accepted := accepted_names(entry.cls)) else {}),
    }


def accepted_names(component: type[Component]) -> dict[str, list[str]]:
    """The names that a parameter of a component may have, by parameter: which of a library's
    samplers.
    """
    return {component.named: list(component.names)} if issubclass(component, PeerSampler) else {}


def _traits(component: Component) -> Spec:
    """What a component with its parameters at their defaults declares."""
    match component:
        case Sampler() as sampler:
            return {"order": sampler.order, "stochastic": sampler.stochastic}
        case Schedule() as schedule:
            return {"discrete": schedule.max_steps is not None, "terminal_snr": schedule.terminal_snr}
        case Dataset() as dataset:
            return {"dim": dataset.dim, "exact": dataset.exact, "classes": dataset.classes}
        case _:
            return {}


def _plain(default: object) -> Plain:
    if default is dataclasses.MISSING:
        return None
    return default.spec() if isinstance(default, Component) else default
