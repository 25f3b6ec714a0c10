r"""Formulations that maximise a lower bound of the log-likelihood: the autoencoder, and the chain
of DDPM with the bound's own weights.

| formulation | latent variables | the bound's expectation | gives |
|---|---|---|---|
| `vae` | one point of R^latent, encoder and decoder learned | one draw of z an example | a decoder, a bound |
| `ddpm-elbo` | the T levels of a chain, encoder fixed | one level and one draw of its noise an example | a denoiser |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from diffusion.errors import WrongValue
from diffusion.formulations.base import NoiseConditional, Trained, formulations
from diffusion.objectives import ChainWeights, NoiseLevels, OwnLevels, VariationalBound, Weighting
from diffusion.objectives.parametrizations import Data, Epsilon, Parametrization
from diffusion.objectives.variational import Posterior
from diffusion.samplers import Decode, Sampler
from diffusion.schedules import DDPMLinear, Flow, Schedule

_MOST_LATENT = 1024


@formulations.register(
    "vae",
    formula="max E_q log N(x; dec(z), r^2 I) - KL(N(m(x), s(x)^2) || N(0, I)), z = m(x) + s(x) eps; then x = dec(z) + r eps, z ~ N(0, I)",
    source="Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014",
    document="S2 section 1",
)
@dataclass(frozen=True)
class VariationalAutoencoder(Trained):
    """A latent variable of `latent` coordinates, an encoder and a decoder with normal laws: one
    step, no noise levels.

    `posterior` is ``diagonal`` (a variance for each latent coordinate) or ``isotropic`` (one for
    all, as the tutorial has it, at a price: on normal data with eigenvalues 5, 3, 1, 0.5, 0.2 and
    two latent coordinates 0.0163 nats). `decoder_std` is r in the units of the data, or
    ``learned``. `linear` makes both networks affine, which on normal data is probabilistic
    principal components.

    It is sampled by `decode` alone, in one step, and is filed under the schedule `flow`, which
    begins with noise of unit variance and nothing else. Its networks are multilayer perceptrons of
    the training's width and depth.
    """

    latent: int = 2
    posterior: Posterior = "diagonal"
    decoder_std: float | Literal["learned"] = "learned"
    linear: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.latent <= _MOST_LATENT:
            raise WrongValue(f"latent must be an integer from 1 to {_MOST_LATENT}, found {self.latent}")
        if self.posterior not in ("isotropic", "diagonal"):
            raise WrongValue(f"posterior = {self.posterior!r}; accepted: isotropic, diagonal")
        known = self.decoder_std == "learned" or (
            isinstance(self.decoder_std, int | float) and 0 < self.decoder_std < math.inf
        )
        if not known:
            raise WrongValue(f"decoder_std must be a positive number or 'learned', found {self.decoder_std!r}")

    def own_schedule(self) -> Schedule:
        return Flow()

    def refuses(self, schedule: Schedule) -> str | None:
        if schedule == self.own_schedule():
            return None
        return f"'vae' has no noise levels and is filed under schedule 'flow' alone, not {schedule.registered_name!r}"

    @property
    def objective(self) -> VariationalBound:
        return VariationalBound(self.latent, self.posterior, self.linear, self.decoder_std)

    @property
    def own_sampler(self) -> Sampler:
        return Decode()


@formulations.register(
    "ddpm-elbo",
    formula="sum_t lambda_t |x_0 - D(x_t, t)|^2, lambda_t = (SNR_{t-1} - SNR_t)/2, lambda_1 = 1/(2 beta_1): "
    "minus DDPM's bound, but for the terms without D",
    source="Ho et al. 2020, eq. 5 and 12; Kingma et al., Variational Diffusion Models, NeurIPS 2021",
    document="S2 sections 2.4 to 2.8",
)
@dataclass(frozen=True)
class ChainElbo(NoiseConditional):
    """DDPM with the weights of its lower bound (`ddpm-elbo` among the weightings), which `ddpm`
    drops: another objective.

    What the network predicts, ``x0`` or ``epsilon``, changes neither the loss of a denoiser nor the
    samples that come of it, only which denoiser a network of given size finds easily.
    """

    predicts: Literal["epsilon", "x0"] = "epsilon"
    noise_levels: ClassVar[NoiseLevels] = OwnLevels()
    weighting: ClassVar[Weighting] = ChainWeights()

    def __post_init__(self) -> None:
        if self.predicts not in ("epsilon", "x0"):
            raise WrongValue(f"predicts = {self.predicts!r}; accepted: epsilon, x0")

    @property
    def parametrization(self) -> Parametrization:
        return Data() if self.predicts == "x0" else Epsilon()

    def own_schedule(self) -> Schedule:
        return DDPMLinear()

    def c_noise(self, nsr: Tensor, schedule: Schedule) -> Tensor:
        return schedule.time_of(nsr)
