"""Target distributions.

Each is a frozen dataclass whose fields are its parameters; importing this package registers all of
them in `datasets`. Where ``exact`` is true, the noised log-density, the score, the ideal denoiser
and its posterior variance are known at every noise level (see `diffusion.datasets.base` for the
contract).

| name | target |
|---|---|
| `uniform` | an interval of the line |
| `four_points` | the notebook's four atoms on the line |
| `gaussian` | a normal distribution with independent coordinates, any dimension |
| `gaussian_mixture` | isotropic bumps, any number, any dimension |
| `eight_gaussians` | a ring of eight in the plane |
| `checkerboard` | the black cells of a square |
| `moons`, `swiss_roll` | curves in the plane, blurred |
| `torus` | a surface in space |
| `gaussian_linear_uniform_posterior`, `gaussian_mixture_posterior`, `two_moons_posterior` | parameters of a simulator given an outcome |
| `noised` | any of these at one noise level |
| `standardised` | any of these, seen by models with mean 0 and deviation 1 |
| `linear_subspace` | any of these on a plane of few dimensions in a space of many |

Mixtures and labelled point sets have *classes*. `classes` makes of a target the distribution that
is left when a label is known, `observed` that which is left when some noisy coordinates are.

`posterior` says what a simulator's posteriors have besides: the joint law of parameters and
outcomes.

`PointSet` is the base of finite sets of points. A target that reads its points from a file lives
outside this package, which has no files: `tasks.data.from_file`.
"""

from __future__ import annotations

from diffusion.datasets.base import Dataset, ScalarDataset, datasets, misstated
from diffusion.datasets.uniform import Uniform  # first in the catalogue

# isort: split
from diffusion.datasets.checkerboard import Checkerboard
from diffusion.datasets.classes import given_labels
from diffusion.datasets.curves import Moons, StreakedMoons, SwissRoll
from diffusion.datasets.gaussian import Gaussian
from diffusion.datasets.gaussian_mixture import EightGaussians, GaussianMixture
from diffusion.datasets.observed import Observation, observed
from diffusion.datasets.points import FourPoints, PointSet
from diffusion.datasets.torus import Torus

# isort: split
from diffusion.datasets.box_posteriors import GaussianLinearUniformPosterior, GaussianMixturePosterior
from diffusion.datasets.posterior import SimulatorPosterior
from diffusion.datasets.two_moons import TwoMoonsPosterior

# isort: split
from diffusion.datasets.noised import Noised, noised_distribution

# isort: split
from diffusion.datasets.linear_subspace import LinearSubspace
from diffusion.datasets.standardised import Standardised, in_data_units

__all__ = [
    "Checkerboard",
    "Dataset",
    "EightGaussians",
    "FourPoints",
    "Gaussian",
    "GaussianLinearUniformPosterior",
    "GaussianMixture",
    "GaussianMixturePosterior",
    "LinearSubspace",
    "Moons",
    "Noised",
    "Observation",
    "PointSet",
    "ScalarDataset",
    "SimulatorPosterior",
    "Standardised",
    "StreakedMoons",
    "SwissRoll",
    "Torus",
    "TwoMoonsPosterior",
    "Uniform",
    "datasets",
    "given_labels",
    "in_data_units",
    "misstated",
    "noised_distribution",
    "observed",
]
