"""Schedulers of diffusers, step by step.

A scheduler knows a chain of noise levels and chooses the steps of a way down from it. By default
the chain that it is given *is* the grid: as many levels as steps, with the grid's noise-to-signal
ratios in float64 in the place of its float32 tables, and all of them are taken. With one of the
options that choose levels (`timestep_spacing`, `use_karras_sigmas`, ...) the chain is the study's
schedule, and the scheduler chooses by its own rule; the grid then says nothing but how many.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from diffusion.errors import WrongValue
from diffusion.samplers.base import samplers
from diffusion.samplers.peers.base import HandedNoise, PeerSampler, Rule, WayDown, defaults_of, two_stages
from diffusion.samplers.peers.increments import OverlappingMoves
from diffusion.samplers.peers.libraries import module_of
from diffusion.samplers.peers.options import Within
from diffusion.schedules import Schedule
from diffusion.schedules.levels import Level, level_at

_SOLVERS = (
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "EDMDPMSolverMultistepScheduler",
)
_CLAIMED = {
    "DDIMScheduler": 1,
    "DDPMScheduler": 1,
    "EulerDiscreteScheduler": 1,
    "EulerAncestralDiscreteScheduler": 1,
    "EDMEulerScheduler": 1,
    "FlowMatchEulerDiscreteScheduler": 1,
    "FlowMatchHeunDiscreteScheduler": 2,
    "HeunDiscreteScheduler": 2,
    "KDPM2DiscreteScheduler": 2,
    "KDPM2AncestralDiscreteScheduler": 2,
    "DPMSolverSDEScheduler": 2,
    "LMSDiscreteScheduler": 4,
    "IPNDMScheduler": 4,
    "PNDMScheduler": 2,  # as its authors prove
}
NAMES = (*_CLAIMED, *_SOLVERS)
_TWO_STAGES = (
    "HeunDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
)
_BETWEEN = ("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler")
_DRAWING = ("DDPMScheduler", "EulerAncestralDiscreteScheduler", *_BETWEEN[1:])
_EXPLODING = (*_TWO_STAGES, *(name for name in NAMES if name.startswith(("Euler", "EDM", "LMS"))))
_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_IPNDM = "IPNDMScheduler"
_OF_ENDS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
_CHOOSING = ("timestep_spacing", *_OF_ENDS)
_OPTIONS = (
    *("solver_order", "algorithm_type", "solver_type", "predict_x0", "lower_order_final", "euler_at_final"),
    *("variance_type", "clip_sample", "clip_sample_range", "set_alpha_to_one", "skip_prk_steps"),
    *("steps_offset", *_CHOOSING),
)
_OURS = {"clip_sample": False, "skip_prk_steps": True}  # data need not lie in [-1, 1]; half steps need a longer chain
_OURS_OF = {"DPMSolverSinglestepScheduler": {"lower_order_final": True}}  # which it changes to, with a warning
_CHAIN = 1000  # levels of a continuous schedule, of which only the ends are looked at


@samplers.register(
    "diffusers",
    formula="a scheduler of diffusers over our levels; z = x_t / alpha, x_t / sqrt(alpha^2 + sigma^2) or x_t / (alpha + sigma)",
    source="von Platen et al., diffusers (the library's own code)",
)
@dataclass(frozen=True, kw_only=True)
class DiffusersScheduler(PeerSampler):
    """A scheduler of diffusers: ``{name: diffusers, scheduler: DPMSolverMultistepScheduler}``.

    The options are the scheduler's own, with its own defaults, but for two: `clip_sample` is false,
    because data need not lie in [-1, 1], and `skip_prk_steps` true. `eta` is that of DDIM's step.
    `timestep_spacing`, `use_karras_sigmas`, `use_exponential_sigmas`, `use_beta_sigmas` and
    `use_lu_lambdas` let the scheduler choose the levels from the study's schedule. Of the first,
    the schedule must be discrete.
    """

    scheduler: str
    solver_order: int | None = None
    algorithm_type: str | None = None
    solver_type: str | None = None
    predict_x0: bool | None = None
    lower_order_final: bool | None = None
    euler_at_final: bool | None = None
    variance_type: str | None = None
    clip_sample: bool | None = None
    clip_sample_range: float | None = None
    set_alpha_to_one: bool | None = None
    skip_prk_steps: bool | None = None
    steps_offset: int | None = None
    timestep_spacing: str | None = None
    use_karras_sigmas: bool | None = None
    use_exponential_sigmas: bool | None = None
    use_beta_sigmas: bool | None = None
    use_lu_lambdas: bool | None = None
    eta: float | None = None
    installed: str = ""
    library: ClassVar[str] = "diffusers"
    named: ClassVar[str] = "scheduler"
    names: ClassVar[tuple[str, ...]] = NAMES

    def __post_init__(self) -> None:
        self._settle()
        if self.timestep_spacing == "grid" and self.steps_offset:
            raise WrongValue("steps_offset: it counts from the levels of a timestep_spacing, and none is given")
        self._made(self._chain(np.array([1.0, 0.5])))  # what the library refuses is refused now

    @property
    def order(self) -> int:  # type: ignore[override]  # depends on a parameter
        """That of the scheduler's name or of its `solver_order`."""
        return self.rule.order

    @property
    def rule(self) -> Rule:
        name = self.scheduler
        noisy = name in _DRAWING or bool(self.eta) or str(self.algorithm_type).startswith("sde")
        cost = two_stages if name in _TWO_STAGES else _one_more if name == "PNDMScheduler" else _one_each
        order = _CLAIMED.get(name) or (self.solver_order or 0) + (name == "UniPCMultistepScheduler")  # its corrector's
        return Rule(order, noisy, name in _BETWEEN or self._by_ends, name == "DPMSolverSDEScheduler", cost)

    @property
    def _by_ends(self) -> bool:
        """Whether the scheduler makes levels of its own between the ends of the schedule."""
        return any(bool(getattr(self, name)) for name in _OF_ENDS)

    @property
    def chooses_levels(self) -> bool:
        """Whether the scheduler chooses the levels, and not the grid."""
        return self._by_ends or self.timestep_spacing not in (None, "grid")

    def known_options(self) -> Mapping[str, Any]:
        found = defaults_of(getattr(module_of(self.library), self.scheduler).__init__, _OPTIONS)
        ours = {**_OURS, **_OURS_OF.get(self.scheduler, {}), "timestep_spacing": "grid"}
        found = {name: ours.get(name, value) for name, value in found.items()}
        return {**found, "eta": 0.0} if self.scheduler == "DDIMScheduler" else found

    def limits(self) -> Mapping[str, Within]:
        """The solvers take any order above 3 as 3, but for UniPC; eta is a share of DDPM's noise."""
        most = None if self.scheduler == "UniPCMultistepScheduler" else 3.0
        return {"solver_order": Within(1.0, most), "eta": Within(0.0, 1.0)}

    def refuses(self, schedule: Schedule) -> str | None:
        spacing = self.timestep_spacing not in (None, "grid")
        if spacing and not self._by_ends and (schedule.max_steps is None or not schedule.variance_preserving):
            return (
                f"timestep_spacing chooses from the levels of a discrete, variance-preserving schedule, and "
                f"{schedule.registered_name!r} is none (ddpm-linear is one; without the option the grid's levels are taken)"
            )
        return super().refuses(schedule)

    def unit(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        if self.scheduler in _FLOW:
            return alpha + sigma
        return alpha if self.scheduler in _EXPLODING else torch.sqrt(alpha**2 + sigma**2)

    def path(self, levels: Sequence[Level]) -> Sequence[Level]:
        """The grid's levels, or those that the scheduler chooses in as many steps."""
        if not self.chooses_levels:
            return levels
        host = levels[0].host
        times = torch.stack([self._own_times(schedule, len(levels) - 1) for schedule in host.schedules], 1)
        last = torch.zeros(1, len(host.schedules), dtype=torch.float64)
        return [level_at(host.schedules, row).to(levels[0].sigma.device) for row in torch.cat([times, last])]

    # --- the scheduler

    def _chain(self, ratios: np.ndarray) -> dict[str, Any]:
        """What is said of a chain of these ratios, noisiest first."""
        squares = 1 / (1 + ratios[::-1] ** 2)
        betas = 1 - squares / np.concatenate([[1.0], squares[:-1]])
        return {"num_train_timesteps": len(ratios), "trained_betas": betas.tolist(), "alphas_cumprod": squares}

    def _made(self, chain: dict[str, Any]) -> Any:
        """The scheduler on a chain, in float64 where it has float32 tables."""
        cls = getattr(module_of(self.library), self.scheduler)
        options = {name: value for name, value in self.chosen().items() if name != "eta"}
        if options.get("timestep_spacing") == "grid":
            options["timestep_spacing"] = "trailing"  # takes every level where there are as many as steps
        told = {**options, **{name: value for name, value in chain.items() if name != "alphas_cumprod"}}
        try:
            with _quietly():
                made = cls(**_taken(cls, told))
        except (ImportError, NotImplementedError, ValueError) as error:
            raise WrongValue(f"{self.scheduler} of {self.installed}: {' '.join(str(error).split())}") from error
        if hasattr(made, "alphas_cumprod"):
            made.alphas_cumprod = torch.from_numpy(chain["alphas_cumprod"].copy())
            made.alphas = made.alphas_cumprod / torch.cat([torch.ones(1), made.alphas_cumprod[:-1]])
            made.betas = 1 - made.alphas
            if not options.get("set_alpha_to_one", True):
                made.final_alpha_cumprod = made.alphas_cumprod[0]
        return made

    def _ready(self, walk: WayDown) -> Any:
        """The scheduler with its steps set."""
        with _quietly():
            return self._set(walk)

    def _set(self, walk: WayDown) -> Any:
        noisy = walk.nsr[: len(walk.nsr) - walk.clean].double().numpy()
        if self.chooses_levels:
            return self._choosing(walk.schedule, len(walk.nsr) - 1)
        made = self._made(self._chain(noisy))
        if self.scheduler in _FLOW:
            return _on_line(made, noisy / (1 + noisy))
        if self.scheduler == _IPNDM:
            return _on_circle(made, walk.nsr.double())
        if self.scheduler.startswith("EDM"):
            made.set_timesteps(len(noisy))
            made.sigmas = torch.from_numpy(np.append(noisy, 0.0))
            return made
        if self.scheduler == "DPMSolverSinglestepScheduler":
            made.set_timesteps(timesteps=list(range(len(noisy)))[::-1])
        else:
            made.set_timesteps(len(noisy))
        if hasattr(made, "sigmas"):
            made.sigmas = _exact(made.sigmas, noisy)
        return made

    def _choosing(self, schedule: Schedule, steps: int) -> Any:
        """The scheduler on the chain of a schedule, with as many steps as it chooses."""
        made = self._made(self._chain(_chain_of(schedule)))
        made.set_timesteps(steps)
        return made

    def _own_times(self, schedule: Schedule, steps: int) -> Tensor:
        """The times of the noisy levels that the scheduler chooses."""
        with _quietly():
            made = self._choosing(schedule, steps)
        begins = [k for k in range(len(made.timesteps)) if self._begins(k)]
        asked = dict.fromkeys(_ratio_asked(made, k, made.timesteps[k]) for k in begins)
        found = list(asked)
        if len(found) != steps:
            raise WrongValue(f"{self.scheduler} chooses {len(found)} levels in {steps} steps")
        times = schedule.time_of(torch.tensor(found, dtype=torch.float64))
        if schedule.max_steps is None:
            return times
        known = schedule.level_times  # to the last bit, as noise is looked up by it
        return known[(known[:, None] - times[None]).abs().argmin(0)]

    # --- its loop

    def run(self, walk: WayDown, z: Tensor) -> None:
        made = self._ready(walk)
        moves = len(walk.nsr) - 1
        at = 0  # the level that was reached last

        def draw() -> Tensor:
            return walk.drawn(*walk.nsr[at : at + 2].tolist()) if self.stochastic else torch.zeros_like(z)

        if self.scheduler == "DPMSolverSDEScheduler":
            made.noise_sampler = OverlappingMoves(walk, z, draws=self.stochastic)
        with torch.no_grad(), HandedNoise(draw):
            for k, t in enumerate(made.timesteps):
                if hasattr(made, "scale_model_input"):
                    made.scale_model_input(z, t)  # it looks up where it is
                nsr = _ratio_asked(made, k, t)
                z = self._stepped(made, z, t, nsr, walk.denoised(z, nsr))
                if self._ends(k, len(made.timesteps)):
                    at += 1
                    walk.reached(z, at)
                    if at == moves:
                        return

    def _begins(self, k: int) -> bool:
        """Whether its k-th call begins at a level of its way."""
        if self.scheduler in _TWO_STAGES:
            return k % 2 == 0
        return not (self.scheduler == "PNDMScheduler" and k == 1)

    def _ends(self, k: int, calls: int) -> bool:
        """Whether its k-th call has ended at a level: a rule of two stages takes two calls, but for
        the last step.
        """
        if self.scheduler in _TWO_STAGES:
            return k % 2 == 1 or k == calls - 1
        return not (self.scheduler == "PNDMScheduler" and k == 0 and calls > 1)

    def _stepped(self, made: Any, z: Tensor, t: Any, nsr: float, clean: Tensor) -> Tensor:
        """One call of its `step`, told what a network would tell."""
        named: dict[str, Any] = {"eta": self.eta} if self.scheduler == "DDIMScheduler" else {}
        if self.scheduler in _FLOW:
            share = nsr / (1 + nsr)
            told = (z - clean) / share
        elif self.scheduler in _EXPLODING:
            told = (z - clean) / nsr
        else:
            told = (z * math.sqrt(1 + nsr**2) - clean) / nsr
        if self.scheduler == _IPNDM:  # of a network that predicts v
            told = (told - nsr * clean) / math.sqrt(1 + nsr**2)
        if self.scheduler == "EDMEulerScheduler":
            named["pred_original_sample"] = clean
        elif self.scheduler == "EDMDPMSolverMultistepScheduler":
            std = made.config.sigma_data
            told = (clean * (nsr**2 + std**2) - std**2 * z) / (nsr * std * math.sqrt(nsr**2 + std**2))
        with nullcontext() if self.stochastic else _quietly():  # what draws is stopped inside
            found: Tensor = made.step(told, t, z, return_dict=False, **named)[0]
        return found


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what numpy 2 says of its tables, and of timesteps that it computes and nobody asks
    for; nothing is waited for inside.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _taken(cls: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    """Of what is told, what a class takes."""
    return {name: copy.copy(told[name]) for name in defaults_of(cls.__init__, list(told))}


def _exact(rounded: Tensor, noisy: np.ndarray) -> Tensor:
    """Float32 ratios as the float64 ones that they were rounded from; a clean end stays 0."""
    nearest = np.abs(noisy[:, None] - rounded.double().numpy()[None]).argmin(0)
    return torch.where(rounded == 0, 0.0, torch.from_numpy(noisy[nearest]))


def _on_line(made: Any, shares: np.ndarray) -> Any:
    """A scheduler of flow matching at these shares of noise; of two stages, with those between named
    twice, as its own are.
    """
    if "Heun" not in type(made).__name__:
        made.set_timesteps(sigmas=shares.tolist())
        return made
    made.set_timesteps(len(shares))
    made.sigmas = torch.from_numpy(np.concatenate([shares[:1], shares[1:].repeat(2), [0.0]]))
    return made


def _on_circle(made: Any, ratios: Tensor) -> Any:
    """IPNDM between levels whose signal and noise are its `alphas` and `betas`, the last one too."""
    made.set_timesteps(len(ratios) - 1)
    made.alphas, made.betas = 1 / torch.sqrt(1 + ratios**2), ratios / torch.sqrt(1 + ratios**2)
    made.timesteps = torch.arange(len(ratios) - 1, 0, -1)  # of which the first alone is looked up
    return made


def _chain_of(schedule: Schedule) -> np.ndarray:
    """The ratios of a discrete schedule's levels, or as many between the ends of a continuous one."""
    if schedule.max_steps is not None:
        return np.asarray(schedule.nsr(schedule.level_times))
    ends = schedule.nsr(torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64)).log()
    return np.exp(np.linspace(float(ends[0]), float(ends[1]), _CHAIN))


def _ratio_asked(made: Any, k: int, t: Any) -> float:
    """The noise-to-signal ratio at which its k-th call asks."""
    name = type(made).__name__
    if name == _IPNDM:
        return float(made.betas[k] / made.alphas[k])
    if not hasattr(made, "sigmas"):
        square = float(made.alphas_cumprod[int(t)])
        return math.sqrt((1 - square) / square)
    if name in _FLOW:
        share = float(made.sigmas[k])
        return share / (1 - share)
    if name in _TWO_STAGES and not made.state_in_first_order:
        if name == "DPMSolverSDEScheduler":
            return float(made.mid_point_sigma)
        if name == "KDPM2DiscreteScheduler":
            return float(made.sigmas_interpol[k])
        if name == "KDPM2AncestralDiscreteScheduler":
            return float(made.sigmas_interpol[k - 1])
    return float(made.sigmas[k])


def _one_each(steps: int) -> int:
    return steps


def _one_more(steps: int) -> int:
    """Its second call corrects the first step."""
    return steps + (steps > 1)
