"""Samplers of azula, between the levels of any grid.

azula's schedules end in noise, sigma(0) > 0, and so do its samples; most of its rules have no limit
at sigma = 0. Its sampler therefore walks the noisy levels, and the last step to sigma = 0 is the
one of all our rules, ``x = alpha D``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusion.samplers.base import samplers
from diffusion.samplers.peers.base import HandedNoise, PeerSampler, Rule, WayDown, defaults_of, two_stages
from diffusion.samplers.peers.libraries import module_of
from diffusion.samplers.peers.options import Within

_MULTISTEP = ("zABSampler", "vABSampler", "zEABSampler", "xEABSampler", "REABSampler")
NAMES = ("DDPMSampler", "DDIMSampler", "EulerSampler", "HeunSampler", "ItoSampler", *_MULTISTEP, "PCSampler")


@samplers.register(
    "azula",
    formula="a sampler of azula between our levels, x = alpha D in the last step; z = x_t",
    source="Rozet, azula (the library's own code)",
)
@dataclass(frozen=True, kw_only=True)
class AzulaSampler(PeerSampler):
    """A sampler of azula: ``{name: azula, sampler: HeunSampler}``.

    `order` is that of the Adams-Bashforth rules, `eta` of DDIM and Ito, `corrections` and `delta`
    of the predictor-corrector.
    """

    sampler: str
    order: int | None = None  # type: ignore[misc]  # what is claimed, and of multistep rules an option
    eta: float | None = None
    corrections: int | None = None
    delta: float | None = None
    installed: str = ""
    library: ClassVar[str] = "azula"
    named: ClassVar[str] = "sampler"
    names: ClassVar[tuple[str, ...]] = NAMES

    def __post_init__(self) -> None:
        if self.sampler in NAMES and self.sampler not in _MULTISTEP and self.order == self.rule.order:
            object.__setattr__(self, "order", None)  # what is claimed, handed back by `replace`
        self._settle()
        object.__setattr__(self, "order", self.rule.order)

    @property
    def rule(self) -> Rule:
        match self.sampler:
            case "HeunSampler":
                return Rule(2, cost=two_stages)
            case "DDPMSampler":
                return Rule(1, stochastic=True)
            case "DDIMSampler" | "ItoSampler":
                return Rule(1, stochastic=bool(self.eta))
            case "PCSampler":
                more = self.corrections or 0
                return Rule(1, stochastic=more > 0, cost=lambda steps: (1 + more) * (steps - 1) + 1)
            case "EulerSampler":
                return Rule(1)
        return Rule(self.order or 0)

    def known_options(self) -> Mapping[str, Any]:
        return defaults_of(getattr(module_of(self.library), self.sampler), ("order", "eta", "corrections", "delta"))

    def limits(self) -> Mapping[str, Within]:
        """A correction replaces a share of the noise."""
        return {"delta": Within(0.0, 1.0)}

    def showing_order(self) -> AzulaSampler:
        """With short corrections, whose bias no number of steps removes, and little noise."""
        if self.sampler == "ItoSampler":
            return replace(self, eta=min(self.eta or 0.0, 0.3))
        return replace(self, delta=1e-8) if self.sampler == "PCSampler" else self

    def unit(self, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        return torch.ones_like(alpha)

    def by_amplitudes(self) -> bool:
        return True

    def run(self, walk: WayDown, z: Tensor) -> None:
        last = len(walk.nsr) - 1 - walk.clean  # the last noisy level
        z = self._between(walk, z, last) if last > 0 else z
        if walk.clean:
            walk.reached(walk.denoised(z, float(walk.nsr[-2])), last + 1)

    def _between(self, walk: WayDown, z: Tensor, last: int) -> Tensor:
        theirs, place = module_of(self.library), _Place(walk, last)
        kind = getattr(theirs, self.sampler)
        sampler = kind(
            place.denoiser(), start=last, stop=0, steps=last, silent=True, dtype=torch.float64, **self.chosen()
        )

        def draw() -> Tensor:
            if not self.stochastic:  # it draws all the same, and multiplies by nothing
                return torch.zeros_like(z)
            if self.sampler == "PCSampler":
                return walk.fresh()
            return walk.drawn(*walk.nsr[place.number : place.number + 2].tolist())

        with HandedNoise(draw):
            if kind.__call__ is theirs.Sampler.__call__:
                for number, (t, s) in enumerate(sampler.timesteps.to(z.device).unfold(0, 2, 1)):
                    with torch.no_grad():
                        z = sampler.step(z, t, s)
                    walk.reached(z, number + 1)
                return z
            place.tells = True
            z = sampler(z)
            walk.reached(z, last)
            return z


class _Place:
    """Where on the way azula is: its time is the number of levels that are left, ``last - i``."""

    def __init__(self, walk: WayDown, last: int) -> None:
        self._walk, self._last = walk, last
        self.number = 0  # of the level that was asked about
        self.tells = False  # of rules that are one loop, states are what the denoiser is asked about

    def denoiser(self) -> Any:
        from azula.denoise import Denoiser, DiracPosterior

        walk, place = self._walk, self
        backwards = torch.arange(self._last, -1, -1)

        class Ours(Denoiser):  # type: ignore[misc]  # without types
            def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
                at = backwards[t.detach().cpu().round().long()]
                return walk.alpha[at].to(t.device), walk.sigma[at].to(t.device)

            def forward(self, x_t: Tensor, t: Tensor) -> Any:
                number = place._last - round(float(t))
                if place.tells and number > place.number:
                    walk.reached(x_t, number)
                place.number = number
                return DiracPosterior(walk.denoised(x_t, float(walk.nsr[number])))

        return Ours()
