"""Asking models: from start noise to samples, and why a question may have no answer.

- `sampling`: the states that a sampler goes through, for a stack of models that are asked the same;
- `refusals`: what does not fit together, in one sentence.
"""

from __future__ import annotations

from diffusion.inference.refusals import unanswerable
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
    "Question",
    "Subject",
    "clean_data",
    "guided",
    "levels_for",
    "noise_streams",
    "start_noise",
    "states",
    "unanswerable",
]
