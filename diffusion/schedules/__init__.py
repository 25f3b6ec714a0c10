r"""Noise schedules: how much of the data and how much noise there is at each time.

    x_t = alpha(t) x_0 + sigma(t) eps,      eps ~ N(0, I),      t from 0 (data) to t_max (noise)

Each schedule gives `alpha`, `sigma` and their derivatives; everything else follows from the four:

    noise-to-signal ratio   nsr(t) = sigma / alpha           (the sigma of Karras et al., 2022)
    drift of the SDE        f(t)   = alpha' / alpha           (times x)
    diffusion of the SDE    g(t)^2 = 2 sigma sigma' - 2 f sigma^2 = alpha^2 d/dt (sigma / alpha)^2

Times are float64 tensors of any shape. A *discrete* schedule is known at ``t = 1 .. max_steps``
only; it is interpolated smoothly in between so that the probability-flow ODE exists for it too, and
grids of other schedules are refused.

Sources: Song et al., "Score-Based Generative Modeling through SDEs", ICLR 2021 (VP, VE, sub-VP);
Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022,
Table 1 (constants); Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020; Nichol &
Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021.
"""

from __future__ import annotations

from diffusion.schedules.base import (
    GAUSSIAN_ENOUGH,
    NoiseAsTime,
    Schedule,
    UnitCircle,
    VarianceExploding,
    VariancePreserving,
    schedules,
)
from diffusion.schedules.levels import Level
from diffusion.schedules.variance_preserving import SubVP, VPCosine, VPExponential, VPLinear, VPSigmoid

# isort: split
from diffusion.schedules.discrete import (
    IDDPM,
    Chain,
    DDPMCosine,
    DDPMLinear,
    DDPMScaledLinear,
    VPConstant,
    stationary_variance,
)

# isort: split
from diffusion.schedules.variance_exploding import EDM, VEGeometric, VELinear

# isort: split
from diffusion.schedules.geometric import NCSN

# isort: split
from diffusion.schedules.straight import Flow

# isort: split
from diffusion.schedules.user import User

__all__ = [
    "EDM",
    "GAUSSIAN_ENOUGH",
    "IDDPM",
    "NCSN",
    "Chain",
    "DDPMCosine",
    "DDPMLinear",
    "DDPMScaledLinear",
    "Flow",
    "Level",
    "NoiseAsTime",
    "Schedule",
    "SubVP",
    "UnitCircle",
    "User",
    "VEGeometric",
    "VELinear",
    "VPConstant",
    "VPCosine",
    "VPExponential",
    "VPLinear",
    "VPSigmoid",
    "VarianceExploding",
    "VariancePreserving",
    "schedules",
    "stationary_variance",
]
