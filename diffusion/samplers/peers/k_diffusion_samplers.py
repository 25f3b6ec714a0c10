"""Samplers of k-diffusion, which walk ``z = x_0 + nsr eps`` from one noise-to-signal ratio to the
next and take the last step, to 0, in their own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusion.samplers.base import samplers
from diffusion.samplers.peers.base import HandedNoise, PeerSampler, Rule, WayDown, defaults_of, two_stages
from diffusion.samplers.peers.increments import OverlappingMoves
from diffusion.samplers.peers.libraries import module_of
from diffusion.samplers.peers.options import Within

_OPTIONS = ("order", "s_churn", "s_tmin", "s_tmax", "s_noise", "eta", "solver_type", "r")
_CLAIMED = {
    "sample_euler": 1,
    "sample_euler_ancestral": 1,
    "sample_heun": 2,
    "sample_dpm_2": 2,
    "sample_dpm_2_ancestral": 2,
    "sample_dpmpp_2s_ancestral": 2,
    "sample_dpmpp_sde": 2,
    "sample_dpmpp_2m": 2,
    "sample_dpmpp_2m_sde": 2,
    "sample_dpmpp_3m_sde": 3,
}
NAMES = (*_CLAIMED, "sample_lms")
_CHURNING = ("sample_euler", "sample_heun", "sample_dpm_2")
_BETWEEN = ("sample_dpm_2", "sample_dpm_2_ancestral", "sample_dpmpp_2s_ancestral", "sample_dpmpp_sde")
_LARGEST = 1e100  # as good as infinity, and a number that YAML and JSON have


@samplers.register(
    "k-diffusion",
    formula="a function of k-diffusion over our levels; z = x_t / alpha",
    source="Crowson et al., k-diffusion (the library's own code)",
)
@dataclass(frozen=True, kw_only=True)
class KDiffusionSampler(PeerSampler):
    """A sampler of k-diffusion: ``{name: k-diffusion, sampler: sample_dpmpp_2m}``.

    `order` is that of `sample_lms`, `s_churn` to `s_noise` are of the rules with churn, `eta` and
    `s_noise` of the stochastic ones, `solver_type` of `sample_dpmpp_2m_sde`, `r` of
    `sample_dpmpp_sde`. With churn the states between are those after the noise was added.
    """

    sampler: str
    order: int | None = None  # type: ignore[misc]  # what is claimed, and of `sample_lms` an option
    s_churn: float | None = None
    s_tmin: float | None = None
    s_tmax: float | None = None
    s_noise: float | None = None
    eta: float | None = None
    solver_type: str | None = None
    r: float | None = None
    installed: str = ""
    library: ClassVar[str] = "k-diffusion"
    named: ClassVar[str] = "sampler"
    names: ClassVar[tuple[str, ...]] = NAMES

    def __post_init__(self) -> None:
        if self.sampler in _CLAIMED and self.order == _CLAIMED[self.sampler]:
            object.__setattr__(self, "order", None)  # what is claimed, handed back by `replace`
        self._settle()
        object.__setattr__(self, "order", self.rule.order)

    @property
    def rule(self) -> Rule:
        name = self.sampler
        stages = two_stages if name in (*_BETWEEN, "sample_heun") else _one_stage
        return Rule(
            _CLAIMED.get(name) or self.order or 0,
            stochastic=bool(self.s_churn if name in _CHURNING else self.eta) and self.s_noise != 0,
            between=name in _BETWEEN or bool(self.s_churn),
            overlapping=name == "sample_dpmpp_sde",
            cost=stages,
        )

    def known_options(self) -> Mapping[str, Any]:
        found = defaults_of(getattr(module_of(self.library), self.sampler), _OPTIONS)
        return {name: min(value, _LARGEST) if isinstance(value, float) else value for name, value in found.items()}

    def limits(self) -> Mapping[str, Within]:
        """`r` says where a stage lies within the step; where eta is above 1, two rules leave out
        their second stage at some levels.
        """
        steady = self.sampler in ("sample_dpm_2_ancestral", "sample_dpmpp_2s_ancestral")
        return {"r": Within(0.0, 1.0, beyond=True), **({"eta": Within(0.0, 1.0)} if steady else {})}

    def showing_order(self) -> KDiffusionSampler:
        """With little churn, as of our own."""
        return replace(self, s_churn=min(self.s_churn, 5.0)) if self.s_churn else self

    def unit(self, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        return alpha

    def run(self, walk: WayDown, z: Tensor) -> None:
        function = getattr(module_of(self.library), self.sampler)
        sigmas = walk.nsr.to(z.device)
        at = _At()

        def model(y: Tensor, sigma: Tensor) -> Tensor:
            return walk.denoised(y, float(sigma.flatten()[0]))

        def tell(state: Mapping[str, Any]) -> None:
            at.number = state["i"]
            if at.number > 0:
                walk.reached(state["x"], at.number)

        def churned() -> Tensor:
            if not self.stochastic:  # it draws all the same, and multiplies by nothing
                return torch.zeros_like(z)
            at.drawn += 1  # once a step, at its beginning
            return walk.drawn(*walk.nsr[at.drawn - 1 : at.drawn + 1].tolist())

        options = self.chosen()
        if self.sampler not in _CHURNING and "eta" in options:
            options["noise_sampler"] = OverlappingMoves(walk, z, draws=self.stochastic)
        with HandedNoise(churned):
            z = function(model, z, sigmas, callback=tell, disable=True, **options)
        walk.reached(z, len(walk.nsr) - 1)


class _At:
    """How far the function is: the number of the step, and of the draw for churn."""

    number = 0
    drawn = 0


def _one_stage(steps: int) -> int:
    return steps
