"""Versions and options of other libraries' samplers: what has no meaning is refused in one sentence."""

from __future__ import annotations

import importlib.metadata
import pickle
from typing import Any

import pytest
import torch

from diffusion.checks import known
from diffusion.errors import WrongValue
from diffusion.samplers import PeerSampler, samplers
from diffusion.samplers.peers.libraries import module_of, version_of
from diffusion.schedules import EDM
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import levels_of

Spec = dict[str, Any]


def made(library: str, **options: Any) -> PeerSampler:
    try:
        version_of(library)
    except WrongValue:
        pytest.skip(f"{library} is not installed (make install does it)")
    found = samplers.create(library, **options)
    assert isinstance(found, PeerSampler)
    return found


SAMPLERS: list[tuple[str, Spec]] = [
    ("azula", {"sampler": "EulerSampler"}),
    ("k-diffusion", {"sampler": "sample_euler"}),
    ("diffusers", {"scheduler": "DDIMScheduler"}),
]


@pytest.mark.parametrize(("library", "options"), SAMPLERS)
def test_a_machine_with_another_version_does_not_compute(
    library: str, options: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampler that was made on one machine and runs on another."""
    sent = pickle.dumps(made(library, **options))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1")  # noqa: ARG005
    arrived = pickle.loads(sent)  # noqa: S301 - our own
    levels = levels_of([EDM()], [grids.create("edm")], 3)
    x = torch.ones(1, 2, 1, dtype=torch.float64)
    with pytest.raises(WrongValue, match=rf"found '{library} .*', and here is {library} 0\.0\.1: ") as error:
        list(arrived.trajectory(known.gaussian(), x, levels, known.Recorded((1, 2, 1))))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("library", "options", "text"),
    [
        ("k-diffusion", {"sampler": "sample_dpm_2_ancestral", "eta": 1.5}, "eta: found 1.5; .*from 0 to 1"),
        ("k-diffusion", {"sampler": "sample_dpmpp_2s_ancestral", "eta": 1.01}, "eta: found 1.01; .*from 0 to 1"),
        ("k-diffusion", {"sampler": "sample_dpmpp_2s_ancestral", "eta": -0.1}, "eta: found -0.1; .*from 0 to 1"),
        ("k-diffusion", {"sampler": "sample_euler_ancestral", "eta": -0.1}, "eta: found -0.1; .*at least 0"),
        ("k-diffusion", {"sampler": "sample_dpmpp_sde", "r": 0.0}, "r: found 0; .*above 0 and at most 1"),
        ("k-diffusion", {"sampler": "sample_dpmpp_sde", "r": 1.5}, "r: found 1.5; .*above 0 and at most 1"),
        ("k-diffusion", {"sampler": "sample_lms", "order": 0}, "order: found 0; sample_lms takes .*at least 1"),
        ("k-diffusion", {"sampler": "sample_heun", "s_churn": -1.0}, "s_churn: found -1; .*at least 0"),
        ("k-diffusion", {"sampler": "sample_heun", "s_noise": float("nan")}, "s_noise: found nan; .*at least 0"),
        ("azula", {"sampler": "zABSampler", "order": 0}, "order: found 0; zABSampler takes .*at least 1"),
        ("azula", {"sampler": "PCSampler", "corrections": -1}, "corrections: found -1; .*at least 0"),
        ("azula", {"sampler": "PCSampler", "delta": 1.5}, "delta: found 1.5; .*from 0 to 1"),
        ("azula", {"sampler": "ItoSampler", "eta": -1.0}, "eta: found -1; .*at least 0"),
        ("azula", {"sampler": "DDIMSampler", "eta": -1.0}, "eta: found -1; .*at least 0"),
        ("diffusers", {"scheduler": "DDPMScheduler", "variance_type": "foo"}, "found 'foo'; .*takes: fixed_small, "),
        ("diffusers", {"scheduler": "DDPMScheduler", "variance_type": "learned"}, "found 'learned'; .*network"),
        ("diffusers", {"scheduler": "UniPCMultistepScheduler", "solver_order": 0}, "found 0; .*at least 1"),
        ("diffusers", {"scheduler": "DPMSolverMultistepScheduler", "solver_order": 4}, "found 4; .*from 1 to 3"),
        ("diffusers", {"scheduler": "DDIMScheduler", "eta": 2.0}, "eta: found 2; .*from 0 to 1"),
    ],
)
def test_a_value_without_meaning_is_refused_with_those_that_have_one(library: str, options: Spec, text: str) -> None:
    made(library, **{name: value for name, value in options.items() if name in ("sampler", "scheduler")})
    with pytest.raises(WrongValue, match=text) as error:
        made(library, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("library", "options"),
    [
        ("k-diffusion", {"sampler": "sample_dpmpp_2s_ancestral", "eta": 1.0}),
        ("k-diffusion", {"sampler": "sample_euler_ancestral", "eta": 1.2}),
        ("k-diffusion", {"sampler": "sample_dpmpp_sde", "r": 1.0}),
        ("azula", {"sampler": "PCSampler", "corrections": 0}),
        ("diffusers", {"scheduler": "UniPCMultistepScheduler", "solver_order": 4}),
        ("diffusers", {"scheduler": "DDPMScheduler", "variance_type": "fixed_large"}),
    ],
)
def test_values_at_the_ends_are_taken_and_walk_as_a_stack(library: str, options: Spec) -> None:
    sampler = made(library, **options)
    levels = levels_of([EDM(), EDM(sigma_max=50.0)], [grids.create("edm")] * 2, 6)
    x = torch.ones(2, 2, 1, dtype=torch.float64)
    noise = known.Drawn(torch.full_like(x, 0.1) for _ in range(99))
    states = known.states(sampler, known.gaussian(), x, levels, noise)
    assert len(states) == 6
    assert bool(torch.stack(states).isfinite().all())


@pytest.mark.parametrize(("library", "options"), SAMPLERS)
def test_a_version_that_lacks_a_sampler_is_told_with_what_it_has(
    library: str, options: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(library, **options)
    (name,) = options.values()
    monkeypatch.delattr(module_of(library), name)
    if library == "diffusers":  # which imports what is looked up
        monkeypatch.delitem(module_of(library)._class_to_module, name)
    others = {"azula": "DDPMSampler, DDIMSampler, HeunSampler", "k-diffusion": "sample_euler_ancestral, "}
    with pytest.raises(
        WrongValue, match=rf"{library} \S+ has no {name}; it has: {others.get(library, 'DDPM')}"
    ) as error:
        made(library, **options)
    assert "\n" not in str(error.value)
