r"""Samplers: from noise at ``t_0`` to data at ``t_N = 0``, one step from t to s < t at a time.

With the denoiser's estimate ``D = E[x_0 | x_t]`` and the noise it implies,
``eps = (x_t - alpha_t D) / sigma_t``, the probability-flow ODE ``dx/dt = f x - g^2/2 score`` of
*any* schedule reads

    dx/dt = alpha'(t) D + sigma'(t) eps                                             (*)

which has no division by alpha. State and time grids are float64; nothing is clamped.

- `ode`: the flow (*) in the schedule's own time: Euler, Runge-Kutta of second order, an adaptive
  rule; an exponential integrator.
- `ancestral`: from one noisy marginal to the next, by the forward chain turned round; DDIM.
- `sde`: the reverse SDE and its family, EDM's churn, predictor and corrector.
- `paths`: from an observation to the data, and along the gradient of an action, for models that
  know such a path.
- `langevin`, `langevin_annealed`: moves at one noise level, and at one after the other.
- `multistep`: DPM-Solver++, in the logarithm of the signal-to-noise ratio.
- `forward`: the other way, from data to noise, with no model at all.
- `decode`: no diffusion, one evaluation of a decoder.
- `peers`: samplers of other libraries, run as they stand.

A new sampler is one small subclass with `step` (or `trajectory`, if it looks at more than one
move); it declares its `order` (global, on smooth problems; for a stochastic sampler the weak order)
and whether it is `stochastic`. Network evaluations are counted by wrapping the denoiser, never
computed from a formula; `evaluations` says beforehand what to expect.
"""

from __future__ import annotations

from diffusion.samplers.ancestral import DDIM, Ancestral, LevelOne
from diffusion.samplers.base import OwnStart, OwnTarget, PathSampler, Sampler, SamplingStart, samplers
from diffusion.samplers.decode import Decode
from diffusion.samplers.forward import Forward, ForwardChain, ForwardSDE
from diffusion.samplers.langevin import MALA, AtOneLevel, GradientAscent, Langevin
from diffusion.samplers.langevin_annealed import AnnealedLangevin
from diffusion.samplers.multistep import DPMSolver2M, DPMSolver2MSDE, DPMSolver3M
from diffusion.samplers.noise import Noise, NoiseStreams
from diffusion.samplers.ode import RK2, DormandPrince, Euler, ExponentialEuler, Heun
from diffusion.samplers.paths import ActionSampler, Incremental
from diffusion.samplers.peers import AzulaSampler, DiffusersScheduler, KDiffusionSampler, PeerSampler
from diffusion.samplers.sde import Churn, EulerMaruyama, PredictorCorrector, ReverseSDE
from diffusion.schedules.levels import Level, levels_of

__all__ = [
    "DDIM",
    "MALA",
    "RK2",
    "ActionSampler",
    "Ancestral",
    "AnnealedLangevin",
    "AtOneLevel",
    "AzulaSampler",
    "Churn",
    "DPMSolver2M",
    "DPMSolver2MSDE",
    "DPMSolver3M",
    "Decode",
    "DiffusersScheduler",
    "DormandPrince",
    "Euler",
    "EulerMaruyama",
    "ExponentialEuler",
    "Forward",
    "ForwardChain",
    "ForwardSDE",
    "GradientAscent",
    "Heun",
    "Incremental",
    "KDiffusionSampler",
    "Langevin",
    "Level",
    "LevelOne",
    "Noise",
    "NoiseStreams",
    "OwnStart",
    "OwnTarget",
    "PathSampler",
    "PeerSampler",
    "PredictorCorrector",
    "ReverseSDE",
    "Sampler",
    "SamplingStart",
    "levels_of",
    "samplers",
]
