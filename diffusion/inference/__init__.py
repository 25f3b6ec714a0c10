"""Asking models: from start noise to samples, and why a question may have no answer.

- `sampling`: the states that a sampler goes through, for a stack of models that are asked the same;
- `refusals`: what does not fit together, in one sentence;
- `model`: one model, trained, exact or somebody's own, and what it can be asked;
- `evaluation`: how far samples or a model are from a target;
- `loss_floor`: the least denoising loss that any network can reach.
"""

from __future__ import annotations

from diffusion.inference.evaluation import Score, evaluate, serving
from diffusion.inference.loss_floor import loss_floor
from diffusion.inference.model import Inference
from diffusion.inference.refusals import unanswerable, unmeasurable
from diffusion.inference.sampling import (
    Question,
    Subject,
    clean_data,
    guided,
    levels_for,
    noise_streams,
    start_noise,
    states,
)

__all__ = [
    "Inference",
    "Question",
    "Score",
    "Subject",
    "clean_data",
    "evaluate",
    "guided",
    "levels_for",
    "loss_floor",
    "noise_streams",
    "serving",
    "start_noise",
    "states",
    "unanswerable",
    "unmeasurable",
]
