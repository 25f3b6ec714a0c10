"""A posterior task of one's own, of three parameters and five outcomes, through a study by the real
command: what a network that saw no observation gives is held against the law that is known.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tasks.results import open_results, open_samples
from tests.tasks.store_kit import ROOT

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Command

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("services")]

LEARNED = {"name": "observation-conditional", "simulations": 4000}
STUDY: dict[str, Any] = {
    "name": "parabolas",
    "datasets": [{"name": "own_posterior:Parabola", "observation": number} for number in (1, 2)],
    "formulations": [LEARNED],  # exact rows come with it
    "training": {"steps": 1000, "batch": 256, "width": 64, "depth": 2},
    "seeds": 1,
    "samplers": ["heun"],
    "steps": [40],
    "samples": 2000,
    "metrics": ["energy"],
    "keep": {"samples": True},
}
PLACES = np.linspace(-1, 1, 5)
OBSERVED = {1: (0.3, -0.4, -0.9, -0.1, 1.6), 2: (2.0, 1.1, 0.4, 0.2, -0.3)}


def by_normal_equations(observation: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the coefficients."""
    values = np.stack([np.ones(5), PLACES, PLACES**2 - 0.5], 1)
    covariance = np.linalg.inv(np.eye(3) + values.T @ values / 0.5**2)
    return covariance @ values.T @ np.array(OBSERVED[observation]) / 0.5**2, covariance


def test_a_task_of_ones_own_is_learned_from_simulations_alone(diffatlas: Command) -> None:
    """Samples of the exact rows have mean and covariance within five standard errors, and a
    hundredth added for 40 steps; learned ones within a quarter of a deviation and a third of a
    variance, where the prior's mean is more than two off.
    """
    shutil.copy(ROOT / "examples" / "own_posterior.py", diffatlas.folder)
    (diffatlas.folder / "parabolas.json").write_text(json.dumps(STUDY))
    diffatlas("run", "parabolas.json")
    store = str(diffatlas.folder / "results")
    frame = open_results(store, study="parabolas").to_dataframe()
    assert frame["status"].tolist() == ["ok"] * 4
    for number in (1, 2):
        mean, covariance = by_normal_equations(number)
        deviations = np.sqrt(np.diag(covariance))
        assert np.abs(mean / deviations).max() > 2
        for exact in (True, False):
            rows = frame[(frame.formulation == "exact") == exact]
            (point,) = rows[rows.dataset.str.contains("observation=2") == (number == 2)]["point_id"]
            x = (open_samples(store, point).values - mean) / deviations
            off, spread = np.abs(x.mean(0)).max(), np.abs(np.cov(x.T) - np.eye(3)).max()
            if exact:
                assert off < 5 / np.sqrt(2000) + 0.01
                assert spread < 5 * np.sqrt(2 / 2000) + 0.02
            else:
                assert off < 0.25
                assert spread < 1 / 3
    learned = frame[frame.formulation != "exact"]
    assert (learned["energy"] < 4 * learned["energy_floor"]).all()
