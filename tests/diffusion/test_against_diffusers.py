"""The same numbers as another library: levels, alphas and single moves of `diffusers`.

Its tables are float32 and its alphas a float32 cumulative product, so that 1 - alpha^2 at the least
noisy levels is off by up to 1e-4; there a move agrees no better. Everywhere else the limit is 1e-5.
The denoiser is the ideal one of a mixture of two normal laws in two coordinates: smooth, not
linear, and far from zero.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.datasets import GaussianMixture
from diffusion.samplers import DDIM, Ancestral, DPMSolver2M, DPMSolver2MSDE, Euler, Heun, Sampler
from diffusion.schedules import EDM, Chain, DDPMCosine, DDPMLinear, DDPMScaledLinear, Flow
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import Level, level_at, levels_of

# numpy 2 and the peer disagree about __array__; nothing of ours is concerned
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TARGET = GaussianMixture(weights=(0.3, 0.7), means=((-1.0, 0.5), (1.5, -0.2)), stds=(0.3, 0.6))
CHAINS: dict[str, tuple[Chain, dict[str, object]]] = {
    "linear": (DDPMLinear(levels=1000), {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
    "scaled_linear": (
        DDPMScaledLinear(),
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    ),
    "squaredcos_cap_v2": (DDPMCosine(), {"beta_schedule": "squaredcos_cap_v2"}),
}
every_chain = pytest.mark.parametrize("name", CHAINS)
STEPS = 20


@dataclass
class Given:
    """Noise that is given: the same numbers for both sides."""

    draws: list[Tensor] = field(default_factory=list)
    used: int = 0

    def between(self, now: Level, then: Level) -> Tensor:  # noqa: ARG002
        self.used += 1
        return self.draws[self.used - 1]

    def fresh(self) -> Tensor:
        raise AssertionError("no other noise is given")


def start(seed: int = 0) -> Tensor:
    return torch.randn(1, 64, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def denoise(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return TARGET.denoise(x, alpha[:, None], sigma[:, None])


def noise_in(x: Tensor, level: Level) -> Tensor:
    return (x - level.alpha * denoise(x, level.alpha, level.sigma)) / level.sigma


def our_path(sampler: Sampler, x: Tensor, levels: list[Level], noise: Given) -> list[Tensor]:
    return list(sampler.trajectory(denoise, x, levels, noise))


def agree(ours: Tensor, theirs: Tensor, level: Level, name: str = "") -> None:
    """To 1e-5 of the state's size, or to what float32 leaves of 1 - alpha^2 at the level.

    The end of the cosine chain, alpha^2 = 2e-9 as a product of a thousand float32 factors, is known
    to them to 1e-4.
    """
    noise_left = 6e-7 / float(level.sigma.square().min()) if not level.clean else 0.0
    limit = max(3e-4 if name == "squaredcos_cap_v2" else 1e-5, noise_left)
    assert float((ours - theirs).abs().max()) <= limit * (1 + float(theirs.abs().max()))


@every_chain
def test_alphas_are_those_of_the_peer(name: str) -> None:
    chain, config = CHAINS[name]
    theirs = diffusers.DDPMScheduler(num_train_timesteps=1000, **config).alphas_cumprod.double()
    ours = chain.alpha(torch.arange(1, 1001, dtype=torch.float64)) ** 2
    torch.testing.assert_close(ours, theirs, rtol=3e-4, atol=2e-7)
    torch.testing.assert_close(1 - ours[:20], 1 - theirs[:20], rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 50, 999, 1000])
def test_levels_are_those_of_the_peers_spacings(spacing: str, steps: int) -> None:
    """Their time counts from 0, our level from 1."""
    peer = diffusers.DDIMScheduler(num_train_timesteps=1000, timestep_spacing=spacing, steps_offset=0)
    peer.set_timesteps(steps)
    theirs = (peer.timesteps + 1).tolist()
    assert grids.create(spacing).times(DDPMLinear(levels=1000), steps)[:-1].tolist() == theirs


@pytest.mark.parametrize("steps", [2, 5, 18, 64])
def test_the_power_law_levels_are_those_of_the_peer(steps: int) -> None:
    peer = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, rho=7.0)
    peer.set_timesteps(steps)
    ours = grids.create("edm").times(EDM(), steps)
    torch.testing.assert_close(ours, peer.sigmas.double(), rtol=1e-5, atol=1e-8)


@every_chain
@pytest.mark.parametrize(("variance", "theirs"), [("posterior", "fixed_small"), ("transition", "fixed_large")])
@pytest.mark.parametrize("k", [1000, 700, 200, 30, 2, 1])
def test_a_move_of_the_chain_is_the_peers_ddpm(name: str, variance: str, theirs: str, k: int) -> None:
    chain, config = CHAINS[name]
    peer = diffusers.DDPMScheduler(num_train_timesteps=1000, variance_type=theirs, clip_sample=False, **config)
    now, then = (level_at([chain], torch.tensor([float(t)], dtype=torch.float64)) for t in (k, k - 1))
    x = start(k)
    predicted = noise_in(x, now)
    drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    step = peer.step(predicted, k - 1, x, generator=torch.Generator().manual_seed(7)).prev_sample
    ours = Ancestral(variance).step(denoise, x, now, then, Given([drawn]))  # type: ignore[arg-type]
    agree(ours, step, now, name)


@every_chain
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_moves_of_ddim_are_the_peers(name: str, eta: float, spacing: str) -> None:
    """Their previous level is always T/N numbers below, whatever the spacing."""
    chain, config = CHAINS[name]
    peer = diffusers.DDIMScheduler(
        num_train_timesteps=1000, timestep_spacing=spacing, clip_sample=False, set_alpha_to_one=True, **config
    )
    peer.set_timesteps(STEPS)
    compared = 0
    for k in peer.timesteps.tolist():
        before = k - 1000 // STEPS  # below their first level they take alpha = 1
        now, then = (level_at([chain], torch.tensor([float(max(t + 1, 0))], dtype=torch.float64)) for t in (k, before))
        x = start(k)
        predicted = noise_in(x, now)
        generator = torch.Generator().manual_seed(k)
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        step = peer.step(predicted, k, x, eta=eta, generator=generator).prev_sample
        if then.clean and eta > 0:
            continue  # they add what float32 leaves of a variance of zero
        agree(DDIM(eta).step(denoise, x, now, then, Given([drawn])), step, now, name)
        compared += 1
    assert compared >= STEPS - 1


def sigma_levels(sigmas: Tensor) -> list[Level]:
    return [level_at([EDM()], sigma[None].double()) for sigma in sigmas]


@every_chain
def test_a_path_of_euler_is_the_peers(name: str) -> None:
    _, config = CHAINS[name]
    peer = diffusers.EulerDiscreteScheduler(num_train_timesteps=1000, timestep_spacing="trailing", **config)
    peer.set_timesteps(STEPS)
    levels = sigma_levels(peer.sigmas)
    first = x = start() * levels[0].sigma
    path = our_path(Euler(), first, levels, Given())
    for i, t in enumerate(peer.timesteps):
        peer.scale_model_input(x, t)
        x = peer.step(noise_in(x, levels[i]), t, x).prev_sample.double()
        agree(path[i], x, levels[i + 1], name)


@pytest.mark.parametrize("name", ["linear", "scaled_linear"])
def test_a_path_of_heun_is_the_peers(name: str) -> None:
    """Not on the cosine chain: from sigma = 20 291 down, 20 steps of Heun lose all that float32
    knows.
    """
    _, config = CHAINS[name]
    peer = diffusers.HeunDiscreteScheduler(num_train_timesteps=1000, timestep_spacing="trailing", **config)
    peer.set_timesteps(STEPS)
    distinct = torch.cat([peer.sigmas[:1], peer.sigmas[1::2]])
    levels = sigma_levels(distinct)
    x = start() * levels[0].sigma
    path = our_path(Heun(), x, levels, Given())
    evaluated = [0, *itertools.chain.from_iterable((i, i) for i in range(1, STEPS))]
    for call, (t, i) in enumerate(zip(peer.timesteps, evaluated, strict=True)):
        peer.scale_model_input(x, t)
        x = peer.step(noise_in(x, levels[i]), t, x).prev_sample.double()
        if call % 2 == 1:  # both stages are done
            agree(path[i - 1], x, levels[i], name)
    agree(path[-1], x, levels[-1], name)


@every_chain
@pytest.mark.parametrize(
    ("sampler", "algorithm", "order"),
    [
        (DDIM(), "dpmsolver++", 1),
        (DPMSolver2M(), "dpmsolver++", 2),
        (DPMSolver2MSDE(), "sde-dpmsolver++", 2),
    ],
    ids=["first order", "2m", "2m-sde"],
)
def test_a_path_of_dpm_solver_is_the_peers(name: str, sampler: Sampler, algorithm: str, order: int) -> None:
    chain, config = CHAINS[name]
    peer = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        timestep_spacing="trailing",
        algorithm_type=algorithm,
        solver_order=order,
        solver_type="midpoint",
        final_sigmas_type="zero",
        **config,
    )
    peer.set_timesteps(STEPS)
    levels = levels_of([chain], [grids.create("trailing")], STEPS)
    x = start()
    draws = [
        torch.randn(x.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in range(STEPS)
    ]
    path = our_path(sampler, x, levels, Given(draws))
    worst = 0.0
    for i, t in enumerate(peer.timesteps):
        predicted = noise_in(x, levels[i])
        x = peer.step(predicted, t, x, variance_noise=draws[i]).prev_sample.double()
        worst = max(worst, float((path[i] - x).abs().max() / (1 + x.abs().max())))
    # float32 tables: the first levels of the cosine chain, alpha^2 = 2e-9, are known to three
    # digits only
    assert worst < (2e-3 if name == "squaredcos_cap_v2" else 1e-4)


def test_a_path_of_the_flow_is_the_peers() -> None:
    peer = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)
    peer.set_timesteps(sigmas=np.linspace(1, 1 / STEPS, STEPS).tolist())
    levels = [level_at([Flow()], sigma[None].double()) for sigma in peer.sigmas]
    x = start()
    path = our_path(Euler(), x, levels, Given())
    for i, t in enumerate(peer.timesteps):
        denoised = denoise(x, levels[i].alpha, levels[i].sigma)
        velocity = (x - denoised) / levels[i].sigma  # eps - x_0
        x = peer.step(velocity, t, x).prev_sample.double()
        agree(path[i], x, levels[i + 1])
    assert math.isfinite(float(x.sum()))
