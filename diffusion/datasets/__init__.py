"""Target distributions.

Each is a frozen dataclass whose fields are its parameters; importing this package registers all of them in `datasets`.
Where ``exact`` is true, the noised log-density, the score and the ideal denoiser are known at every noise level (see
`diffusion.datasets.base` for the contract).
"""

from __future__ import annotations

from diffusion.datasets.base import Dataset, ScalarDataset, datasets
from diffusion.datasets.torus import Torus
from diffusion.datasets.uniform import Uniform

__all__ = ["Dataset", "ScalarDataset", "Torus", "Uniform", "datasets"]
