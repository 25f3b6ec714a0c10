"""The exact rows of the posterior tasks are the posterior: a classifier cannot tell them from it."""

from __future__ import annotations

import math

import pytest

import diffatlas as da
from diffusion.datasets import SimulatorPosterior, datasets

TASKS = [entry.name for entry in datasets if entry.has_defaults and issubclass(entry.cls, SimulatorPosterior)]
POINTS = 400


@pytest.mark.parametrize("name", TASKS)
def test_samples_of_the_exact_denoiser_score_one_half(name: str) -> None:
    """Within 4.4 standard errors, 1 / sqrt(8 points) each: false alarms 1e-5 for each task, and the
    seed is fixed. Samples that are a third too wide are told by more than that.
    """
    target = da.dataset(name)
    samples = da.sample(target, "heun", schedule="edm", steps=16, n=POINTS)
    metric = {"name": "c2st", "points": POINTS, "epochs": 60}
    bound = 4.4 / math.sqrt(8 * POINTS)
    (exact,) = da.evaluate(samples, target, [metric]).values()
    assert abs(exact.value - 0.5) < bound
    centre = samples.mean(0)
    (wide,) = da.evaluate(centre + 4 / 3 * (samples - centre), target, [metric]).values()
    assert wide.value > 0.5 + bound
