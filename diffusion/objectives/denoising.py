r"""The denoising loss, a regression on the network's own target.

    L = E_nsr E_{x_0, eps} lambda(nsr) | D(x_t; nsr) - x_0 |^2,      nsr = sigma / alpha

Inputs, targets and weights are made in float64 from the parametrization; what is left for the
network is to fit them: ``L = E w |F(c_in z, c) - target|^2`` with ``w = lambda c_out^2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.devices import indices
from diffusion.networks import Network
from diffusion.objectives.base import Networks, OnNoiseLevels
from diffusion.objectives.member import Member
from diffusion.objectives.noise_levels import stratified
from diffusion.objectives.noise_targets import last_step_share
from diffusion.objectives.parametrizations import Circle, Coefficients
from diffusion.randomness import Source, examples
from diffusion.replay import Recorder, Replayed, cuda_graph

_SHARING, _LEVELS = (8, 4, 2), 32


def sharing(batch: int) -> int:
    """How many examples of a batch share a noise level."""
    return next((n for n in _SHARING if batch % n == 0 and batch >= n * _LEVELS), 1)


@dataclass(frozen=True)
class DenoisingLoss(OnNoiseLevels):
    """Weighted regression of the network on what its parametrization makes of data and noise.

    Up to eight examples of a batch share a noise level, where 32 levels or more remain: what the
    network makes of a level is then worked out once for all of them.
    """

    draws_anywhere: ClassVar[bool] = True
    version: ClassVar[int] = 2  # 1: every example had a noise level of its own

    def batches(self, member: Member, data: Tensor, steps: int, batch: int, generator: Source) -> tuple[Tensor, ...]:
        """Inputs, targets ``[steps, batch, dim]``, conditions ``[steps, groups, FEATURES]``,
        weights ``[steps, batch]``, float32.
        """
        nsr = self.levels(member, steps, batch, generator)
        x = examples(data, (steps, max(batch, nsr.shape[1])), generator)
        return self.batches_on(member, x, nsr, generator)

    def batches_on(self, member: Member, x: Tensor, nsr: Tensor, generator: Source) -> tuple[Tensor, ...]:
        """The batches of these data ``[steps, batch, dim]`` at these noise levels
        ``[steps, groups]``, of equal consecutive parts of the batch.
        """
        condition = member.condition(nsr).float()
        x, nsr = x.unflatten(1, (nsr.shape[1], -1)), nsr[..., None]
        formulation, schedule, std = member.recipe, member.schedule, member.dataset.std
        eps, stand_in = self.noise(member, x, nsr, generator)
        level = Circle.at(nsr)
        c = member.coefficients(level)
        z = level.a[..., None] * x + level.b[..., None] * eps
        answer = formulation.parametrization.predict(x, stand_in, level, std)
        weight = formulation.weighting.on_target(nsr, c, schedule, std).expand(x.shape[:-1])
        inputs, targets, weights = (part.float().flatten(1, 2) for part in (c.c_in[..., None] * z, answer, weight))
        return inputs, targets, condition, weights

    def levels(self, member: Member, steps: int, batch: int, generator: Source) -> Tensor:
        """Noise-to-signal ratios of the groups of examples, ``[steps, groups]``: the quantiles of a
        stratified batch.
        """
        u = stratified(steps, batch // sharing(batch), generator)
        return member.recipe.noise_levels.quantile(u, member.schedule)

    def noise(self, member: Member, x: Tensor, nsr: Tensor, generator: Source) -> tuple[Tensor, Tensor]:
        """The noise in x_t, and what stands for it in the loss, both shaped like x ``[..., dim]``,
        at levels that are ``[...]`` or can be expanded to it.
        """
        target = member.recipe.noise_target
        share = torch.ones_like(nsr) if target.refinement == 3 else last_step_share(nsr, member.schedule)
        return target.draw(share, tuple(x.shape), generator)

    def losses(self, network: Network, rows: Tensor, *batch: Tensor) -> Tensor:
        inputs, targets, conditions, weights = batch
        return weights * (network.fit(rows, inputs, conditions) - targets).square().sum(-1)

    def zero_loss(self, *batches: Tensor) -> Tensor:
        _, targets, _, weights = batches
        return (weights * targets.square().sum(-1)).mean((0, 2))

    def noise_features(self, *batch: Tensor) -> Tensor:
        weights, conditions = batch[3], batch[2]
        return conditions.repeat_interleave(weights.shape[1] // conditions.shape[1], 1)

    def coefficients(self, member: Member, level: Circle) -> Coefficients:
        """c_skip, c_out and c_in of a member's denoiser."""
        return member.coefficients(level)

    @property
    def gives(self) -> type[NetworkDenoiser]:
        return NetworkDenoiser

    def model(self, network: Network, rows: Tensor, members: Sequence[Member]) -> NetworkDenoiser:
        return self.gives(network, rows, tuple(members), self)


@dataclass(frozen=True, eq=False)
class NetworkDenoiser(Networks):
    """``D = c_skip z + c_out F(c_in z, c)``, z being x_t scaled to the unit circle."""

    objective: DenoisingLoss

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """See `diffusion.models.Denoiser`."""
        if self.rows.is_cuda and not x.requires_grad:
            return self._replayed(x, alpha, sigma).clone()  # the next answer lies where this one does
        with torch.set_grad_enabled(x.requires_grad):
            return self.answers(x, alpha, sigma)

    @cached_property
    def _replayed(self) -> Replayed:
        return self.replayed(cuda_graph)

    def replayed(self, recorder: Recorder) -> Replayed:
        """Its answers without derivatives, recorded for each shape of points; each is valid until
        the next. This model has to be kept as long as they are asked for.
        """
        return Replayed(self._answers_alone, recorder=recorder)

    @torch.no_grad()
    def _answers_alone(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.answers(x, alpha, sigma)

    def answers(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """The denoiser of networks conditioned on the noise level and on what else all samples
        share, ``condition [n]``.
        """
        found, c = (self._level_by_level if alpha.is_cpu else self._recipe_by_recipe)(alpha, sigma)
        c_skip, c_out, c_in = (part[:, None, None] for part in (found.c_skip, found.c_out, found.c_in))
        if condition is not None:
            c = torch.cat([c, condition.expand(len(self.members), 1, -1)], -1)
        z = x / torch.sqrt(alpha**2 + sigma**2)[:, None, None]
        inputs = self.inputs(c_in * z)
        at_once = self.points_at_once
        raw = torch.cat([self.network(self.rows, part, c) for part in inputs.split(at_once, dim=1)], dim=1)
        return c_skip * z + c_out * raw.double()

    def inputs(self, z: Tensor) -> Tensor:
        """What the networks see of scaled points ``[members, batch, dim]``, float32."""
        return z.float()

    def _level_by_level(self, alpha: Tensor, sigma: Tensor) -> tuple[Coefficients, Tensor]:
        """The coefficients of every member, and the network's condition ``[members, 1, n]``, worked
        out once for each kind of members that stand at one level.
        """
        level, nsr = Circle.of(alpha, sigma), sigma / alpha
        first, alike = self._alike(alpha, sigma)
        each = [self.objective.coefficients(self.members[m], Circle(level.a[m], level.b[m])) for m in first]
        stacked = (torch.stack([getattr(one, part) for one in each])[alike] for part in ("c_skip", "c_out", "c_in"))
        c = torch.stack([self.members[m].condition(nsr[m : m + 1]) for m in first]).float()[alike]
        return Coefficients(*stacked), c

    def _recipe_by_recipe(self, alpha: Tensor, sigma: Tensor) -> tuple[Coefficients, Tensor]:
        """The same for all members of each kind together: nobody waits for the levels, and what is
        started does not grow with the members.
        """
        level, nsr = Circle.of(alpha, sigma), sigma / alpha
        kinds: dict[tuple[int, ...], list[int]] = {}
        for m, kind in enumerate(self._kinds):
            kinds.setdefault(kind, []).append(m)
        order = [m for alike in kinds.values() for m in alike]
        back = indices(sorted(range(len(order)), key=order.__getitem__), alpha.device)
        places = [(self.members[alike[0]], indices(alike, alpha.device)) for alike in kinds.values()]
        each = [self.objective.coefficients(one, Circle(level.a[at], level.b[at])) for one, at in places]
        joined = (torch.cat([getattr(one, part) for one in each])[back] for part in ("c_skip", "c_out", "c_in"))
        c = torch.cat([one.condition(nsr[at]) for one, at in places]).float()[back, None]
        return Coefficients(*joined), c

    def _alike(self, alpha: Tensor, sigma: Tensor) -> tuple[list[int], Tensor]:
        """The first of each kind of members that stand at one level, and the place among these of
        every member: seeds of one model on one grid are all of one kind.
        """
        first: dict[tuple[object, ...], int] = {}
        places = []
        for m, kind in enumerate(zip(self._kinds, alpha.tolist(), sigma.tolist(), strict=True)):
            places.append(first.setdefault(kind, m))
        order = {m: k for k, m in enumerate(first.values())}
        return list(order), torch.tensor([order[m] for m in places])

    @cached_property
    def _kinds(self) -> list[tuple[int, ...]]:
        """Members of one data set, formulation and schedule differ in their weights alone."""
        return [(id(one.dataset), id(one.formulation), id(one.schedule)) for one in self.members]
