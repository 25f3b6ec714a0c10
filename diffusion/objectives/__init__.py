"""What is minimised, at which noise levels, with which weight, towards which noise.

- `base`: what an objective owes the training loop;
- `denoising`: the denoising loss, a regression; `separate`: the same with a network for every
  level;
- `labelled`: the same with a network that is conditioned on the label;
- `observed`: the same with a network that is given a simulator's outcome;
- `restoration`: the same with an observation of the data in place of the noise;
- `action_matching`: the velocity of a path from samples of its marginals;
- `score_matching`: implicit and sliced score matching, which differentiate the network;
- `variational`: the lower bound of an autoencoder;
- `noise_levels`, `weightings`, `noise_targets`: its parts, each with a name.
"""

from __future__ import annotations

from diffusion.objectives.noise_levels import (
    LogitNormal,
    LogNormal,
    LogUniform,
    NoiseLevels,
    OwnLevels,
    SingleLevel,
    UniformTime,
    noise_distributions,
    stratified,
)
from diffusion.objectives.noise_targets import NoiseTarget, last_step_share
from diffusion.objectives.weightings import (
    ChainWeights,
    LastStep,
    LearnedUncertainty,
    Likelihood,
    MinSignalToNoise,
    SignalToNoise,
    Simple,
    UnitVariance,
    Weighting,
    weightings,
)

# isort: split
from diffusion.objectives.base import Objective
from diffusion.objectives.denoising import DenoisingLoss
from diffusion.objectives.labelled import NO_LABEL, LabelledLoss
from diffusion.objectives.observed import ObservedLoss
from diffusion.objectives.restoration import RestorationLoss

# isort: split
from diffusion.objectives.coupled import CoupledLoss

# isort: split
from diffusion.objectives.action_matching import ActionLoss

# isort: split
from diffusion.objectives.score_matching import ImplicitLoss, SlicedLoss
from diffusion.objectives.separate import SeparateLoss

# isort: split
from diffusion.objectives.variational import VariationalBound

__all__ = [
    "NO_LABEL",
    "ActionLoss",
    "ChainWeights",
    "CoupledLoss",
    "DenoisingLoss",
    "ImplicitLoss",
    "LabelledLoss",
    "LastStep",
    "LearnedUncertainty",
    "Likelihood",
    "LogNormal",
    "LogUniform",
    "LogitNormal",
    "MinSignalToNoise",
    "NoiseLevels",
    "NoiseTarget",
    "Objective",
    "ObservedLoss",
    "OwnLevels",
    "RestorationLoss",
    "SeparateLoss",
    "SignalToNoise",
    "Simple",
    "SingleLevel",
    "SlicedLoss",
    "UniformTime",
    "UnitVariance",
    "VariationalBound",
    "Weighting",
    "last_step_share",
    "noise_distributions",
    "stratified",
    "weightings",
]
