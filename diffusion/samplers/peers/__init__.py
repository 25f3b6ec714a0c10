"""Samplers of other libraries, asked like ours: `azula`, `diffusers`, `k-diffusion`.

Nothing here needs them before one is named. A study that names one of a library that is not there
is refused with the command that installs it.

- `libraries`: which are there, of which version, and where their code is found;
- `lockstep`: their loops, stopped wherever they ask for something, so that a stack runs as one;
- `increments`: draws of moves that overlap, correlated as the library does;
- `options`: the values of options that have a meaning;
- `base`: what all have in common: levels, units, evaluations, noise;
- `azula_samplers`, `diffusers_schedulers`, `k_diffusion_samplers`: one library each, with what its
  rules claim.
"""

from __future__ import annotations

from diffusion.samplers.peers.azula_samplers import AzulaSampler
from diffusion.samplers.peers.base import PeerSampler
from diffusion.samplers.peers.diffusers_schedulers import DiffusersScheduler
from diffusion.samplers.peers.k_diffusion_samplers import KDiffusionSampler

__all__ = ["AzulaSampler", "DiffusersScheduler", "KDiffusionSampler", "PeerSampler"]
