r"""The probability flow without discretisation error: what every sampler tends to as its steps grow
many.

On the unit circle, ``z = x / sqrt(alpha^2 + sigma^2) = cos(phi) x_0 + sin(phi) eps`` with
``tan(phi) = sigma / alpha``, the probability-flow ODE of every schedule is one and the same,

    dz/dphi = (cos(phi) z - D) / sin(phi),

regular from pure noise (``phi = pi/2``, no signal at all) down to the least noise of the schedule,
where the denoiser takes the rest away. It is followed by an adaptive rule of order 8
(`diffusion.analysis.dop853`), the members of a stack together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffusion.analysis.dop853 import followed
from diffusion.errors import DiffatlasError
from diffusion.models import Denoiser
from diffusion.schedules import Schedule


class FlowLost(DiffatlasError):
    """The adaptive solver could not follow the flow to its end."""

    kind = "flow-lost"


def flow_limits(
    denoiser: Denoiser, x: Tensor, schedules: Sequence[Schedule], scales: Sequence[float], tolerance: float = 1e-6
) -> list[Tensor | None]:
    """Where the flow of each member of a stack leads from its start noise.

    Args:
        denoiser: of the whole stack; one call serves all members, each at a level of its own.
        x: start noise at each schedule's t_max, ``[members, batch, dim]`` float64.
        schedules: one a member.
        scales: the size of each member's data.
        tolerance: errors are held to this part of the scale, in each step and as the root mean
            square over a member's batch.

    Returns:
        Samples ``[batch, dim]`` of each member, None where its flow could not be followed. They do
        not depend on the other members, if the denoiser's answers do not.
    """
    ends = [_ends(schedule) for schedule in schedules]
    first, last = (np.array([end[i] for end in ends]) for i in (0, 1))
    radius = torch.tensor([end[2] for end in ends], dtype=torch.float64)
    z = (x / radius[:, None, None]).numpy().reshape(len(x), -1)

    def denoised(phi: np.ndarray, flat: np.ndarray) -> tuple[Tensor, np.ndarray, np.ndarray]:
        level = np.array([[math.cos(p), math.sin(p)] for p in phi.tolist()])
        alpha, sigma = torch.from_numpy(np.ascontiguousarray(level.T)).unbind(0)
        return denoiser(torch.from_numpy(flat).reshape(x.shape), alpha, sigma), level[:, :1], level[:, 1:]

    def slope(phi: np.ndarray, flat: np.ndarray) -> np.ndarray:
        found, cosine, sine = denoised(phi, flat)
        velocity: np.ndarray = (cosine * flat - found.numpy().reshape(flat.shape)) / sine
        return velocity

    state, reached = followed(slope, first, last, z, tolerance, tolerance * np.asarray(scales, dtype=np.float64))
    found = denoised(last, state)[0]
    return [found[m] if arrived else None for m, arrived in enumerate(reached.tolist())]


def flow_limit(denoiser: Denoiser, x: Tensor, schedule: Schedule, scale: float, tolerance: float = 1e-6) -> Tensor:
    """Samples ``[1, batch, dim]`` from start noise x at the schedule's t_max, of the same shape: see
    `flow_limits`.

    Raises:
        FlowLost: the solver gives up or leaves the numbers.
    """
    (found,) = flow_limits(denoiser, x, [schedule], [scale], tolerance)
    if found is None:
        raise FlowLost("the flow could not be followed to its end: its steps shrink below the spacing of numbers")
    return found[None]


def _ends(schedule: Schedule) -> tuple[float, float, float]:
    """phi at t_max and at t_min, and ``sqrt(alpha^2 + sigma^2)`` at t_max."""
    times = torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    first, last = torch.atan2(sigma, alpha).tolist()
    return first, last, float(torch.sqrt(alpha[0] ** 2 + sigma[0] ** 2))
