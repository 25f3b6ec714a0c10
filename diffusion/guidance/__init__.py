r"""Guidance: steering a denoiser by something known of the sample,
``D + w (sigma^2 / alpha) grad log p_t(y | x_t)``.

| name | known | p_t(y \| x_t) |
|---|---|---|
| `class-label` | the label | the exact classifier of the noised data, where classes are known in closed form |
| `trained-classifier` | the label | a network trained by cross-entropy on noised data |
| `classifier-free` | the label | that which a network holds that was trained with labels and without |
| `observation` | noisy coordinates | exact for mixtures and point sets, elsewhere a normal law around the denoiser |
| `inpainting` | exact coordinates | none: they are replaced at every level |

A new one is a subclass of `Guidance`: the guided denoiser, and the conditioned law that samples are
compared with.
"""

from __future__ import annotations

from diffusion.guidance.base import Guidance, Guided, LabelGuidance, guidances
from diffusion.guidance.class_label import ClassLabel

# isort: split
from diffusion.guidance.trained_classifier import TrainedClassifier

# isort: split
from diffusion.guidance.classifier_free import ClassifierFree
from diffusion.guidance.inpainting import Inpainting
from diffusion.guidance.observation import NoisyObservation

__all__ = [
    "ClassLabel",
    "ClassifierFree",
    "Guidance",
    "Guided",
    "Inpainting",
    "LabelGuidance",
    "NoisyObservation",
    "TrainedClassifier",
    "guidances",
]
