"""A model that counts how often it is evaluated."""

from __future__ import annotations

from torch import Tensor

from diffusion.models.protocols import (
    Denoiser,
    HasAction,
    HasDecoder,
    HasDensity,
    HasLabels,
    HasPerturbation,
    Motion,
)


class CountingDenoiser:
    """A model that counts in `nfe` how often it is evaluated, whichever of the things it gives is asked for."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.nfe = 0

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        self.nfe += 1
        return self.denoiser(x, alpha, sigma)

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """See `HasDensity`. Raises TypeError if the model has none."""
        if not isinstance(self.denoiser, HasDensity):
            raise TypeError("the model has no density")
        self.nfe += 1
        return self.denoiser.log_density(x, alpha, sigma)

    def labelled(self, x: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """See `HasLabels`. Raises TypeError if the model knows no labels."""
        if not isinstance(self.denoiser, HasLabels):
            raise TypeError("the model knows no labels")
        self.nfe += 1
        return self.denoiser.labelled(x, alpha, sigma, labels)

    def decode(self, z: Tensor) -> Tensor:
        """See `HasDecoder`. Raises TypeError if the model has none."""
        decoder = self._decoder()
        self.nfe += 1
        return decoder.decode(z)

    def latent_dim(self) -> int:
        """See `HasDecoder`."""
        return self._decoder().latent_dim()

    def decoder_std(self) -> Tensor:
        """See `HasDecoder`."""
        return self._decoder().decoder_std()

    def _decoder(self) -> HasDecoder:
        if not isinstance(self.denoiser, HasDecoder):
            raise TypeError("the model has no decoder")
        return self.denoiser

    def perturbation(self, time: Tensor) -> Tensor:
        """See `HasPerturbation`. Raises TypeError if the model has none."""
        if not isinstance(self.denoiser, HasPerturbation):
            raise TypeError("the model has no perturbation")
        return self.denoiser.perturbation(time)

    def action(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Motion:
        """See `HasAction`. Raises TypeError if the model has none."""
        if not isinstance(self.denoiser, HasAction):
            raise TypeError("the model has no action")
        self.nfe += 1
        return self.denoiser.action(x, alpha, sigma)
