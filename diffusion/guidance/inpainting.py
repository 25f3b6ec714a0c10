r"""Guidance by coordinates that are known exactly: at each level they are replaced, as the missing
part of an image is filled in.

At level t the known coordinates of x_t are those of the forward process from the known values,
``alpha y + sigma eps``. A sampler that knows ``D_j = y_j`` of every known coordinate j keeps them
there by itself: its moves are the process' own, and of the probability flow
``eps = (x_j - alpha y_j) / sigma`` is constant. The others are denoised as if nothing were known
but the noisy x_t, so the law of the result is that given the known values only where the known
coordinates say nothing else of the unknown ones than their noisy values do: exactly for independent
coordinates, in other cases nearly (Trippe et al., ICLR 2023, section 3.1). Where classes or
mixtures are concerned, `observation` with ``std: 0`` is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from diffusion.datasets import Dataset
from diffusion.devices import indices, numbers
from diffusion.guidance.base import guidances
from diffusion.guidance.coordinates import KnownCoordinates
from diffusion.models import Denoiser


@guidances.register(
    "inpainting",
    formula="D_j = y_j for known coordinates j, so that x_j = alpha y_j + sigma eps at every level; the others as the denoiser says",
    source="Song et al., SDE, ICLR 2021, appendix I.2 (imputation by replacement); Lugmayr et al., RePaint, CVPR 2022",
    document="S1",
)
@dataclass(frozen=True)
class Inpainting(KnownCoordinates):
    """Known coordinates are replaced by their noisy values at every level."""

    @property
    def noise(self) -> float:
        return 0.0

    def denoise(
        self, denoiser: Denoiser, datasets: Sequence[Dataset], x: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Tensor:
        out = denoiser(x, alpha, sigma).clone()
        seen = indices(self._listed(x.shape[-1]), x.device)
        values = numbers([self.observation(dataset).values for dataset in datasets], x.device)
        out[..., seen] = values[:, None].expand(-1, x.shape[1], -1)
        return out
