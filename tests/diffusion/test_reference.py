"""The rows of the ideal denoiser of U[0, 1], through the product's own path from a study to its
numbers.

W1 of 10 000 particles started from the quantiles of the prior, so that there is no Monte-Carlo
noise. The tables were computed by other code (NumPy, its own grids and samplers) and are good to
the three digits written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import Any

import pytest
import torch

from diffusion.metrics import metrics
from tasks.plan import make_plan
from tasks.study import Study, load_study
from tasks.work import PointAnswer, Requests
from tests.tasks.in_one_process import run_shard

STEPS = (1, 2, 3, 5, 8, 10, 16, 20, 32, 50, 64, 100)

# fmt: off
TABLE: dict[tuple[str, str], tuple[float, ...]] = {
    ("edm", "euler"): (0.249, 0.248, 0.222, 0.108, 0.0806, 0.0683, 0.0411, 0.0327, 0.0202, 0.0128, 0.01, 0.00647),
    ("edm", "heun"): (0.249, 0.248, 0.185, 0.17, 0.0769, 0.0479, 0.0186, 0.0113, 0.00432, 0.00222, 0.00188, 0.00177),
    ("iddpm", "euler"): (0.249, 0.244, 0.183, 0.116, 0.0664, 0.0502, 0.0293, 0.023, 0.014, 0.00886, 0.00696, 0.00459),
    ("iddpm", "ddim"): (0.249, 0.244, 0.183, 0.116, 0.0664, 0.0502, 0.0293, 0.023, 0.014, 0.00886, 0.00696, 0.00459),
    ("iddpm", "heun"): (
        0.249, 0.248, 0.206, 0.0557, 0.0141, 0.00863, 0.0036, 0.00276, 0.00213, 0.00192, 0.00186, 0.0018,
    ),
    ("ve-linear", "euler"): (39.6, 19.9, 10.1, 2.8, 0.743, 0.453, 0.227, 0.178, 0.111, 0.071, 0.0554, 0.0353),
    ("ve-linear", "heun"): (39.6, 1.23e8, 1.54e7, 1.7e5, 0.928, 0.25, 0.169, 0.106, 0.0363, 0.0135, 0.00804, 0.00338),
    ("vp-linear", "euler"): (
        0.682, 0.425, 0.257, 0.0586, 0.0477, 0.0462, 0.0307, 0.024, 0.0142, 0.00864, 0.00658, 0.00406,
    ),
    ("vp-linear", "heun"): (
        0.682, 58.1, 13, 0.322, 0.0318, 0.0216, 0.0106, 0.00753, 0.00393, 0.00228, 0.00177, 0.00128,
    ),
    ("ddpm-linear", "ddim"): (0.25, 0.231, 0.205, 0.164, 0.114, 0.095, 0.0546, 0.0443, 0.0265, 0.0171, 0.0148, 0.00846),
    ("ddpm-linear(levels=1000)", "ddim"): (
        0.25, 0.231, 0.205, 0.165, 0.12, 0.098, 0.0592, 0.0467, 0.0285, 0.018, 0.0141, 0.00897,
    ),
}
# fmt: on

LONG = (200, 500, 1000)
LONG_TABLE: dict[tuple[str, str], tuple[float, ...]] = {
    ("edm", "euler"): (0.00345, 0.00197, 0.00177),
    ("edm", "heun"): (0.00177, 0.00177, 0.00177),
    ("iddpm", "euler"): (0.00273, 0.00195),  # it has 992 levels
    ("iddpm", "ddim"): (0.00273, 0.00195),
    ("iddpm", "heun"): (0.00178, 0.00179),
    ("ve-linear", "euler"): (0.0175, 0.00704, 0.00366),
    ("ve-linear", "heun"): (0.00159, 0.00152, 0.00151),
    ("vp-linear", "euler"): (0.00199, 0.00105, 0.000909),
    ("vp-linear", "heun"): (0.000997, 0.000947, 0.000952),
    ("ddpm-linear(levels=1000)", "ddim"): (0.00455, 0.00201, 0.00128),
}

WANTED = Requests(tuple(metrics.create(name) for name in ("w1", "ks")), samples=True, trajectories=frozenset())


def answers(spec: dict[str, Any]) -> list[PointAnswer]:
    """Study, plan, shards, answers: what a run does, without its orchestration."""
    plan = make_plan(Study.from_spec(spec), {}, [])
    threads = torch.get_num_threads()
    found = [point for shard in plan.shards(2) for point in run_shard(shard, {}, {}, WANTED).points]
    torch.set_num_threads(threads)
    assert {point.error for point in found} == {None}
    assert len(found) == len(plan.points) - len(plan.impossible)
    return found


Rows = dict[tuple[str, str], dict[int, PointAnswer]]


def rows_of(steps: Sequence[int]) -> Rows:
    """The shipped study at these numbers of steps, with the chain of 1000 levels added and the
    questions that no table answers left out.
    """
    spec = {**load_study("reference").spec(), "steps": list(steps)}
    spec["formulations"].append({"name": "exact", "schedule": {"name": "ddpm-linear", "levels": 1000}})
    spec["exclude"] = [
        *({"schedule": "ddpm-linear", "sampler": sampler} for sampler in ("euler", "heun")),
        *({"schedule": schedule, "sampler": "ddim"} for schedule in ("edm", "ve-linear", "vp-linear")),
    ]
    rows: Rows = {}
    for answer in answers(spec):
        labels = answer.point.labels
        rows.setdefault((str(labels["schedule"]), str(labels["sampler"])), {})[answer.point.steps] = answer
    return rows


@pytest.fixture(scope="module")
def reference() -> Rows:
    return rows_of(STEPS)


@pytest.mark.parametrize("row", TABLE, ids=" ".join)
def test_quantile_particles_end_where_the_table_says(reference: Rows, row: tuple[str, str]) -> None:
    found = {steps: answer.metrics["w1"] for steps, answer in reference[row].items()}
    assert tuple(found) == STEPS
    for steps, expected in zip(STEPS, TABLE[row], strict=True):
        assert found[steps] == pytest.approx(expected, rel=0.02), f"{row} with {steps} steps"


@pytest.mark.slow
def test_with_hundreds_of_steps_they_end_where_the_table_says() -> None:
    """All rows of 200, 500 and 1000 steps; what a schedule has no levels for is not asked."""
    found = rows_of(LONG)
    assert {row: tuple(points) for row, points in found.items()} == {
        row: LONG[: len(expected)] for row, expected in LONG_TABLE.items()
    }
    for row, expected in LONG_TABLE.items():
        for steps, value in zip(LONG, expected, strict=False):
            assert found[row][steps].metrics["w1"] == pytest.approx(value, rel=0.02), f"{row} with {steps} steps"


def test_evaluations_are_counted(reference: Rows) -> None:
    for (_, sampler), row in reference.items():
        for steps, answer in row.items():
            assert answer.nfe == (2 * steps - 1 if sampler == "heun" else steps)


def test_ddim_is_euler_on_iddpm(reference: Rows) -> None:
    for steps in STEPS:
        one, other = (reference["iddpm", sampler][steps].metrics["w1"] for sampler in ("ddim", "euler"))
        assert one == pytest.approx(other, rel=1e-9)


def test_heun_beats_euler_at_equal_steps_once_there_are_fifty(reference: Rows) -> None:
    for schedule in ("edm", "iddpm", "ve-linear", "vp-linear"):
        for steps in (50, 64, 100):
            heun, euler = (reference[schedule, sampler][steps].metrics["w1"] for sampler in ("heun", "euler"))
            assert heun < euler


def test_at_the_same_number_of_steps_no_sampler_of_edm_is_worse_than_a_collapse(reference: Rows) -> None:
    """A quarter is W1 of all mass at one half: bounded, and no success. The others blow up at few
    steps.
    """
    for sampler in ("euler", "heun"):
        assert max(answer.metrics["w1"] for answer in reference["edm", sampler].values()) < 0.25
    assert reference["ve-linear", "heun"][2].metrics["w1"] > 1e8
    assert reference["vp-linear", "heun"][2].metrics["w1"] > 50


@pytest.mark.parametrize(
    ("variance", "w1", "sd", "sample_variance"),
    [("posterior", 0.0158, 0.0012, 0.07371), ("transition", 0.00412, 0.0016, 0.08271)],
)
def test_hundred_steps_of_the_chain_leave_the_error_of_the_chosen_variance(
    variance: str, w1: float, sd: float, sample_variance: float
) -> None:
    """Mean over eight seeds within 4 standard deviations of a mean; the posterior's variance is too
    small, so are the samples' (target 1/12).
    """
    seeds = 8
    spec = {
        **load_study("reference").spec(),
        "formulations": [{"name": "exact", "schedule": "ddpm-linear"}],
        "samplers": [{"name": "ancestral", "variance": variance}],
        "steps": [100],
        "seeds": seeds,
        "start": "random",
    }
    found = answers(spec)
    assert len(found) == seeds
    assert abs(mean(answer.metrics["w1"] for answer in found) - w1) <= 4 * sd / math.sqrt(seeds)
    variances = [float(answer.samples.var()) for answer in found if answer.samples is not None]
    error = math.sqrt(1 / 180 / (seeds * 10_000))  # of the variance of uniform samples
    assert mean(variances) == pytest.approx(sample_variance, abs=4 * math.sqrt(2) * error)


def test_start_noise_is_shared_by_whatever_has_the_data_set_and_the_seed_in_common() -> None:
    """And by nothing else: one seed's particles are no other's."""
    spec = {
        **load_study("reference").spec(),
        "formulations": [{"name": "exact", "schedule": name} for name in ("edm", "iddpm")],
        "samplers": [{"name": "ddim"}, {"name": "euler"}],
        "steps": [1],
        "seeds": 2,
        "samples": 100,
        "start": "random",
    }
    by_seed: dict[int, list[list[int]]] = {}
    for answer in answers(spec):  # one step is monotone: the order of the particles is that of the start noise
        assert answer.samples is not None
        by_seed.setdefault(answer.point.cell.seed, []).append(answer.samples[:, 0].argsort().tolist())
    assert [len(orders) for orders in by_seed.values()] == [4, 4]
    assert all(order == orders[0] for orders in by_seed.values() for order in orders)
    assert by_seed[0][0] != by_seed[1][0]
