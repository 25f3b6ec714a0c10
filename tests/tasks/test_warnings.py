"""Questions that have an answer, but not the one that is meant, are pointed out before they are
asked.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from diffusion import plugins
from diffusion.datasets import Dataset, datasets
from diffusion.samplers import samplers
from diffusion.schedules import schedules
from diffusion.schedules.base import GAUSSIAN_ENOUGH
from flows.command_line import app
from tasks.plain import Plain
from tasks.plan import make_plan
from tasks.plan.warnings import end_warnings, measured_in_vain
from tasks.study import Study


def plain_datasets() -> list[Dataset]:
    found = []
    for entry in datasets:
        try:
            found.append(entry.cls())
        except TypeError:  # it has parameters without defaults
            continue
    return found


@pytest.mark.parametrize("dataset", plain_datasets(), ids=lambda dataset: dataset.registered_name)
def test_the_root_mean_square_is_that_of_samples(dataset: Dataset) -> None:
    """Six standard errors: a false alarm in 5e8 per data set."""
    squares = dataset.sample(20_000, torch.Generator().manual_seed(1)).double().square().mean(dim=1)
    error = float(squares.std()) / math.sqrt(len(squares))
    assert abs(dataset.root_mean_square**2 - float(squares.mean())) <= 6 * error + 1e-12


def test_data_of_unit_interval_are_noise_at_the_end_of_the_usual_schedules() -> None:
    uniform = datasets.create("uniform")
    assert uniform.root_mean_square == pytest.approx(math.sqrt(1 / 3))
    usual = ("edm", "ve-linear", "vp-linear", "flow", "iddpm", "ddpm-linear")
    assert end_warnings((uniform, schedules.create(name)) for name in usual) == []


def test_the_warning_begins_where_the_data_are_too_large_for_the_schedule() -> None:
    edm = schedules.create("edm")
    edge = GAUSSIAN_ENOUGH * 80 * math.sqrt(3)  # the root mean square of U[-a, a] is a / sqrt(3)
    inside, beyond = (datasets.create("uniform", low=-f * edge, high=f * edge) for f in (0.999, 1.001))
    assert end_warnings([(inside, edm)]) == []
    (line,) = end_warnings([(beyond, edm)])
    assert line.startswith(f"{beyond.label()}: schedule edm does not end in noise")


def test_the_mean_counts_and_lines_come_once_and_in_order() -> None:
    edm, flow = schedules.create("edm"), schedules.create("flow")
    far = datasets.create("uniform", low=100.0, high=101.0)
    farther = datasets.create("uniform", low=200.0, high=201.0)
    found = end_warnings([(farther, edm), (far, edm), (farther, edm), (far, flow)])
    assert [line.partition(":")[0] for line in found] == [farther.label(), far.label()]


def test_only_what_starts_from_the_schedules_noise_is_told_that_it_is_wrong() -> None:
    from_noise = {entry.name for entry in samplers if entry.has_defaults and entry.cls().from_noise}
    assert {"euler", "heun", "ancestral", "ddim", "euler-maruyama"} <= from_noise
    assert from_noise.isdisjoint({"langevin", "annealed-langevin", "mala", "forward-chain", "forward-sde"})


def test_a_metric_that_measures_nothing_of_what_is_asked_is_told_with_the_reason() -> None:
    def found(**parts: Plain) -> list[str]:
        study = Study.from_spec(
            {"name": "vain", "seeds": 1, "samplers": ["heun"], "steps": [2], "samples": 10, **parts}
        )
        return measured_in_vain(make_plan(study, {}, ()))

    (line,) = found(datasets=["uniform"], formulations=["edm"], metrics=["w1", "elbo"])
    assert line.startswith("metric 'elbo' measures nothing that is asked: ")
    assert found(datasets=["uniform"], formulations=["edm"], metrics=["w1", "nll"]) == []
    (line,) = found(datasets=["moons"], formulations=["edm"], metrics=["energy", "restoration-error"])
    assert "restores nothing" in line


def test_data_sets_of_one_label_are_pointed_out_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of somebody's own class, whose label says too little."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(plugins.VARIABLE, "nameless_data")
    Path("nameless_data.py").write_text(
        "from dataclasses import dataclass\nfrom diffusion.datasets import Uniform\n\n"
        "@dataclass(frozen=True)\nclass Mine(Uniform):\n    def label(self):\n        return 'mine'\n"
    )
    spec = {
        "name": "alike",
        "seeds": 2,
        "formulations": ["exact"],
        "samplers": ["heun"],
        "steps": [2],
        "metrics": ["w1"],
    }
    for lows, told in (((0.0, 3.0), 1), ((0.0,), 0)):
        own = [{"name": "nameless_data:Mine", "low": low, "high": low + 1} for low in lows]
        Path("alike.json").write_text(json.dumps({**spec, "datasets": [*own, "uniform"]}))
        found = CliRunner().invoke(app, ["plan", "alike.json", "--store", "none", "--json"])
        assert found.exit_code == 0, found.output
        lines = [line for line in json.loads(found.stdout)["warnings"] if "data sets of the study are called" in line]
        assert len(lines) == told
        assert all(line.startswith("2 data sets of the study are called 'mine'") for line in lines)
