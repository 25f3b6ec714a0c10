"""One small store with an answer to every figure: the documents' studies, with little training and
few samples. It is made once in a process, by the functions that the flow calls.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from tests.tasks.tiny_store import answer
from tests.temporary import shared_folder

together = pytest.mark.xdist_group("figures")

_TRAINING: dict[str, Any] = {"steps": 80, "batch": 64, "width": 24, "depth": 1, "data": 1000}
_BOX: dict[str, Any] = {"unit": "data", "start_from": "box", "low": -5.0, "high": 5.0}

SPECS: tuple[dict[str, Any], ...] = (
    {
        "name": "notebook-fixed",
        "datasets": ["four_points"],
        "formulations": [{"name": "exact", "schedule": "vp-constant"}],
        "seeds": 1,
        "samplers": ["forward-chain"],
        "steps": [60],
        "samples": 1500,
        "metrics": ["w1"],
        "keep": {"samples": True, "trajectories": ["forward-chain@60"]},
    },
    {
        "name": "slides-design-space",
        "datasets": ["uniform"],
        "formulations": ["vp", "edm"],
        "seeds": 3,
        "training": _TRAINING,
        "samplers": ["heun", "ddim"],
        "steps": [1, 2, 5, 20],
        "samples": 400,
        "metrics": ["w1", "score-error"],
        "keep": {"samples": True, "trajectories": ["heun@20"]},
    },
    {
        "name": "slides-torus",
        "datasets": ["torus"],
        "formulations": ["edm"],
        "seeds": 1,
        "training": _TRAINING,
        "samplers": ["heun"],
        "steps": [10],
        "samples": 500,
        "metrics": ["torus-distance"],
        "exclude": [{"formulation": "exact"}],
        "keep": {"samples": True, "trajectories": []},
    },
    {
        "name": "talk-forward",
        "datasets": ["gaussian_mixture"],
        "formulations": [{"name": "exact", "schedule": "vp-linear"}],
        "seeds": 1,
        "samplers": ["forward-sde", "heun"],  # the way back is kept as well, as in the shipped study
        "steps": [40],
        "samples": 1000,
        "metrics": ["w1"],
        "keep": {"samples": True, "trajectories": ["forward-sde@40", "heun@40"]},
    },
    {
        "name": "tutorial-langevin",
        "datasets": ["gaussian_mixture"],
        "formulations": [{"name": "exact", "schedule": {"name": "edm", "sigma_min": 0.0002}}],
        "seeds": 1,
        "samplers": [
            {"name": "gradient-ascent", "tau": 0.01, **_BOX},
            {"name": "langevin", "tau": 0.02, **_BOX},
        ],
        "steps": [150],
        "samples": 1000,
        "metrics": ["w1"],
        "keep": {"samples": True, "trajectories": ["gradient-ascent@150", "langevin@150"]},
    },
    {
        "name": "notes-ncsn",
        "datasets": ["eight_gaussians"],
        "formulations": ["ncsn"],
        "schedules": [{"name": "ncsn", "levels": 6, "sigma_max": 4.0, "sigma_min": 0.1}],
        "seeds": 1,
        "training": _TRAINING | {"steps": 200},
        "samplers": [{"name": "annealed-langevin", "moves": 10}],
        "steps": [6],
        "samples": 500,
        "metrics": ["sliced-w2", "score-error"],
        "keep": {"samples": True, "trajectories": ["annealed-langevin@6"]},
    },
    {
        "name": "digits",
        "datasets": ["digits"],
        "seeds": 1,
        "training": _TRAINING,
        "steps": [6],
        "samples": 40,
        "metrics": ["mode-coverage"],
        "exclude": [{"formulation": "exact"}],
        "keep": {"samples": True, "trajectories": ["heun@6"]},
        "grids": [
            {"formulations": ["edm"], "samplers": ["heun"]},
            {
                "formulations": ["edm"],
                "samplers": [{"name": "heun", "guidance": {"name": "inpainting", "coordinates": "second-half"}}],
            },
            {"formulations": [{"name": "vae", "latent": 8}], "samplers": ["heun"]},
        ],
    },
    {
        "name": "talk-action-matching",
        "datasets": ["gaussian_mixture"],
        "schedules": ["vp-linear"],
        "seeds": 1,
        "training": _TRAINING,
        "steps": [5],
        "samples": 200,
        "metrics": ["w1"],
        "formulations": [
            "action-matching",
            {
                "name": "denoising",
                "schedule": "vp-linear",
                "parametrization": "epsilon",
                "noise_levels": "uniform-t",
                "weighting": "snr",
            },
        ],
        "samplers": ["euler"],
    },
)


@cache
def figure_store() -> str:
    """The address of the store with the answers to `SPECS`."""
    uri = str(shared_folder("figures") / "store")
    for spec in SPECS:
        answer(uri, spec)
    return uri
