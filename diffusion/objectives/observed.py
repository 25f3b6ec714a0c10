r"""The denoising loss of parameters, with a network that is given the simulator's outcome.

    L = E lambda(nsr) | D(theta_t; nsr, x) - theta |^2,      (theta, x) from prior and simulator

The minimiser is ``E[theta | theta_t, x]``, the ideal denoiser of the posterior ``p(theta | x)``, for
every x at once: no observation takes part in training. Asked at ``x = x_o`` it samples the posterior
of the observation (Sharrock, Simons, Liu & Beaumont, 2022; Geffner, Papamakarios & Mnih, 2022).

The outcome enters beside the noised parameters, each coordinate less its mean and divided by its
standard deviation under the prior, which the task states. sigma_data is that of the prior.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion.datasets import Dataset, SimulatorPosterior
from diffusion.devices import numbers, to_device
from diffusion.networks import Network
from diffusion.objectives.denoising import DenoisingLoss, NetworkDenoiser
from diffusion.objectives.member import Member
from diffusion.objectives.parametrizations import Circle, Coefficients
from diffusion.objectives.settings import Training
from diffusion.randomness import Source, examples


def _posterior(dataset: Dataset) -> SimulatorPosterior:
    if not isinstance(dataset, SimulatorPosterior):
        raise TypeError(f"dataset {dataset.registered_name!r} has no observation")
    return dataset


def _of_prior(member: Member) -> Member:
    """The same as a model of the prior: what is learned does not know of the observation."""
    return dataclasses.replace(member, dataset=_posterior(member.dataset).prior)


def standardised(dataset: SimulatorPosterior, x: Tensor) -> Tensor:
    """Outcomes ``[..., m]`` as the network has them, float32."""
    mean, std = (numbers(list(part), x.device) for part in dataset.outcomes)
    return ((x - mean) / std).float()


@dataclass(frozen=True)
class ObservedLoss(DenoisingLoss):
    """`DenoisingLoss` on parameters and outcomes ``[n, dim + m]``."""

    def network(self, dataset: Dataset, settings: Training) -> Network:
        inputs = dataset.dim + len(_posterior(dataset).observed)
        return settings.network.build(inputs, settings.width, settings.depth, outputs=dataset.dim)

    def batches(self, member: Member, data: Tensor, steps: int, batch: int, generator: Source) -> tuple[Tensor, ...]:
        """As `DenoisingLoss.batches`; inputs are ``[steps, batch, dim + m]``."""
        dataset = _posterior(member.dataset)
        width = dataset.dim + len(dataset.observed)
        if data.shape[-1] != width:
            raise ValueError(f"parameters and their outcomes have {width} columns, found {data.shape[-1]}")
        nsr = self.levels(member, steps, batch, generator)
        drawn = examples(data, (steps, batch), generator)
        theta, x = drawn[..., : dataset.dim], drawn[..., dataset.dim :]
        inputs, *rest = self.batches_on(_of_prior(member), theta, nsr, generator)
        return torch.cat([inputs, standardised(dataset, x)], -1), *rest

    def coefficients(self, member: Member, level: Circle) -> Coefficients:
        return _of_prior(member).coefficients(level)

    @property
    def gives(self) -> type[ObservedNetworkDenoiser]:
        return ObservedNetworkDenoiser


@dataclass(frozen=True, eq=False)
class ObservedNetworkDenoiser(NetworkDenoiser):
    """The denoiser of a network that is given what each member's data set observed."""

    @cached_property
    def _outcomes(self) -> Tensor:
        """``[members, 1, m]`` float32."""
        datasets = [_posterior(member.dataset) for member in self.members]
        rows = [standardised(one, torch.tensor(one.observed, dtype=torch.float64)) for one in datasets]
        return to_device(torch.stack(rows)[:, None], self.rows.device)

    def inputs(self, z: Tensor) -> Tensor:
        return torch.cat([z.float(), self._outcomes.expand(-1, z.shape[1], -1)], -1)
