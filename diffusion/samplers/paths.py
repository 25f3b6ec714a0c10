r"""Rules for models that know a path of their own: from an observation to the data, and along the
gradient of an action.

`indi` walks the line between data and observation, ``x_t = (1 - t) x + t y + t eps_t n`` (see
`diffusion.formulations.indi`):

    x_s = (s/t) x_t + (1 - s/t) D + s sqrt(eps_s^2 - eps_t^2) n

The noise that x_t carries has variance ``t^2 eps_t^2``; the move leaves ``(s/t)^2`` of it and adds
the rest of ``s^2 eps_s^2``. With eps = 0 the rule is `euler` on schedule `flow`.

`action` follows ``dz = grad s dtau + g dW`` in the coordinates of
`diffusion.objectives.action_matching`, z of unit variance and tau = the angle gone from noise
towards data, by Euler and Maruyama; g^2 = noise^2 sin(phi) is integrated exactly over the move.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.devices import to_device
from diffusion.models import ActionModel, Denoiser, RestorationModel, angle_and_scale
from diffusion.samplers.base import PathSampler, Sampler, per_member, samplers
from diffusion.samplers.noise import Noise
from diffusion.schedules import Flow, Schedule
from diffusion.schedules.levels import Level


@samplers.register(
    "indi",
    formula="x_s = (s/t) x_t + (1 - s/t) D + s sqrt(eps_s^2 - eps_t^2) n",
    source="Delbracio & Milanfar, Inversion by Direct Iteration, TMLR 2023, eq. 8 and section 3.3",
    document="S2 section 2.9",
)
@dataclass(frozen=True)
class Incremental(Sampler):
    """Incremental restoration with the perturbation that the model was trained with; none in the
    last step. N evaluations.
    """

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    needs: ClassVar[type] = RestorationModel

    def refuses(self, schedule: Schedule) -> str | None:
        if not isinstance(schedule, Flow):
            return (
                f"'indi' walks the straight line of schedule 'flow', and {schedule.registered_name!r} is another path"
            )
        return super().refuses(schedule)

    def step(self, denoiser: Denoiser, x: Tensor, now: Level, then: Level, noise: Noise) -> Tensor:
        if not isinstance(denoiser, RestorationModel):
            raise TypeError("sampler 'indi' needs a model that tells its perturbation")
        kept = per_member(then.time / now.time)
        x = kept * x + (1 - kept) * denoiser(x, now.alpha, now.sigma)
        if then.clean:
            return x
        start, end = now.host.time, then.host.time
        gained = denoiser.perturbation(end) ** 2 - denoiser.perturbation(start) ** 2
        if not gained.any():
            return x
        return x + to_device(per_member(end * torch.sqrt(gained)), x.device) * noise.between(now, then)


@samplers.register(
    "action",
    formula="dz = grad s dtau + g dW, z = x_t / sqrt(alpha^2 std^2 + sigma^2), tau = -atan(sigma / (alpha std)); d log w = s dtau",
    source="Neklyudov, Brekelmans, Severo & Makhzani, Action Matching, ICML 2023; resampling: Douc & Cappe, Comparison of resampling "
    "schemes for particle filtering, ISPA 2005",
    document="S4 (its last topic)",
)
@dataclass(frozen=True)
class ActionSampler(PathSampler):
    """Euler-Maruyama along the learned action, plain, entropic or unbalanced. N evaluations in N
    steps.

    An unbalanced action gives every sample a weight. At the end samples are drawn again by their
    weights, systematically, so that equal weights leave everything in place; there alone a sample
    depends on its neighbours.
    """

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    needs: ClassVar[type] = ActionModel

    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:
        if not isinstance(denoiser, ActionModel):
            raise TypeError("sampler 'action' needs a model that gives an action")
        log_weights = torch.zeros_like(x[..., 0])
        for now, then in itertools.pairwise(levels):
            motion = denoiser.action(x, now.alpha, now.sigma)
            before, scale = angle_and_scale(now.alpha, now.sigma, motion.std)
            after, new_scale = angle_and_scale(then.alpha, then.sigma, motion.std)
            z = x / per_member(scale) + per_member(before - after) * motion.slope
            if bool(motion.noise.any()) if motion.stirs is None else motion.stirs:
                gained = motion.noise * torch.sqrt(after.cos() - before.cos())
                z = z + per_member(gained) * noise.between(now, then)
            x = per_member(new_scale) * z
            log_weights = log_weights + (before - after)[:, None] * motion.growth
            if then.clean and (bool(motion.growth.any()) if motion.grows is None else motion.grows):
                x = resampled(x, log_weights)
            yield x


def resampled(x: Tensor, log_weights: Tensor) -> Tensor:
    """As many samples ``[members, batch, dim]``, each as often as its share of the weights
    ``[members, batch]`` says, to within one.

    Systematic: sample i is drawn once for every j with ``(j + 1/2) / batch`` in its stretch of the
    summed weights.
    """
    batch = x.shape[1]
    shares = torch.softmax(log_weights, 1).cumsum(1)
    places = (torch.arange(batch, dtype=shares.dtype, device=shares.device) + 0.5) / batch
    chosen = torch.searchsorted(shares, places.expand(len(x), -1).contiguous()).clamp(max=batch - 1)
    return x.gather(1, chosen[..., None].expand_as(x))
