r"""The probability flow without discretisation error: what every sampler tends to as its steps grow
many.

On the unit circle, ``z = x / sqrt(alpha^2 + sigma^2) = cos(phi) x_0 + sin(phi) eps`` with
``tan(phi) = sigma / alpha``, the probability-flow ODE of every schedule is one and the same,

    dz/dphi = (cos(phi) z - D) / sin(phi),

regular from pure noise (``phi = pi/2``, no signal at all) down to the least noise of the schedule,
where the denoiser takes the rest away. It is followed by an adaptive solver of order 8 (Hairer,
Norsett & Wanner, Solving Ordinary Differential Equations I, 1993; scipy's DOP853).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from diffusion.errors import DiffatlasError
from diffusion.models import Denoiser
from diffusion.schedules import Schedule


class FlowLost(DiffatlasError):
    """The adaptive solver could not follow the flow to its end."""

    kind = "flow-lost"


def flow_limit(denoiser: Denoiser, x: Tensor, schedule: Schedule, scale: float, tolerance: float = 1e-6) -> Tensor:
    """Samples ``[1, batch, dim]`` from start noise x at the schedule's t_max, of the same shape.

    `scale` is the size of the data; errors are held to `tolerance` of it (root mean square over the
    batch). Raises `FlowLost` if the solver gives up or leaves the numbers.
    """
    from scipy.integrate import solve_ivp

    ends = torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64)
    alpha, sigma = schedule.alpha(ends), schedule.sigma(ends)
    first, last = torch.atan2(sigma, alpha).tolist()
    z = x / float(torch.sqrt(alpha[0] ** 2 + sigma[0] ** 2))

    def denoised(phi: float, state: Tensor) -> Tensor:
        level = torch.tensor([[math.cos(phi)], [math.sin(phi)]], dtype=torch.float64)
        return denoiser(state, level[0], level[1])

    def slope(phi: float, flat: np.ndarray) -> np.ndarray:
        state = torch.as_tensor(flat).reshape(x.shape)
        return ((math.cos(phi) * state - denoised(phi, state)) / math.sin(phi)).numpy().ravel()

    solution = solve_ivp(
        slope, (first, last), z.numpy().ravel(), method="DOP853", t_eval=[last], rtol=tolerance, atol=tolerance * scale
    )
    if not (solution.success and np.isfinite(solution.y).all()):
        raise FlowLost(f"the flow could not be followed to its end: {solution.message}")
    return denoised(last, torch.as_tensor(solution.y[:, -1]).reshape(x.shape))
