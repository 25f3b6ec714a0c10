r"""Action Matching: the velocity of a path of laws, learned from samples of its marginals alone.

A path q_tau, 0 <= tau <= T, can be driven in more than one way; each has one *action* s(x, tau)
whose gradient drives it:

| kind | samples move by | equation of the path |
|---|---|---|
| `plain` | dx = grad s dtau | dq/dtau = -div(q grad s) |
| `entropic` | dx = grad s dtau + g dW | dq/dtau = -div(q grad s) + g^2/2 lap q |
| `unbalanced` | dx = grad s dtau, d log w = s dtau | dq/dtau = -div(q grad s) + q s |

and each is the only stationary point, a minimum, of

    L = E_{q_0} s_0 - E_{q_T} s_T + integral over tau of E_{q_tau} [ 1/2 |grad s|^2 + d_tau s + extra ]

with ``extra`` = 0, ``g^2/2 lap s`` and ``s^2/2``. d_tau is the *partial* derivative, x held fixed.
Integrate by parts and the boundary terms and d_tau s are ``-integral of s dq/dtau``; the first
variation of L is then the equation above. The minimum is ``-1/2 integral of E|grad s|^2``, for the
unbalanced kind ``-1/2 integral of E[|grad s|^2 + s^2]`` with q of the mass that it has. No draw of
one marginal is paired with a draw of another, and none is here.

For a normal path ``N(m, a^2)`` of mass M (primes are d/dtau, per coordinate) the action is
``s = k (x-m)^2 / 2 + b (x-m) + c``:

    plain       k = a'/a                    b = m'
    entropic    k = a'/a - g^2 / (2 a^2)    b = m'
    unbalanced  k = a'/a / (1 + a^2/2)      b = m' / (1 + a^2)     M'/M = a'/a - k + c

**The path here** is that of a schedule from noise to data, in the one form that all schedules
share: the sample scaled to unit variance, and the angle from data to noise,

    z = x_t / sqrt(alpha^2 std^2 + sigma^2) = cos(phi) x_0/std + sin(phi) eps,    tan(phi) = sigma / (alpha std),

which moves at a bounded speed from pure noise to the data on every schedule; tau = phi_max - phi.
The network is a scalar function s(z, phi) that takes Fourier features of phi, and d_tau goes
through them. As entropic noise, ``g^2 = noise^2 sin(phi)``, so that it dies out with the noise in
the marginals and the action stays bounded.

As the path is known, so is the denoiser that goes with the action. The velocity of the marginals is
``dz/dtau = (D/std - cos z) / sin``, and the score of z ``(cos D/std - z) / sin^2``; so with
``grad s = velocity + g^2/2 score``

    D / std = (sin grad s + (cos + noise^2/2) z) / (1 + noise^2/2 cos)

(noise = 0 for the plain kind), regular at both ends. The unbalanced action moves mass as well and
is no denoiser.

Source: Neklyudov, Brekelmans, Severo & Makhzani, Action Matching: Learning Stochastic Dynamics from
Samples, ICML 2023, sections 2 and 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.devices import numbers
from diffusion.models import Motion, angle_and_scale
from diffusion.networks import Network
from diffusion.objectives.base import Networks, Objective
from diffusion.objectives.member import Member
from diffusion.objectives.noise_levels import stratified
from diffusion.objectives.settings import Training
from diffusion.randomness import Source, examples, integers, normal
from diffusion.schedules import Schedule

Kind = Literal["plain", "entropic", "unbalanced"]

_FREQUENCIES = (
    3  # of the angle: d_tau s, the noise of the loss, doubles with every octave; six have ten times the error of three
)
_CONDITIONS = 1 + 2 * _FREQUENCIES


def density(
    kind: Kind,
    slope: Tensor,
    rate: Tensor,
    value: Tensor,
    laplacian: Tensor | float = 0.0,
    spread: Tensor | float = 0.0,
) -> Tensor:
    """The integrand ``1/2 |grad s|^2 + d_tau s + extra`` at points ``[...]``, from grad s
    ``[..., dim]``, d_tau s and s ``[...]``.

    `laplacian` is that of s and `spread` g^2, which the entropic kind wants.
    """
    plain = 0.5 * slope.square().sum(-1) + rate
    match kind:
        case "entropic":
            return plain + 0.5 * spread * laplacian
        case "unbalanced":
            return plain + 0.5 * value.square()
        case _:
            return plain


@dataclass(frozen=True)
class ActionLoss(Objective):
    """The action of the schedule's path from noise to data.

    `noise` scales g of the entropic kind. The trace of its second derivatives is exact, one
    backward pass for every coordinate, or with `probes` the mean of that many Rademacher probes.
    """

    draws_anywhere: ClassVar[bool] = True

    kind: Kind = "plain"
    noise: float = 0.0
    probes: int = 0

    def network(self, dataset: Dataset, settings: Training) -> Network:
        return settings.network.build(dataset.dim, settings.width, settings.depth, conditions=_CONDITIONS, outputs=1)

    def passes(self, dim: int) -> float:
        """Three places on the way, a gradient that is differentiated again, and of the entropic
        kind a trace.
        """
        return 3.5 + (0.5 * (self.probes or dim) if self.kind == "entropic" else 0.0)

    def batches(self, member: Member, data: Tensor, steps: int, batch: int, generator: Source) -> tuple[Tensor, ...]:
        """Points on the way and at its two ends, drawn apart from each other; the network's
        condition; its change with tau.

        Times are stratified, and drawn anew in every step: a grid that stays would leave what lies
        between its times untrained.
        """
        first, last = _ends(member.schedule, member.dataset.std)
        phi = last - (last - first) * stratified(steps, batch, generator)

        def marginal(phi: Tensor) -> Tensor:
            x = examples(data, phi.shape, generator) / member.dataset.std
            eps = normal(x.shape, generator)
            return phi.cos()[..., None] * x + phi.sin()[..., None] * eps

        probes = integers(2, (steps, batch, self.probes, data.shape[-1]), generator) * 2.0 - 1
        return tuple(
            part.float()
            for part in (
                marginal(phi),
                marginal(torch.full_like(phi, last)),
                marginal(torch.full_like(phi, first)),
                _features(phi, first, last),
                _features_rate(phi, first, last),
                _features(numbers([last, first], phi.device), first, last).expand(steps, 2, -1),
                self.noise**2 * phi.sin(),
                probes,
                torch.full_like(phi, last - first),
            )
        )

    def losses(self, network: Network, rows: Tensor, *batch: Tensor) -> Tensor:
        z, noise_end, data_end, condition, condition_rate, condition_ends, spread, probes, duration = batch
        z, condition = z.detach().requires_grad_(), condition.detach().requires_grad_()
        value = network(rows, z, condition)[..., 0]
        slope, by_condition = torch.autograd.grad(value.sum(), (z, condition), create_graph=True)
        rate = (by_condition * condition_rate).sum(-1)
        laplacian = self._laplacian(slope, z, probes) if self.kind == "entropic" else 0.0
        inner = density(self.kind, slope, rate, value, laplacian, spread)
        boundary = network(rows, noise_end, condition_ends[:, :1]) - network(rows, data_end, condition_ends[:, 1:])
        return boundary[..., 0] + duration * inner

    def _laplacian(self, slope: Tensor, z: Tensor, probes: Tensor) -> Tensor:
        """The trace of the derivative of grad s at each point, ``[members, batch]``."""

        def second(along: Tensor) -> Tensor:
            return torch.autograd.grad(along.sum(), z, create_graph=True)[0]

        if not self.probes:
            return torch.stack([second(slope[..., j])[..., j] for j in range(z.shape[-1])]).sum(0)
        each = [(second((slope * v).sum(-1)) * v).sum(-1) for v in probes.unbind(2)]
        return torch.stack(each).mean(0)

    def zero_loss(self, *batches: Tensor) -> Tensor:
        """A network that answers zero has no loss; the size of things is that of z moving once
        around the unit circle's quarter.
        """
        z, duration = batches[0], batches[-1]
        return z.shape[-1] * duration.mean((0, 2))

    @property
    def gives(self) -> type[ActionNetwork]:
        return ActionNetwork if self.kind == "unbalanced" else ActionDenoiser

    def model(self, network: Network, rows: Tensor, members: Sequence[Member]) -> ActionNetwork:
        return self.gives(network, rows, tuple(members), self)


@dataclass(frozen=True, eq=False)
class ActionNetwork(Networks):
    """A learned action. That of the unbalanced kind moves mass besides samples, and is no denoiser."""

    objective: ActionLoss

    def action(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Motion:
        """See `diffusion.models.ActionModel`."""
        std = numbers([member.dataset.std for member in self.members], x.device)
        phi, scale = angle_and_scale(alpha, sigma, std)
        ends = [_ends(member.schedule, member.dataset.std) for member in self.members]
        condition = torch.stack([_features(p[None], *end) for p, end in zip(phi, ends, strict=True)]).float()
        z = (x / scale[:, None, None]).float()
        at_once = self.points_at_once
        parts = (_slope(self.network, self.rows, part, condition) for part in z.split(at_once, dim=1))
        slopes, values = zip(*parts, strict=True)
        slope, value = torch.cat(slopes, 1).double(), torch.cat(values, 1).double()
        grows = self.objective.kind == "unbalanced"
        growth = value if grows else torch.zeros_like(value)
        noise = torch.full_like(std, self.objective.noise)
        return Motion(std, noise, slope, growth, stirs=self.objective.noise != 0, grows=grows)


@dataclass(frozen=True, eq=False)
class ActionDenoiser(ActionNetwork):
    """A learned action of a known path, and the denoiser that goes with it."""

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """See `diffusion.models.Denoiser`."""
        with torch.set_grad_enabled(x.requires_grad):
            motion = self.action(x, alpha, sigma)
            phi, scale = angle_and_scale(alpha, sigma, motion.std)
            return motion.std[:, None, None] * denoised(
                motion.slope, x / scale[:, None, None], phi[:, None, None], self.objective.noise
            )


def denoised(slope: Tensor, z: Tensor, phi: Tensor, noise: float) -> Tensor:
    """E[x_0 | z] / std from grad s at z, all of one shape but for phi, which broadcasts."""
    half = 0.5 * noise**2
    return (phi.sin() * slope + (phi.cos() + half) * z) / (1 + half * phi.cos())


def _slope(network: Network, rows: Tensor, z: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
    """grad s ``[members, batch, dim]`` and s ``[members, batch]``; differentiable in z where z asks
    for it, else without a graph.
    """
    if z.requires_grad:
        value = network(rows, z, condition)[..., 0]
        return torch.autograd.grad(value.sum(), z, create_graph=True)[0], value
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = network(rows, z, condition)[..., 0]
        return torch.autograd.grad(value.sum(), z)[0], value.detach()


def _ends(schedule: Schedule, std: float) -> tuple[float, float]:
    """The angles of the schedule's first noisy level and of its last."""
    t = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
    first, last = angle_and_scale(schedule.alpha(t), schedule.sigma(t), torch.tensor(std, dtype=torch.float64))[0]
    return float(first), float(last)


def _octaves(device: torch.device) -> Tensor:
    return 0.5 * math.pi * 2.0 ** torch.arange(_FREQUENCIES, dtype=torch.float64, device=device)


def _features(phi: Tensor, first: float, last: float) -> Tensor:
    """The network's input for the angle, scaled to [-1, 1]: the number and its Fourier features,
    ``[..., n]``.
    """
    label = (2 * phi - first - last) / (last - first)
    turns = label[..., None] * _octaves(phi.device)
    return torch.cat([label[..., None], turns.sin(), turns.cos()], -1)


def _features_rate(phi: Tensor, first: float, last: float) -> Tensor:
    """d/dtau of `_features`; tau runs against the angle."""
    speed = -2 / (last - first)
    label = (2 * phi - first - last) / (last - first)
    octaves = _octaves(phi.device)
    turns = label[..., None] * octaves
    return speed * torch.cat([torch.ones_like(label)[..., None], octaves * turns.cos(), -octaves * turns.sin()], -1)
