"""Models: what they can be asked, the exact ones, and how their evaluations are counted.

- `capabilities`: each capability (a denoiser, a decoder, an action ...) as a protocol, with its
  phrase;
- `answers`: what they answer, where it is more than a tensor;
- `exact`: the ideal denoisers of targets for which they are known;
- `counting`: a model of the same capabilities that counts how often it is evaluated;
- `placing`: one that says on which device it is asked.
"""

from __future__ import annotations

from diffusion.models.answers import EvidenceBound, Motion, angle_and_scale
from diffusion.models.between import BetweenDenoiser
from diffusion.models.capabilities import (
    ActionModel,
    Decoder,
    Denoiser,
    DensityModel,
    DivergenceModel,
    Encoder,
    KnownDistribution,
    LabelledDenoiser,
    LatentVariableModel,
    RestorationModel,
    capabilities_of,
    capability,
    phrase_of,
)
from diffusion.models.counting import Counter, counted
from diffusion.models.exact import ExactDenoiser
from diffusion.models.placing import placed

__all__ = [
    "ActionModel",
    "BetweenDenoiser",
    "Counter",
    "Decoder",
    "Denoiser",
    "DensityModel",
    "DivergenceModel",
    "Encoder",
    "EvidenceBound",
    "ExactDenoiser",
    "KnownDistribution",
    "LabelledDenoiser",
    "LatentVariableModel",
    "Motion",
    "RestorationModel",
    "angle_and_scale",
    "capabilities_of",
    "capability",
    "counted",
    "phrase_of",
    "placed",
]
