"""What training leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.models import EvidenceBound, Motion
from diffusion.networks import Network
from diffusion.objectives import Objective
from diffusion.objectives.member import Member


@dataclass(frozen=True)
class TrainedStack:
    """What training leaves: averaged weights, losses and, for members that failed, the reason."""

    objective: Objective
    network: Network
    members: tuple[Member, ...]
    rows: Tensor  # [members, network.size], the parameters
    loss_steps: Tensor  # [bins], the step that closes each bin
    losses: Tensor  # [members, bins], mean loss per bin
    errors: tuple[str | None, ...]

    def select(self, indices: Sequence[int]) -> TrainedStack:
        """The sub-stack of the given members."""
        index = torch.tensor(list(indices))
        return TrainedStack(
            self.objective,
            self.network,
            tuple(self.members[i] for i in indices),
            self.rows[index],
            self.loss_steps,
            self.losses[index],
            tuple(self.errors[i] for i in indices),
        )

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The denoiser E[x_0 | x_t] of every member: see `diffusion.samplers.Denoiser`; differentiable in x where x asks for it."""
        with torch.set_grad_enabled(x.requires_grad):
            return self.objective.denoise(self.network, self.rows, self.members, x, alpha, sigma)

    def perturbation(self, time: Tensor) -> Tensor:
        """eps_t at times ``[members]``, of models of incremental restoration."""
        return self.objective.perturbation(self.members, time)

    def action(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Motion:
        """What the action says of points x ``[members, batch, dim]``, of models that have one."""
        return self.objective.action(self.network, self.rows, self.members, x, alpha, sigma)

    def labelled(self, x: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """The denoiser E[x_0 | x_t, label], of models that know labels: see `diffusion.samplers.HasLabels`."""
        with torch.set_grad_enabled(x.requires_grad):
            return self.objective.denoise_labelled(self.network, self.rows, self.members, x, alpha, sigma, labels)

    def decode(self, z: Tensor) -> Tensor:
        """Data ``[members, batch, dim]`` for latent points z, of models that have a decoder."""
        with torch.no_grad():
            return self.objective.decode(self.network, self.rows, self.members, z)

    def latent_dim(self) -> int:
        """Number of a latent point's coordinates, of models that have a decoder."""
        return self.objective.latent_dim()

    def decoder_std(self) -> Tensor:
        """Standard deviation of the decoder's law in the units of the data, ``[members]``."""
        with torch.no_grad():
            return self.objective.decoder_std(self.network, self.rows, self.members)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each latent coordinate given data x ``[members, batch, dim]``."""
        with torch.no_grad():
            return self.objective.encode(self.network, self.rows, self.members, x)

    def bound(self, x: Tensor, noise: Tensor) -> EvidenceBound:
        """The evidence lower bound at data x for one draw of the latent noise, of models that bring their own: see `HasBound`."""
        with torch.no_grad():
            return self.objective.bound(self.network, self.rows, self.members, x, noise)
