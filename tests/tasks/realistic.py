"""A scalar study with realistic numbers, chosen and not computed.

The exact rows are the reference figures of the exact denoiser on U[0, 1] (W1 from quantile
particles; the sampling floor of 10,000 samples is added in quadrature); a trained row is the exact
one, plus a network error that no step count removes, with a few per cent of noise per seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.tasks.chosen import OfCell, answers_to

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.plan import Cell
    from tasks.results.models import ModelledAnswers

STEPS = (1, 2, 3, 5, 8, 10, 16, 20, 32, 50, 64, 100)
SAMPLERS = ("ddim", "euler", "heun")
SCHEDULE_OF = {"vp": "vp-linear", "ve": "ve-linear", "iddpm": "iddpm", "edm": "edm", "ddpm": "ddpm-linear"}
FLOOR = 0.00313

_EULER = {
    "edm": (0.249, 0.248, 0.222, 0.108, 0.0806, 0.0683, 0.0411, 0.0327, 0.0202, 0.0128, 0.01, 0.00647),
    "iddpm": (0.249, 0.244, 0.183, 0.116, 0.0664, 0.0502, 0.0293, 0.023, 0.014, 0.00886, 0.00696, 0.00459),
    "ve-linear": (39.6, 19.9, 10.1, 2.8, 0.743, 0.453, 0.227, 0.178, 0.111, 0.071, 0.0554, 0.0353),
    "vp-linear": (0.682, 0.425, 0.257, 0.0586, 0.0477, 0.0462, 0.0307, 0.024, 0.0142, 0.00864, 0.00658, 0.00406),
    "ddpm-linear": (0.25, 0.231, 0.205, 0.165, 0.12, 0.098, 0.0592, 0.0467, 0.0285, 0.018, 0.0141, 0.00897),
}
_HEUN = {
    "edm": (0.249, 0.248, 0.185, 0.17, 0.0769, 0.0479, 0.0186, 0.0113, 0.00432, 0.00222, 0.00188, 0.00177),
    "iddpm": (0.249, 0.248, 0.206, 0.0557, 0.0141, 0.00863, 0.0036, 0.00276, 0.00213, 0.00192, 0.00186, 0.0018),
    "ve-linear": (39.6, 1.23e8, 1.54e7, 1.7e5, 0.928, 0.25, 0.169, 0.106, 0.0363, 0.0135, 0.00804, 0.00338),
    "vp-linear": (0.682, 58.1, 13.0, 0.322, 0.0318, 0.0216, 0.0106, 0.00753, 0.00393, 0.00228, 0.00177, 0.00128),
    "ddpm-linear": (0.25, 40.0, 9.0, 0.4, 0.05, 0.03, 0.013, 0.009, 0.0047, 0.0027, 0.0021, 0.0015),
}
_NETWORK_ERROR = {"vp": 0.006, "ve": 0.012, "iddpm": 0.004, "edm": 0.0025, "ddpm": 0.007}


def exact_w1(schedule: str, sampler: str, steps: int) -> float:
    """The figure of the exact denoiser, with as many samples as the study draws."""
    row = (_HEUN if sampler == "heun" else _EULER)[schedule][STEPS.index(steps)]
    return float(np.hypot(row, FLOOR))


def wishes(
    *,
    seeds: int = 3,
    steps: Sequence[int] = STEPS,
    samplers: Sequence[str] = SAMPLERS,
    formulations: Sequence[str] = tuple(SCHEDULE_OF),
    exact: bool = True,
    worse: Mapping[str, float] | None = None,
    failed: Mapping[str, str] | None = None,
    keep: bool = False,
) -> list[dict[str, Any]]:
    """The points of the study.

    Args:
        seeds, steps, samplers, formulations: What is asked.
        exact: Whether the exact denoiser is asked, too; then w1 is split into its parts.
        worse: By what the error of a formulation is multiplied.
        failed: The error with which the points of a formulation failed.
        keep: Whether samples are kept, drawn to fit: the further off in W1, the narrower or wider.
    """
    rng = np.random.default_rng(7)
    models = [(name, SCHEDULE_OF[name]) for name in formulations]
    models += [("exact", schedule) for _, schedule in models] if exact else []
    rows: list[dict[str, Any]] = []
    for formulation, schedule in models:
        for sampler in samplers:
            for n in steps:
                for seed in range(seeds):
                    w1 = exact_w1(schedule, sampler, n) * rng.lognormal(0, 0.02)
                    if formulation != "exact":
                        network = _NETWORK_ERROR[formulation]
                        factor = (worse or {}).get(formulation, 1.0) * rng.lognormal(0, 0.07)
                        w1 = factor * float(np.hypot(w1, network))
                    row: dict[str, Any] = {"formulation": formulation, "sampler": sampler, "steps": n, "seed": seed}
                    if formulation == "exact":
                        row |= {"schedule": schedule, "w1_limit": 1.2 * FLOOR}
                    if formulation in (failed or {}):
                        row |= {"error": (failed or {})[formulation], "nfe": -1}
                        row.pop("w1_limit", None)
                    else:
                        row |= {"w1": w1, "w1_floor": FLOOR, "ks": min(1.0, 2.2 * w1 + 0.004), "ks_floor": 0.00868}
                        row |= {"samples": _samples(rng, w1)} if keep else {}
                    rows.append(row)
    return rows


def realistic(**requested: Any) -> ModelledAnswers:
    """The study with its losses and the errors of its scores; arguments as of `wishes`."""
    return answers_to(wishes(**requested), _of_cell, metrics=["w1", "ks", "score-error"])


def _samples(rng: np.random.Generator, w1: float, n: int = 500) -> np.ndarray:
    x = 0.5 + (rng.random((n, 1)) - 0.5) * max(1 - 4 * w1, 0.02)
    if w1 >= 0.26:
        x = 0.5 + (w1 if w1 < 1 else 4 * w1) * rng.standard_normal((n, 1))
    return (x + 0.3 * min(w1, 0.3) * rng.standard_normal((n, 1))).astype(np.float32)


def _of_cell(cell: Cell) -> OfCell:
    """Losses that fall, and errors that are smallest in the middle of the schedule, a factor of two
    between seeds.
    """
    if cell.training is None:
        return OfCell()
    rng = np.random.default_rng([5, cell.seed, list(SCHEDULE_OF).index(cell.formulation.registered_name)])
    losses = (0.2 + 1.5 * np.exp(-np.arange(100) / 10)) * rng.lognormal(0, 0.06, 100)
    levels = np.geomspace(0.01, 80.0, 16)
    errors = 1e-3 * (1 + np.log(levels) ** 2) * rng.lognormal(0, 0.4, 16)
    return OfCell(losses.tolist(), levels.tolist(), errors.tolist())
