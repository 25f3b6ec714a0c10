"""Formulations: what is trained, on which schedule, towards which objective, as one named choice.

- `base`: what every formulation owes;
- `denoising`: a schedule, a parametrization, noise levels and a weight, trained by regression;
- `indi`: the way back from an observation of the data;
- `action_matching`: the velocity of a path, from samples of its marginals;
- `score_matching`: the same score by the other objectives of score matching, and the
  noise-conditional score networks;
- `variational`: a lower bound of the likelihood, of an autoencoder or of a chain;
- `class_conditional`: any of the first kind, conditioned on the label;
- `observation_conditional`: any of the first kind, conditioned on a simulator's outcome;
- `exact`: no network, the ideal denoiser of the target, known in closed form or by quadrature;
- `given`: a network that somebody has already, asked like the others.
"""

from __future__ import annotations

from diffusion.formulations.base import Formulation, NoiseConditional, Trained, Untrained, formulations

# isort: split
from diffusion.formulations.denoising import (
    DDPM,
    VE,
    VP,
    Denoising,
    ElucidatedDM,
    ElucidatedDM2,
    ImprovedDDPM,
    LevelOneDDPM,
    RectifiedFlow,
    VPrediction,
    straight_time,
)

# isort: split
from diffusion.formulations.action_matching import ActionMatching
from diffusion.formulations.class_conditional import ClassConditional
from diffusion.formulations.coupled import ExactBetween, FlowBetween
from diffusion.formulations.indi import InDI
from diffusion.formulations.observation_conditional import ObservationConditional

# isort: split
from diffusion.formulations.score_matching import (
    DenoisingScoreMatching,
    ImplicitScoreMatching,
    NoiseConditionalScore,
    SeparateScores,
    SlicedScoreMatching,
)
from diffusion.formulations.variational import ChainElbo, VariationalAutoencoder

# isort: split
from diffusion.formulations.exact import Exact

# isort: split
from diffusion.formulations.given import Given

__all__ = [
    "DDPM",
    "VE",
    "VP",
    "ActionMatching",
    "ChainElbo",
    "ClassConditional",
    "Denoising",
    "DenoisingScoreMatching",
    "ElucidatedDM",
    "ElucidatedDM2",
    "Exact",
    "ExactBetween",
    "FlowBetween",
    "Formulation",
    "Given",
    "ImplicitScoreMatching",
    "ImprovedDDPM",
    "InDI",
    "LevelOneDDPM",
    "NoiseConditional",
    "NoiseConditionalScore",
    "ObservationConditional",
    "RectifiedFlow",
    "SeparateScores",
    "SlicedScoreMatching",
    "Trained",
    "Untrained",
    "VPrediction",
    "VariationalAutoencoder",
    "formulations",
    "straight_time",
]
