"""Models: what they can be asked, the exact ones, and how their evaluations are counted.

- `protocols`: each capability (a denoiser, a decoder, an action ...) with the shapes of question and answer;
- `exact`: the ideal denoisers of targets for which they are known;
- `counting`: a model that counts how often it is evaluated.
"""

from __future__ import annotations

from diffusion.models.counting import CountingDenoiser
from diffusion.models.exact import ExactDenoiser
from diffusion.models.protocols import (
    Denoiser,
    EvidenceBound,
    HasAction,
    HasBound,
    HasDecoder,
    HasDensity,
    HasDivergence,
    HasLabels,
    HasPerturbation,
    Motion,
    angle_and_scale,
)

__all__ = [
    "CountingDenoiser",
    "Denoiser",
    "EvidenceBound",
    "ExactDenoiser",
    "HasAction",
    "HasBound",
    "HasDecoder",
    "HasDensity",
    "HasDivergence",
    "HasLabels",
    "HasPerturbation",
    "Motion",
    "angle_and_scale",
]
